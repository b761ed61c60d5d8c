"""Text prompts: any text, of any length."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from promptsearch.errors import PromptError
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import Content, Open, Prompt, Space, digest, listed
from promptsearch.tasks.template import Template


@dataclass(frozen=True)
class TextPrompt(Prompt):
    """A prompt that consists of any text, one piece for each slot of the template.

    Args:
        texts: The pieces; a single string fills the first slot and leaves further slots empty.
    """

    kind = "text"
    noun = "a text prompt"
    sized: ClassVar[bool] = False

    texts: tuple[str, ...]
    key: str = field(init=False, repr=False, compare=False)

    def __init__(self, texts: str | Sequence[str]) -> None:
        object.__setattr__(self, "texts", (texts,) if isinstance(texts, str) else tuple(texts))
        object.__setattr__(self, "key", digest(self.kind, json.dumps(self.texts).encode()))

    @staticmethod
    def standing(texts: Sequence[str], template: Template) -> TextPrompt:
        """The prompt that puts these texts into the slots of a template, spaces of slots included.

        Args:
            texts: The text that stands in each slot, with the space that belongs to the slot.
            template: The template.
        """
        return TextPrompt(
            tuple(slot.held(text) for text, slot in zip(texts, template.slots, strict=True))
        )

    @property
    def length(self) -> None:
        """None: a tokenizer says how many tokens a text has."""
        return None

    def fill(self, template: Template, first: int = 0) -> tuple[Content, ...]:
        """The text of each slot, with its space."""
        return template.slot_texts(self.texts)

    @property
    def shown(self) -> str:
        """The prompt's texts."""
        return f"text prompt {list(self.texts)}"

    def to_json(self) -> dict[str, Any]:
        """The texts."""
        return {"kind": self.kind, "key": self.key, "texts": list(self.texts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path | None) -> Self:
        """The prompt of the texts."""
        return cls(listed(data, "texts", str))

    @classmethod
    def tokens_in(cls, data: Mapping[str, Any], length: int) -> None:
        """None: a tokenizer says how many tokens a text has."""
        return None

    @classmethod
    def copied(cls, prompt: Any) -> Self:
        """The prompt of the same texts, each a plain string."""
        return cls(tuple(map(plain, prompt.texts)))

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """Empty texts, whose cost is that of the template alone."""
        return [cls("")] * count

    def to_train(self, model: Open) -> Numbers:
        """Nothing: no gradient reaches a text."""
        raise PromptError("no gradient reaches a text prompt: train vectors instead")


def plain(text: Any) -> str:
    """A text of a prompt as a plain string, whatever class of strings it is of.

    Args:
        text: The text, made by code that is not trusted.

    Raises:
        TypeError: It is no text.
        PromptError: It holds half a character, which no tokenizer takes and no file can hold.
    """
    found = str.__str__(text)
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            "a text holds half a character (a lone surrogate), as one does that was cut within "
            "a character"
        ) from error
    return found
