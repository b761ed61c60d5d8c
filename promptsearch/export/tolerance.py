"""How far a loss that is scored anew may lie from the one that was measured.

The tolerance is what rounding in float32 explains, and no more. It follows from the model that is
loaded, the template's answers and the new losses. No file has a say in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import TOLERANCE
from promptsearch.scoring.answer_ids import answer_texts, options_of
from promptsearch.tasks.normalise import Normalise, answer_lengths
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template

#: How many standard deviations of the rounding error are allowed: losses scored anew in other
#: orders lay up to 3 of them away, see `benchmarks/exactness.py`.
DEVIATIONS = 6.0
#: The step of stored losses in nats: they are kept with six decimals.
DECIMALS = 1e-6


class Distance(NamedTuple):
    """How far a loss lies from the measured one and how far it may, in nats per scored token."""

    found: float
    allowed: float

    @property
    def same(self) -> bool:
        """Whether the losses are the same to float32."""
        return self.found <= self.allowed


class Scored(NamedTuple):
    """What a loss adds up.

    Args:
        tokens: The number of tokens whose log-probabilities are added up: those of the longest
            right text with its end or, where answers are chosen, those of the right one and of the
            longest other one, against which it is weighed.
        choice: Whether the answer is chosen.
        length: The least length by which a sum is divided, see `promptsearch.tasks.normalise`.
    """

    tokens: int
    choice: bool = False
    length: int = 1


def scored(
    lm: TextModel,
    template: Template,
    example: Example,
    choices: Sequence[str] | None,
    normalise: Normalise = "none",
) -> Scored:
    """What an example's loss adds up.

    Args:
        lm: The model whose tokenizer counts.
        template: The template.
        example: An example of the task.
        choices: The task's choices; None where they differ by row, and for text answers.
        normalise: The length by which log-probabilities of answers to choose from are divided.
    """
    counts = [lm.count_answer(text) for text in answer_texts(template, example, choices)]
    if (options := options_of(example, choices)) is None:
        # A server is sent no end token, and a masked model's answer has none.
        token = not (template.end or template.behind or lm.served)
        return Scored(max(1, max(counts) + token))
    others = [count for place, count in enumerate(counts) if place != example.choice]
    right = counts[example.choice] if example.choice is not None else 0
    length = min(answer_lengths(normalise, template, options, lm.count_answer))
    return Scored(max(1, right + max(others, default=0)), True, length)


def allowed_distance(lm: TextModel, row: Scored, loss: float) -> float:
    """How far a loss may lie from what was measured, in nats.

    The rounding errors of an answer's tokens are practically independent: measured on answers of 1
    to 40 tokens, likely and unlikely ones, the error of their sum grows with the square root of
    their number. The error of one token has the standard deviation `LanguageModel.noise`, which is
    measured on the model. (The error against float64, on SmolLM2 and on random models of four
    architectures, 1 to 32 layers and widths of 32 to 512, was 0.4 to 1.4 times as large.) So the
    error of a sum of n tokens has the standard deviation noise * sqrt(n), and `DEVIATIONS` of these
    are allowed.

    The loss of a task with choices is `-log softmax` at the right answer r. If the answers' sums
    move by d, the loss moves by sum(p_j (d_j - d_r)) over the other answers j. Together these have
    the probability 1 - p_r = 1 - exp(-loss), so the loss moves by no more than (1 - p_r) times the
    largest d_j - d_r, which is an error of the tokens of both answers. A loss near 0 is nearly
    exact.

    The mean over several right texts is no further off than the sum of the longest. Sums that are
    divided by the answers' lengths move by so much less.

    What a server answers depends on what else it is doing at the time, so `served.TOLERANCE` is
    allowed for each token.

    Args:
        lm: The model that scored.
        row: What the loss adds up.
        loss: The loss as it was scored anew, in nats.
    """
    n = row.tokens
    together = (TOLERANCE * n if lm.served else DEVIATIONS * lm.noise * math.sqrt(n)) / row.length
    return DECIMALS + together * (-math.expm1(-max(0.0, loss)) if row.choice else 1.0)


def largest_distance(
    lm: TextModel,
    rows: Sequence[Scored],
    measured: Sequence[float],
    losses: Sequence[float],
) -> Distance:
    """The distance of the loss that is furthest off, relative to what is allowed there.

    Args:
        lm: The model that scored anew.
        rows: What the loss of each example adds up, for at least one.
        measured: The examples' losses as measured, in nats, shape `(examples,)`.
        losses: The losses scored anew, in nats, shape `(examples,)`.
    """
    distances = []
    for row, before, now in zip(rows, measured, losses, strict=True):
        allowed = allowed_distance(lm, row, now)
        found = abs(now - before)
        distances.append(
            Distance(
                (found if math.isfinite(found) else math.inf) / row.tokens, allowed / row.tokens
            )
        )
    return max(distances, key=lambda distance: distance.found / distance.allowed)
