"""The protocols of scorers and of white boxes, and the price of a prompt.

A scorer gives scores, and that is all that a black-box search needs. A white box also shows what is
inside the LM, from losses with gradients to weights; a model behind an endpoint has none.

The lead of an example is what stands in its row before the first slot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from promptsearch.errors import StrategyError
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import Open, Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.scores import ExampleIds, Floats, Generated, Scores
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.task import Example


@dataclass(frozen=True)
class Adds:
    """What a prompt adds to the price of a row, in tokens.

    A prompt in the slots is read with the row, token by token. One that stands beside the text is
    no token of it: the row's tokens attend to it, and each costs a share more.

    Args:
        tokens: For each reading of the row.
        share: For each token of the text that is read.
    """

    tokens: int
    share: float = 0.0

    def to(self, text: float, readings: int) -> float:
        """What it adds to so many tokens of text, which are read in so many rows."""
        return self.tokens * readings + self.share * text


class Scorer(Protocol):
    """A scorer of prompts on one split.

    The engine is one, the scorer of a served model another, a table of scores a third.
    """

    @property
    def white_box(self) -> WhiteBox | None:
        """The inside of the LM that scores; None where nothing but scores comes out."""

    @property
    def signature(self) -> str:
        """The name of all that a score depends on besides prompt and example.

        That is: model, tokenizer, template, split, dtype.
        """

    def length(self, prompt: Prompt) -> int:
        """The prompt's length in tokens."""

    def adds(self, length: int, /) -> Adds:
        """What a prompt of this length adds to the price of a row."""

    def fits(self, prompt: Prompt) -> bool:
        """Whether the model can read every example with this prompt.

        A prompt with which it cannot fails, and is not charged.
        """

    def context(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's tokens behind its lead, shape `(examples,)`.

        They reach from the first slot to the end of each answer, without the prompt's own tokens.

        Args:
            examples: Ids, shape `(examples,)`.
        """

    def lead(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's tokens before the first slot, shape `(examples,)`."""

    def tail(self, examples: ExampleIds) -> ExampleIds:
        """The number of each example's tokens behind its lead up to the answer.

        What stands behind the answer of a masked model counts, too. They are without the prompt's
        own tokens, shape `(examples,)`.
        """

    def readings(self, examples: ExampleIds) -> ExampleIds:
        """The number of times that each example is read with one prompt, shape `(examples,)`.

        It is once, or, by a server, once for each answer. A masked model reads once for each length
        of answers, or with `{answer:pll}` once for each of their tokens.
        """

    def score(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Scores:
        """The scores of all prompts on all examples."""

    def generate(
        self, prompts: Sequence[Prompt], examples: ExampleIds, decoding: Decoding
    ) -> Generated:
        """The answers that the model generates under all prompts on all examples.

        Args:
            prompts: The prompts; one that cannot be read is a failure.
            examples: Ids, shape `(examples,)`.
            decoding: The way in which answers are generated.

        Raises:
            StrategyError: The scorer has no model that writes, or one that does not decode so.
        """

    def examples(self, ids: ExampleIds) -> list[Example]:
        """The examples themselves."""

    def demonstrations(self, ids: ExampleIds, answers: Sequence[str] | None = None) -> list[str]:
        """Examples as solved text.

        It is the template filled in, with nothing in the slots and with an answer.

        Args:
            ids: Ids, shape `(examples,)`.
            answers: The answer of each, as it stands behind the template; None: the right one.
        """

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""


class Blank(Protocol):
    """An input without content, see `promptsearch.scoring.content_free`."""

    def price(self, prompt: Prompt) -> int:
        """The tokens that are charged for reading it with a prompt."""

    def read(self, prompt: Prompt) -> tuple[Floats | None, int]:
        """How probable each choice is below a prompt, and the number of tokens computed for it."""


class Teaching(Protocol):
    """Prompts of words that teach the one that is trained, see `promptsearch.scoring.teaching`."""

    def price(self, teacher: TextPrompt, examples: ExampleIds) -> int:
        """The tokens that are charged for `predictions`, without the lead of what is trained."""

    def predictions(self, teacher: TextPrompt, examples: ExampleIds) -> list[Tensor]:
        """What the LM predicts in the place of each example's answer."""

    def divergence(
        self, numbers: Numbers, examples: ExampleIds, predictions: Sequence[Tensor]
    ) -> Tensor:
        """The mean divergence of a trained prompt from predictions, in nats, shape `()`."""

    def own_price(self, length: int) -> int:
        """The tokens that are read for `own_losses`."""

    def own_losses(self, numbers: Numbers, targets: Mapping[int, int]) -> Tensor:
        """The losses of some of a trained prompt's own tokens, in nats, shape `(targets,)`."""


class WhiteBox(Open, Protocol):
    """The inside of the LM that scores prompts on one split: what training a prompt needs."""

    def loss(self, numbers: Numbers, examples: ExampleIds, visit: int = 0) -> Tensor:
        """The mean loss in nats of a trained prompt, shape `()`, differentiable in its numbers.

        Args:
            numbers: The prompt's numbers.
            examples: Ids, shape `(batch,)`.
            visit: The number of this visit of the examples. Of an example with several right
                answers, it draws the one that counts this time.
        """

    @property
    def teaching(self) -> Teaching:
        """Prompts of words that teach the one that is trained."""

    def word_logits(self, prompt: Prompt, examples: ExampleIds) -> tuple[tuple[str, ...], Tensor]:
        """The words that are a single token as an answer, and their logits in the answer's place.

        The words are as they stand behind the template; the logits are float32 on the CPU, shape
        `(examples, words)`.

        Args:
            prompt: A prompt of words.
            examples: Ids, shape `(examples,)`.
        """

    def states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The LM's last hidden state at the end of each row, shape `(rows, width)`.

        They are float32 on the CPU, without gradients.

        Args:
            rows: Token ids; one special token, with which a text begins or ends, stands before
                each row.
        """

    def step_context(self, examples: ExampleIds, visit: int | None = None) -> Floats:
        """What `Scorer.context` is for `loss`, shape `(examples,)`.

        Args:
            examples: Ids, shape `(examples,)`.
            visit: As for `loss`; None: the mean over all that may be drawn.
        """

    def content_free(self, text: str) -> Blank:
        """The input whose fields all hold the same text, which says nothing.

        Raises:
            StrategyError: The task has no choices that are the same in all rows.
        """

    def passes(self, numbers: Numbers) -> tuple[float, float]:
        """The cost of `loss`, and that of its gradient, in forward passes through the whole LM."""


def inside(scorer: Scorer, what: str) -> WhiteBox:
    """The white box of a scorer.

    Args:
        scorer: The scorer.
        what: What is asked of the white box, for the message.

    Raises:
        StrategyError: The scorer has none.
    """
    if scorer.white_box is None:
        raise StrategyError(
            f"a table of scores or a model behind an endpoint shows no {what}: only strategies "
            "that need no more than the scores of hard prompts or texts work on it"
        )
    return scorer.white_box


def price_of(scorer: Scorer, length: int, examples: ExampleIds) -> int:
    """The tokens that are charged for scoring one prompt; the lead of an example is free.

    Args:
        scorer: The scorer of the split.
        length: The prompt's length in tokens.
        examples: Ids, shape `(examples,)`.
    """
    text, readings = int(scorer.context(examples).sum()), int(scorer.readings(examples).sum())
    return text + math.ceil(scorer.adds(length).to(text, readings))


def price_of_generation(
    scorer: Scorer, length: int, examples: ExampleIds, tokens: int | ExampleIds
) -> int:
    """The tokens that are charged for generating answers under one prompt; leads are free.

    Every row is read once up to its answer, and every token that is generated is one more.

    Args:
        scorer: The scorer of the split.
        length: The prompt's length in tokens.
        examples: Ids, shape `(examples,)`.
        tokens: The number of tokens that are generated for each example, shape `(examples,)`, see
            `Generated.tokens`; or the most for every one, `Decoding.most`.
    """
    written = tokens * len(examples) if isinstance(tokens, int) else int(tokens.sum())
    text = int(scorer.tail(examples).sum())
    return text + math.ceil(scorer.adds(length).to(text, len(examples))) + written
