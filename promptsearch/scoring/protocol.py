"""The protocol of scorers, and the price of a prompt there.

The lead of an example is what stands in its row before the first slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import Prompt, Sizes
from promptsearch.records.scores import Ids, Scores
from promptsearch.tasks.task import Example


class Scorer(Sizes, Protocol):
    """A scorer of prompts on one split.

    The engine is one, a planted objective of a test another.
    """

    @property
    def signature(self) -> str:
        """The name of all that a score depends on besides prompt and example.

        That is: model, tokenizer, template, split, dtype.
        """

    def length(self, prompt: Prompt) -> int:
        """The number of tokens that the prompt puts into the slots."""

    def fits(self, prompt: Prompt) -> bool:
        """Whether the model can read every example with this prompt.

        A prompt with which it cannot fails, and is not charged.
        """

    def context(self, examples: Ids) -> Ids:
        """The number of each example's tokens behind its lead, shape `(examples,)`.

        They reach from the first slot to the end of each answer, without the prompt's own tokens.

        Args:
            examples: Ids, shape `(examples,)`.
        """

    def lead(self, examples: Ids) -> Ids:
        """The number of each example's tokens before the first slot, shape `(examples,)`."""

    def readings(self, examples: Ids) -> Ids:
        """The number of times that each example is read with one prompt, shape `(examples,)`.

        It is once, or, by a server, once for each answer.
        """

    def score(self, prompts: Sequence[Prompt], examples: Ids) -> Scores:
        """The scores of all prompts on all examples."""

    def loss(self, numbers: Numbers, examples: Ids) -> Tensor:
        """The mean loss in nats of a trained prompt, shape `()`, differentiable in its numbers."""

    def passes(self, numbers: Numbers) -> tuple[float, float]:
        """The cost of `loss`, and that of its gradient, in forward passes through the whole LM."""

    def examples(self, ids: Ids) -> list[Example]:
        """The examples themselves."""

    def demonstrations(self, ids: Ids) -> list[str]:
        """Examples as solved text.

        It is the template filled in, with nothing in the slots and with the right answer.
        """

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""

    @property
    def weights(self) -> ModelWeights:
        """The LM's weights in float32, and what they belong to."""

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """The keys and values of tokens at a row's very start, shape `(tokens, *prefix_shape)`."""


def price_of(scorer: Scorer, length: int, examples: Ids) -> int:
    """The tokens that are charged for scoring one prompt; the lead of an example is free.

    Args:
        scorer: The scorer of the split.
        length: The number of the prompt's tokens.
        examples: Ids, shape `(examples,)`.
    """
    return int(scorer.context(examples).sum() + length * scorer.readings(examples).sum())
