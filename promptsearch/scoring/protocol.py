"""What a scorer must do, and what a prompt costs there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.prompt import Numbers, Prompt, Sizes
from promptsearch.records.scores import Ids, Scores
from promptsearch.tasks.task import Example


class Scorer(Sizes, Protocol):
    """Scores prompts on one split; the engine is one, a planted objective of a test another."""

    @property
    def signature(self) -> str:
        """Names all that a score depends on besides prompt and example: model, tokenizer, template, split, dtype."""

    def length(self, prompt: Prompt) -> int:
        """Tokens that the prompt puts into the slots."""

    def fits(self, prompt: Prompt) -> bool:
        """Whether the model can read every example with this prompt: what it cannot read fails, and is not charged."""

    def context(self, examples: Ids) -> Ids:
        """Tokens from the first slot to the end of each answer, the prompt's own left out, shape `(examples,)`."""

    def lead(self, examples: Ids) -> Ids:
        """Tokens of each example before the first slot, shape `(examples,)`."""

    def readings(self, examples: Ids) -> Ids:
        """How often an example is read with one prompt, shape `(examples,)`: once, or by a server once for each answer."""

    def score(self, prompts: Sequence[Prompt], examples: Ids) -> Scores:
        """All prompts on all examples."""

    def loss(self, numbers: Numbers, examples: Ids) -> Tensor:
        """The mean loss in nats of a trained prompt, shape `()`, differentiable in its numbers."""

    def passes(self, numbers: Numbers) -> tuple[float, float]:
        """What `loss` and its gradient compute, in forward passes through the whole LM."""

    def examples(self, ids: Ids) -> list[Example]:
        """The examples themselves."""

    def demonstrations(self, ids: Ids) -> list[str]:
        """Examples as solved text: the template filled in, nothing in the slots, and the right answer."""

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""

    @property
    def weights(self) -> ModelWeights:
        """The LM's weights in float32, and what they belong to."""

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """Keys and values of tokens at the very start of a row, shape `(tokens, *prefix_shape)`."""


def price_of(scorer: Scorer, length: int, examples: Ids) -> int:
    """What scoring one prompt is charged, in tokens, what stands before the first slot left out.

    Args:
        scorer: Of the split.
        length: Tokens of the prompt.
        examples: Ids, shape `(examples,)`.
    """
    return int(scorer.context(examples).sum() + length * scorer.readings(examples).sum())
