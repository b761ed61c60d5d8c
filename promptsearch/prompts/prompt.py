"""What all kinds of prompts have in common.

A prompt is what fills the slots of a template. Prompts are immutable; two prompts with the same
content have the same `key`, which names them in logs and caches.

A kind of prompts is a class, and whatever differs from kind to kind is asked of the class or the
prompt. Three kinds stand apart from the text, so that they put nothing into the row's own tokens: a
prefix stands in front of the row, a gated prompt beside it, and changed weights in the LM itself.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.numbers import Numbers, Parts
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.template import Template

#: The content of one slot: ids, of which those below zero stand for the rows of trained prompts
#: (`-1 - i` for the i-th row), or text.
Content = tuple[int, ...] | str

#: For each class of a task, in the order of its answers, the words that stand for it.
AnswerWords = tuple[tuple[str, ...], ...]

E = TypeVar("E", int, float, str)


class Sizes(Protocol):
    """The sizes that prompts need to fit: an LM knows them, and so does what scores with it."""

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`."""

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """The shape for a token of a prefix: `(layers, 2, key heads, size of a head)`."""

    @property
    def prefix_layers(self) -> tuple[int, ...]:
        """The numbers of layers, from the top, that a prefix may have, all of them first."""

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The most that gated prompts can have: `(layers, heads, width)`."""

    @property
    def weights(self) -> ModelWeights:
        """The LM's weights in float32, and what they belong to."""


class Open(Sizes, Protocol):
    """A model that also computes keys and values, of which prefixes are made."""

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """The keys and values of tokens at a row's very start, shape `(tokens, *prefix_shape)`."""


class Reader(Protocol):
    """A model as far as texts are compared by it, without a pass through it."""

    @property
    def vocabulary(self) -> Tensor:
        """Every token as the layers take it, shape `(vocabulary, width)`."""

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""


class Words(Protocol):
    """Tokens of the pool."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids, shape `(length,)`."""


class Space(Protocol):
    """The space of hard prompts, as far as prompts ask about it."""

    length: int
    decode: Callable[[Sequence[int]], str]

    def check(self, prompt: Any) -> None:
        """Refuse a hard prompt that is not in the space."""

    def sample(self, rng: np.random.Generator, count: int) -> Sequence[Words]:
        """Hard prompts, drawn uniformly from the space."""


class Prompt(ABC):
    """A prompt of any kind.

    Attributes:
        key: The prompt's name in logs and caches, which follows from its content: 20 hexadecimal
            digits of a SHA-256.
    """

    #: The kind's name in files, logs and keys.
    kind: ClassVar[str]
    #: The kind's name in sentences.
    noun: ClassVar[str]
    #: The kind of template that takes the prompts, which says where they stand.
    placement: ClassVar[Kind] = "slots"
    #: Whether gradient descent finds the prompts: they are numbers, which no text holds.
    trained: ClassVar[bool] = False
    #: Whether the prompts are words, the same ones before every input.
    written: ClassVar[bool] = True
    #: Whether the prompts have as many tokens as a study's `length` says.
    sized: ClassVar[bool] = True
    #: Whether the LM stays as it is; if not, nothing can share a pass with such a prompt.
    frozen: ClassVar[bool] = True

    key: str
    #: The words that stand for the classes under this prompt; None: the task's own answers do.
    answers: AnswerWords | None = None

    @classmethod
    def among(cls, prompts: Iterable[Prompt]) -> list[Self]:
        """The prompts of this kind among some, in their order."""
        return [prompt for prompt in prompts if isinstance(prompt, cls)]

    # In a row.

    @property
    @abstractmethod
    def length(self) -> int | None:
        """The length in tokens; None: only a tokenizer knows."""

    @abstractmethod
    def fill(self, template: Template, first: int = 0) -> tuple[Content, ...]:
        """The content of each slot.

        Args:
            template: The template, bound.
            first: The place of the prompt's first row among the rows of all prompts.

        Raises:
            TemplateError: The prompt does not go into the template.
        """

    @property
    def parts(self) -> Parts:
        """The prompt's numbers, by where they meet the model."""
        return Parts()

    @property
    def as_numbers(self) -> Numbers | None:
        """The prompt's numbers as `loss` takes them; None for words."""
        return None

    def before(self, reader: Reader) -> Callable[[Mapping[str, str]], Prompt] | None:
        """What gives the prompt that stands before an input; None where it is itself before all.

        Args:
            reader: The model that scores.

        Returns:
            A function from the fields of an input to a prompt of another kind.
        """
        return None

    def misfit(self, length: int, sizes: Sizes) -> tuple[str, str] | None:
        """The expected and the found shapes of a prompt's numbers; None where they agree.

        Args:
            length: The number of tokens that the prompt should have.
            sizes: The sizes of the model.
        """
        return None

    def check_model(self, sizes: Sizes) -> None:
        """Refuse a prompt for a model of other sizes.

        Args:
            sizes: The sizes of the model.

        Raises:
            PromptError: It is for another model.
        """
        return

    def check(self, space: Space, sizes: Sizes | None) -> None:
        """Refuse a prompt that does not belong to a search.

        Args:
            space: The space that is searched.
            sizes: The sizes of the model that scores; None where it shows none, and takes words
                alone.

        Raises:
            StrategyError: It has other tokens than the pool, or another length or shape.
        """
        return

    # As a value and in files.

    @property
    def numbers(self) -> int:
        """The count of numbers that have to be stored."""
        return 0

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The prompt as JSON values: words in full, trained prompts by key and size."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path | None) -> Self:
        """The prompt that JSON values stand for: the reverse of `to_json`.

        Args:
            data: The JSON values, with a key in its form; the content need not have this key.
            folder: The folder where `save` has put the numbers.

        Raises:
            PromptError: There is no such prompt.
        """

    @classmethod
    @abstractmethod
    def tokens_in(cls, data: Mapping[str, Any], length: int) -> int | None:
        """The number of tokens of the prompt that JSON values stand for, as `length` gives it.

        Args:
            data: The values of `to_json`.
            length: The length of prompts whose JSON does not say it.
        """

    def save(self, folder: Path) -> None:
        """Write what JSON does not hold into a folder: the numbers of a trained prompt."""
        return

    @classmethod
    @abstractmethod
    def copied(cls, prompt: Any) -> Self:
        """The same prompt in a new object, which nobody who holds the given one can change.

        Args:
            prompt: A prompt of this class, which may have been tampered with.
        """

    # For people, and for the libraries that they take prompts to.

    @property
    def shown(self) -> str:
        """The prompt's name in messages."""
        return f"prompt {self.key}"

    @property
    def tags(self) -> list[str]:
        """The kind's tags on a model card."""
        return ["prompt", f"{self.kind}-prompt"]

    def described(self, sizes: Sizes, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
        """The prompt as a reader sees it, as JSON values with a `text` among them.

        Args:
            sizes: The sizes of the model, and its embeddings.
            decode: Turns ids into text.
        """
        return {"text": self.shown}

    def refuses(self, to: str) -> str | None:
        """The reason why an export format cannot hold the prompt, or None where it can.

        Args:
            to: The format: `json`, `kv`, `peft`, `text` or `vllm`.
        """
        return None

    # To try out what a study will do.

    @classmethod
    @abstractmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """Prompts at random, as costly to score as those that a search will propose.

        Args:
            space: The space that is searched.
            model: The model that scores.
            rng: The generator that draws.
            count: The number of prompts.
        """

    @abstractmethod
    def to_train(self, model: Open) -> Numbers:
        """The numbers of a trained prompt that begins at this one, as `loss` takes them.

        Args:
            model: The model that scores.
        """


def digest(kind: str, content: bytes) -> str:
    """The key of a prompt: 20 hexadecimal digits.

    Args:
        kind: The prompt's kind.
        content: All that makes the prompt.
    """
    return hashlib.sha256(kind.encode() + b"\0" + content).hexdigest()[:20]


def split_slots(template: Template, ids: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The prompt's tokens, cut into the template's slots: one tuple for each slot.

    Args:
        template: The template, bound.
        ids: The ids over all slots, shape `(length,)`.
    """
    cuts = np.cumsum([0, *(slot.length or 0 for slot in template.slots)])
    return tuple(tuple(ids[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True))


def listed(data: Mapping[str, Any], name: str, kind: type[E]) -> list[E]:
    """The list that JSON values of a prompt hold under a name.

    Args:
        data: The JSON values.
        name: The name.
        kind: The type of each item.

    Raises:
        PromptError: There is no such list.
    """
    found = data.get(name)
    if not isinstance(found, list) or not all(type(each) is kind for each in found):
        raise PromptError(
            f"expected '{name}' of a {data['kind']} prompt as a list of {kind.__name__}s, "
            f"got {str(found)[:80]!r}"
        )
    return found
