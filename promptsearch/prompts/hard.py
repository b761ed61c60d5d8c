"""Hard prompts: tokens of the pool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import (
    Content,
    Open,
    Prompt,
    Sizes,
    Space,
    digest,
    listed,
    split_slots,
)
from promptsearch.tasks.template import Template


@dataclass(frozen=True)
class HardPrompt(Prompt):
    """A prompt that consists of tokens of the pool, in the order of the template's slots.

    Args:
        ids: Token ids, shape `(length,)`.
    """

    kind = "hard"
    noun = "a hard prompt"

    ids: tuple[int, ...]
    key: str = field(init=False, repr=False, compare=False)

    def __init__(self, ids: Iterable[int]) -> None:
        object.__setattr__(self, "ids", tuple(int(i) for i in ids))
        object.__setattr__(self, "key", digest(self.kind, json.dumps(self.ids).encode()))

    @property
    def length(self) -> int:
        """The number of ids."""
        return len(self.ids)

    def fill(self, template: Template, first: int = 0) -> tuple[Content, ...]:
        """The ids, cut into the slots."""
        return split_slots(template, self.ids)

    def check(self, space: Space, sizes: Sizes | None) -> None:
        """Refuse a prompt that is not in the space."""
        space.check(self)

    def to_json(self) -> dict[str, Any]:
        """The ids."""
        return {"kind": self.kind, "key": self.key, "ids": list(self.ids)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path | None) -> Self:
        """The prompt of the ids."""
        return cls(listed(data, "ids", int))

    @classmethod
    def tokens_in(cls, data: Mapping[str, Any], length: int) -> int:
        """The number of ids."""
        return len(data["ids"])

    @classmethod
    def copied(cls, prompt: Any) -> Self:
        """The prompt of the same ids."""
        return cls(prompt.ids)

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """Prompts of the space."""
        return [cls(words.ids) for words in space.sample(rng, count)]

    def to_train(self, model: Open) -> Numbers:
        """The tokens' embeddings, as a soft prompt begins, shape `(length, width)`."""
        return model.embeddings[torch.tensor(self.ids)]
