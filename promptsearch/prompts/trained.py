"""What trained prompts have in common: numbers by name, in a file of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from promptsearch.errors import PromptError, StrategyError
from promptsearch.prompts.numbers import Numbers, Parts, tensors_of
from promptsearch.prompts.prompt import Content, Prompt, Sizes, Space, split_slots
from promptsearch.prompts.tensors import read_tensors, write_tensors
from promptsearch.tasks.template import Template

Shape = tuple[int, ...]

#: Export format -> what it holds of a prompt, for messages.
_HELD = {
    "kv": "keys and values",
    "cartridge": "keys and values",
    "peft": "virtual tokens",
    "text": "text",
    "vllm": "embeddings",
}


@dataclass(frozen=True, eq=False)
class TrainedPrompt(Prompt):
    """A prompt that gradient descent finds: numbers, which stand in a file of their own.

    Attributes:
        tensors: The numbers by name, as the file holds them: a detached float32 copy on the CPU,
            so that a live parameter cannot change a prompt that was already scored.
        key: The prompt's name in logs and caches, which follows from its content.
    """

    trained: ClassVar[bool] = True
    written: ClassVar[bool] = False
    #: The tensors that the prompt's length and the LM's sizes fix, each with its dimensions. The
    #: first dimension of the first one is the token.
    shapes: ClassVar[dict[str, tuple[str, ...]]] = {}
    #: What the prompt needs of a model that a row of tokens does not hold, for messages, and what
    #: to export it as; None for prompts that stand in a row.
    outside: ClassVar[str | None] = None

    tensors: Mapping[str, Tensor] = field(init=False, repr=False)
    key: str = field(init=False)

    @property
    @abstractmethod
    def length(self) -> int:
        """The number of prompt tokens, for which every row is charged."""

    # While it is trained, it is the numbers alone.

    @classmethod
    @abstractmethod
    def takes(cls, numbers: Numbers) -> bool:
        """Whether numbers have the form of this kind: a tensor, two, or tensors by name."""

    @classmethod
    @abstractmethod
    def parts_of(cls, numbers: Numbers) -> Parts:
        """The numbers, by where they meet the model.

        Args:
            numbers: Numbers of the form and the shapes of this kind.
        """

    @classmethod
    def sized_tensors(cls, numbers: Numbers) -> list[Tensor]:
        """The tensors of numbers whose shapes `wanted` gives, in the order of `shapes`."""
        return tensors_of(numbers)

    @classmethod
    def wanted(cls, found: Sequence[Shape], length: int, sizes: Sizes) -> tuple[Shape, ...]:
        """The shapes that the tensors in `shapes` should have.

        Args:
            found: The shapes that they have: a kind may leave a choice.
            length: The number of the prompt's tokens.
            sizes: The LM's sizes.
        """
        return ()

    @classmethod
    def misfit_of(
        cls, tensors: Sequence[Tensor], length: int, sizes: Sizes
    ) -> tuple[str, str] | None:
        """The expected and the found shapes of tensors, in words; None where they agree.

        Args:
            tensors: The tensors in `shapes`.
            length: The number of the prompt's tokens.
            sizes: The LM's sizes.
        """
        found = tuple(tuple(tensor.shape) for tensor in tensors)
        expected = cls.wanted(found, length, sizes)
        if found == expected:
            return None
        return " and ".join(map(str, expected)), " and ".join(map(str, found))

    @classmethod
    def places(cls, template: Template, length: int, first: int) -> tuple[tuple[int, ...], ...]:
        """The ids in each slot that stand for the prompt's rows.

        Args:
            template: The template, bound.
            length: The number of rows.
            first: The place of the first of them among the rows of all prompts.
        """
        return split_slots(template, [-1 - i for i in range(first, first + length)])

    # As all prompts.

    @property
    def sized_numbers(self) -> list[Tensor]:
        """The tensors in `shapes`."""
        return [self.tensors[name] for name in self.shapes]

    def fill(self, template: Template, first: int = 0) -> tuple[Content, ...]:
        """The ids that stand for the prompt's rows."""
        return self.places(template, self.length, first)

    def misfit(self, length: int, sizes: Sizes) -> tuple[str, str] | None:
        """The expected and the found shapes of the tensors in `shapes`."""
        return self.misfit_of(self.sized_numbers, length, sizes)

    def check(self, space: Space, sizes: Sizes | None) -> None:
        """Refuse numbers of other shapes than those of the space's length and the model."""
        if sizes is not None and (misfit := self.misfit(space.length, sizes)):
            raise StrategyError(f"a {self.kind} prompt here has shape {misfit[0]}, got {misfit[1]}")

    def check_model(self, sizes: Sizes) -> None:
        """Refuse numbers for a model of other sizes; the message names the dimension."""
        found = [tuple(tensor.shape) for tensor in self.sized_numbers]
        expected = self.wanted(found, self.length, sizes)
        for names, ours, theirs in zip(self.shapes.values(), found, expected, strict=True):
            for name, here, there in zip(names, ours, theirs, strict=True):
                if here != there:
                    raise PromptError(
                        f"the prompt {self.key} is for a model with {name} {here}; "
                        f"this one has {there}"
                    )

    @property
    def numbers(self) -> int:
        """The count of numbers that have to be stored."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @classmethod
    @abstractmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The prompt whose file holds these tensors.

        Args:
            tensors: The tensors by name.

        Raises:
            PromptError: They are no prompt of this kind.
        """

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path | None) -> Self:
        """The prompt whose numbers stand in `KEY.safetensors`."""
        if folder is None:
            raise PromptError(f"the numbers of a {cls.kind} prompt stand in a file beside its JSON")
        return load_trained(folder / f"{data['key']}.safetensors", cls)

    def save(self, folder: Path) -> None:
        """Write `KEY.safetensors`."""
        save_trained(self, folder / f"{self.key}.safetensors")

    @classmethod
    def copied(cls, prompt: Any) -> Self:
        """The prompt of copies of the same tensors."""
        return cls.load(dict(prompt.tensors))

    def refuses(self, to: str) -> str | None:
        """A text holds no numbers, and a row of tokens nothing that layers or weights hold."""
        if self.outside is not None and to in _HELD:
            return f"no {_HELD[to]} can stand for {self.outside}"
        if to == "text":
            return (
                f"a {self.kind} prompt is numbers, and no text holds it exactly: export it as "
                "json, peft or kv"
            )
        return None

    def __eq__(self, other: object) -> bool:
        """Whether the other is a trained prompt with the same content, bit for bit."""
        return isinstance(other, TrainedPrompt) and self.key == other.key

    def __hash__(self) -> int:
        """The hash, which follows from the content."""
        return hash(self.key)


def own(tensor: Tensor) -> Tensor:
    """A detached float32 copy of a tensor on the CPU."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


T = TypeVar("T", bound=TrainedPrompt)


def save_trained(prompt: TrainedPrompt, path: Path) -> None:
    """Write the numbers of a trained prompt as safetensors; the file is never half written."""
    write_tensors(path, prompt.tensors, {"key": prompt.key})


def load_trained(path: Path, kind: type[T]) -> T:
    """Read what `save_trained` wrote.

    Args:
        path: The file.
        kind: The class of the prompt.

    Raises:
        PromptError: There is no such file, or it holds something else.
    """
    tensors = read_tensors(path, f"a {kind.kind} prompt")
    try:
        return kind.load(tensors)
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from error
