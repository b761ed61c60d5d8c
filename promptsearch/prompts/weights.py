"""Changed weights of the LM, alone (`Weights`) or together with vectors (`TunedPrompt`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.prompts.numbers import VECTORS, Numbers, Parts, length_of, parted
from promptsearch.prompts.prompt import Open, Sizes, Space
from promptsearch.prompts.trained import Shape, TrainedPrompt, own
from promptsearch.tasks.placement import Kind


@dataclass(frozen=True, eq=False)
class NamedPrompt(TrainedPrompt):
    """A trained prompt that consists of tensors by name.

    Changed weights have this in common, alone or with vectors.

    Args:
        tensors: The tensors by name.
    """

    frozen: ClassVar[bool] = False

    tensors: Mapping[str, Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        """Copy the numbers and name them."""
        copies = {name: own(tensor) for name, tensor in sorted(self.tensors.items())}
        digest = hashlib.sha256(self.kind.encode())
        for name, tensor in copies.items():
            digest.update(f"\0{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        object.__setattr__(self, "tensors", copies)
        object.__setattr__(self, "key", digest.hexdigest()[:20])

    @property
    def length(self) -> int:
        """The number of vectors, one for each token; weights count as no token."""
        return length_of(self.tensors)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The changed and added weights, by name."""
        return parted(self.tensors)[1]

    @classmethod
    def takes(cls, numbers: Numbers) -> bool:
        """Whether the numbers have names, with or without vectors among them as the kind has."""
        return isinstance(numbers, Mapping) and (VECTORS in numbers) == (VECTORS in cls.shapes)

    @classmethod
    def parts_of(cls, numbers: Numbers) -> Parts:
        """Weights of the LM, and vectors in the slots if there are any."""
        assert isinstance(numbers, Mapping)  # see `takes`
        vectors, weights = parted(numbers)
        return Parts(vectors=vectors, weights=weights)

    @classmethod
    def sized_tensors(cls, numbers: Numbers) -> list[Tensor]:
        """The vectors, if there are any: weights have the shapes that the LM's weights have."""
        assert isinstance(numbers, Mapping)  # see `takes`
        return [numbers[name] for name in cls.shapes]

    @property
    def as_numbers(self) -> Numbers:
        """The tensors by name."""
        return self.tensors

    @property
    def parts(self) -> Parts:
        """The tensors, by where they meet the model."""
        return self.parts_of(self.tensors)

    def check(self, space: Space, sizes: Sizes | None) -> None:
        """Refuse weights that the LM does not have, and vectors of another shape."""
        if sizes is not None:
            sizes.weights.check(self.weights)
        super().check(space, sizes)

    def to_json(self) -> dict[str, Any]:
        """The count of numbers."""
        return {"kind": self.kind, "key": self.key, "numbers": self.numbers}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The prompt of all tensors that the file holds."""
        return cls(tensors)

    def to_train(self, model: Open) -> Numbers:
        """The numbers, with the weights of the lowest layer: their gradient crosses all layers."""
        weights = model.weights
        lowest = {name: weights.tensors[name] for name in weights.below([weights.layers[0]])}
        return {**lowest, **self.tensors}


@dataclass(frozen=True, eq=False)
class Weights(NamedPrompt):
    """Changed weights of the LM, which baselines hand in instead of a prompt.

    They add no tokens to a row. A tensor that has the name of one of the LM's weights replaces that
    weight while the prompt is scored. Other tensors are added to a module, and their names end in
    the name of their part, such as `lora_A` and `lora_B` for a linear map. All forms of them stand,
    with their formulas, in `promptsearch.models.added`.

    Args:
        tensors: The tensors by name; an empty mapping stands for the LM as it is.
    """

    kind = "weights"
    noun = "changed weights"
    placement: ClassVar[Kind] = "weights"
    sized: ClassVar[bool] = False
    outside: ClassVar[str | None] = (
        "changed weights: export them as json, or as peft those that it has a type for"
    )

    @property
    def tags(self) -> list[str]:
        """One tag: weights are no prompt."""
        return ["weights"]

    @classmethod
    def tokens_in(cls, data: Mapping[str, Any], length: int) -> int:
        """Zero: weights count as no token."""
        return 0

    def described(self, sizes: Sizes, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
        """The count of numbers."""
        return {"text": f"[{self.numbers:,} changed or added weights]"}

    def refuses(self, to: str) -> str | None:
        """PEFT holds some of them."""
        return None if to == "peft" else super().refuses(to)

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """The LM as it is."""
        return [cls({})] * count


@dataclass(frozen=True, eq=False)
class TunedPrompt(NamedPrompt):
    """A prompt of vectors together with changed weights of the LM, which were tuned with them.

    Args:
        tensors: The weights by name, as in `Weights`, and under the name `vectors` the vectors of a
            soft prompt, in the order of the template's slots, shape `(length, width)`.
    """

    kind = "tuned"
    noun = "a tuned prompt"
    placement: ClassVar[Kind] = "tuned"
    shapes: ClassVar[dict[str, tuple[str, ...]]] = {VECTORS: ("length", "width")}
    outside: ClassVar[str | None] = (
        "the changed weights that a tuned prompt has beside its vectors, which are made for these: "
        "export it as json"
    )

    def __post_init__(self) -> None:
        """Check that there are vectors, and do what all named prompts do."""
        shape = tuple(self.tensors[VECTORS].shape) if VECTORS in self.tensors else None
        if shape is None or len(shape) != 2:
            found = "no such tensor" if shape is None else str(shape)
            raise PromptError(
                f"a tuned prompt has {VECTORS} of shape (length, width) beside its weights, "
                f"got {found}"
            )
        super().__post_init__()

    @property
    def vectors(self) -> Tensor:
        """The vectors, shape `(length, width)`."""
        return self.tensors[VECTORS]

    @classmethod
    def wanted(cls, found: Sequence[Shape], length: int, sizes: Sizes) -> tuple[Shape, ...]:
        """One vector of the embeddings' width for each token."""
        return ((length, *sizes.embeddings.shape[1:]),)

    @classmethod
    def tokens_in(cls, data: Mapping[str, Any], length: int) -> int:
        """The given length, for the JSON does not say it."""
        return length

    def described(self, sizes: Sizes, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
        """The count of vectors and of other numbers."""
        changed = self.numbers - self.vectors.numel()
        return {"text": f"[{self.length} vectors and {changed:,} changed or added weights]"}

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """The embeddings of prompts of the space, and the LM as it is."""
        return [
            cls({VECTORS: model.embeddings[list(words.ids)]}) for words in space.sample(rng, count)
        ]
