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
from promptsearch.tasks.task import Example

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


def scored_tokens(lm: TextModel, example: Example, choices: Sequence[str] | None) -> int:
    """How many tokens' log-probabilities an example's loss adds up.

    For a task with choices these are the tokens of the right answer and of the longest other one,
    against which it is weighed.

    Args:
        lm: The model whose tokenizer counts.
        example: An example of the task.
        choices: The task's choices; None for text answers.
    """
    others = [choice for place, choice in enumerate(choices or ()) if place != example.choice]
    return max(1, lm.count(example.answer) + max(map(lm.count, others), default=0))


def allowed_distance(lm: TextModel, tokens: int, loss: float, *, choice: bool) -> float:
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

    What a server answers depends on what else it is doing at the time, so `served.TOLERANCE` is
    allowed for each token.

    Args:
        lm: The model that scored.
        tokens: The number of scored tokens, see `scored_tokens`.
        loss: The loss as it was scored anew, in nats.
        choice: Whether the task has choices.
    """
    tokens_together = TOLERANCE * tokens if lm.served else DEVIATIONS * lm.noise * math.sqrt(tokens)
    return DECIMALS + tokens_together * (-math.expm1(-max(0.0, loss)) if choice else 1.0)


def largest_distance(
    lm: TextModel,
    examples: Sequence[Example],
    choices: Sequence[str] | None,
    measured: Sequence[float],
    losses: Sequence[float],
) -> Distance:
    """The distance of the loss that is furthest off, relative to what is allowed there.

    Args:
        lm: The model that scored anew.
        examples: The examples, at least one.
        choices: The task's choices; None for text answers.
        measured: The examples' losses as measured, in nats, shape `(examples,)`.
        losses: The losses scored anew, in nats, shape `(examples,)`.
    """
    distances = []
    for example, before, now in zip(examples, measured, losses, strict=True):
        tokens = scored_tokens(lm, example, choices)
        allowed = allowed_distance(lm, tokens, now, choice=choices is not None)
        found = abs(now - before)
        distances.append(
            Distance((found if math.isfinite(found) else math.inf) / tokens, allowed / tokens)
        )
    return max(distances, key=lambda distance: distance.found / distance.allowed)
