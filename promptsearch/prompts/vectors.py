"""What soft prompts, prefixes and gated prompts have in common: numbers for each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.prompts.numbers import Numbers, Parts
from promptsearch.prompts.prompt import Open, digest
from promptsearch.prompts.trained import TrainedPrompt, own


@dataclass(frozen=True, eq=False)
class VectorPrompt(TrainedPrompt):
    """A trained prompt that has numbers for each token, and nothing else.

    Soft prompts, prefixes and gated prompts have this in common. The fields of such a class are the
    tensors in `shapes`, in the same order.
    """

    def __post_init__(self) -> None:
        """Check the shapes, copy the numbers and name them."""
        tensors: dict[str, Tensor] = {}
        content = b""
        sizes: dict[str, int] = {}  # dimensions with the same name have the same size
        for name, dimensions in self.shapes.items():
            given: Tensor = getattr(self, name)
            shape = tuple(given.shape)
            fits = len(shape) == len(dimensions) and all(
                size
                == (int(dimension) if dimension.isdecimal() else sizes.setdefault(dimension, size))
                for dimension, size in zip(dimensions, shape, strict=True)
            )
            if not fits:
                of = f" {name} of" if len(self.shapes) > 1 else ""
                raise PromptError(
                    f"a {self.kind} prompt has{of} shape ({', '.join(dimensions)}), got {shape}"
                )
            tensors[name] = own(given)
            object.__setattr__(self, name, tensors[name])
            content += str(shape).encode() + tensors[name].numpy().tobytes()
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "key", digest(self.kind, content))

    @property
    def length(self) -> int:
        """The number of rows, one for each token."""
        return len(self.sized_numbers[0])

    @classmethod
    def takes(cls, numbers: Numbers) -> bool:
        """Whether the numbers have no names."""
        return not isinstance(numbers, Mapping)

    @property
    def parts(self) -> Parts:
        """The tensors, by where they meet the model."""
        return self.parts_of(self.as_numbers)

    @property
    def as_numbers(self) -> Tensor | tuple[Tensor, Tensor]:
        """The tensors as `loss` takes them: one, or two."""
        first, *others = self.sized_numbers
        return (first, others[0]) if others else first

    def to_json(self) -> dict[str, Any]:
        """The first tensor's shape."""
        return {
            "kind": self.kind,
            "key": self.key,
            "shape": list(self.sized_numbers[0].shape),
        }

    @classmethod
    def tokens_in(cls, data: Mapping[str, Any], length: int) -> int:
        """The first number of the shape."""
        return int(data["shape"][0])

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The prompt of the tensors in `shapes`."""
        if set(tensors) != set(cls.shapes):
            raise PromptError(
                f"expected the tensors {sorted(cls.shapes)} of a {cls.kind} prompt, "
                f"found {sorted(tensors)}"
            )
        return cls(*(tensors[name] for name in cls.shapes))

    def to_train(self, model: Open) -> Numbers:
        """The numbers themselves."""
        return self.as_numbers
