"""How far a loss that is scored anew may lie from the one that was measured: what float32 can hold there, and no more.

It follows from the model that is loaded, the template's answers and the new losses. No file has a say in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import TOLERANCE
from promptsearch.tasks.task import Example

#: Standard deviations of rounding: losses scored anew in other orders lay up to 3 of them away, see `benchmarks/exactness.py`.
DEVIATIONS = 6.0
#: Losses are kept with six decimals, in nats.
DECIMALS = 1e-6


class Distance(NamedTuple):
    """How far a loss lies from what was measured, and may lie, in nats per scored token."""

    found: float
    allowed: float

    @property
    def same(self) -> bool:
        """Whether the losses are the same to float32."""
        return self.found <= self.allowed


def scored_tokens(lm: TextModel, example: Example, choices: Sequence[str] | None) -> int:
    """How many tokens' log-probabilities an example's loss adds up.

    Of a choice these are the right answer's and the longest other one's, against which it is weighed.

    Args:
        lm: For its tokenizer.
        example: Of a task.
        choices: The task's choices; None for text answers.
    """
    others = [choice for place, choice in enumerate(choices or ()) if place != example.choice]
    return max(1, lm.count(example.answer) + max(map(lm.count, others), default=0))


def allowed_distance(lm: TextModel, tokens: int, loss: float, *, choice: bool) -> float:
    """How far a loss may lie from what was measured, in nats.

    Rounding errors of an answer's tokens are as good as independent: measured on answers of 1 to 40 tokens, likely and
    unlikely ones, the error of their sum grows with the root of their number. A token's own has the standard deviation
    `LanguageModel.noise`, which is measured on the model. (Against float64, on SmolLM2 and on random models of four
    architectures, 1 to 32 layers and widths of 32 to 512, it was 0.4 to 1.4 times as large.) So a sum of n tokens has that of
    noise * sqrt(n), and `DEVIATIONS` of these are allowed.

    A loss of choice is `-log softmax` at the right answer r. Where sums move by d, it moves by sum(p_j (d_j - d_r)) over the
    other answers j, which have the probability 1 - p_r = 1 - exp(-loss) together: by no more than (1 - p_r) times the
    largest d_j - d_r, which is an error of the tokens of both. A loss near 0 is nearly exact.

    What a server answers depends on what else it is doing at the time: `served.TOLERANCE` for each token.

    Args:
        lm: The model that scored.
        tokens: See `scored_tokens`.
        loss: As it was scored anew, in nats.
        choice: Whether it is one of choice.
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
    """The distance of the loss that is furthest off, by what is allowed there.

    Args:
        lm: The model that scored anew.
        examples: Any, at least one.
        choices: The task's choices; None for text answers.
        measured: Their losses, in nats, shape `(examples,)`.
        losses: Scored anew, in nats, shape `(examples,)`.
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
