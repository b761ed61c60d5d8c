"""Calibrated prompts: a text, and what it adds to how probable each choice is.

A model that leans towards an answer whatever the input is put right by an affine correction of its
log-probabilities (Zhao et al. 2021, arXiv:2102.09690, section 4): one number a choice. The loss is
then that of the corrected distribution over the choices: the softmax of what the model gives, by
length where the task says so, plus these numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from promptsearch.errors import PromptError
from promptsearch.prompts.numbers import Parts
from promptsearch.prompts.prompt import Open, Space, digest, listed
from promptsearch.prompts.text import TextPrompt, plain


@dataclass(frozen=True)
class CalibratedPrompt(TextPrompt):
    """A text prompt with a correction of the task's choices.

    Args:
        texts: The pieces, as those of a text prompt.
        bias: What is added to the log-probability of each choice, in nats, shape `(choices,)`.

    Raises:
        PromptError: There is no number, or one is not finite.
    """

    kind = "calibrated"
    noun = "a calibrated prompt"

    bias: tuple[float, ...]

    def __init__(self, texts: str | Sequence[str], bias: Sequence[float]) -> None:
        super().__init__(texts)
        object.__setattr__(self, "bias", tuple(map(float, bias)))
        if not self.bias or not all(map(math.isfinite, self.bias)):
            raise PromptError(
                f"expected a finite number of nats for each choice as 'bias' of a calibrated "
                f"prompt, got {str(self.bias)[:80]}"
            )
        content = json.dumps([self.texts, self.bias]).encode()
        object.__setattr__(self, "key", digest(self.kind, content))

    @property
    def parts(self) -> Parts:
        """The correction, float64."""
        return Parts(bias=torch.tensor(self.bias, dtype=torch.float64))

    @property
    def numbers(self) -> int:
        """One for each choice."""
        return len(self.bias)

    @property
    def shown(self) -> str:
        """The prompt's texts."""
        return f"calibrated prompt {list(self.texts)}"

    def refuses(self, to: str) -> str | None:
        """The reason why only `json` holds the prompt: no text says what is added to a choice."""
        if to == "json":
            return None
        return (
            f"a calibrated prompt adds numbers to what the model says of each choice, and no {to} "
            "holds these: export it as json"
        )

    def to_json(self) -> dict[str, Any]:
        """The texts and the correction."""
        return {**super().to_json(), "bias": list(self.bias)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path | None) -> Self:
        """The prompt of the texts and the correction."""
        return cls(listed(data, "texts", str), listed(data, "bias", float))

    @classmethod
    def copied(cls, prompt: Any) -> Self:
        """The prompt of the same texts and numbers, each a plain one."""
        return cls(tuple(map(plain, prompt.texts)), tuple(prompt.bias))

    @classmethod
    def samples(cls, space: Space, model: Open, rng: np.random.Generator, count: int) -> list[Self]:
        """Empty texts that add nothing to two choices, whose cost is that of the template alone."""
        return [cls("", (0.0, 0.0))] * count
