"""Did it train? What a trained strategy sees of its own training, and what looks wrong about it.

Prompt methods fail silently: where the rate is too low or too high, or a gradient does not arrive,
the run still ends with a prompt and a score. So each run of a trained strategy says how its
training went.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from promptsearch.records.scores import Floats

#: How many steps, from the first on, have their gradients looked at.
FIRST_STEPS = 8
#: A prompt that moved by less than this share of its own norm has hardly moved.
_HARDLY = 0.02
#: A run was not done if its last quarter of scorings brought more than this share of all that the
#: loss fell by.
_STILL = 0.1
#: The loss jumped if it once stood above its start by more than this share of the start, and by
#: more than it fell in the end.
_JUMP = 0.1
#: The share of clipped steps from which on nearly all steps were clipped.
_NEARLY_ALL = 0.95


@dataclass
class Training:
    """What a trained strategy notes while it trains: JSON values, which are part of its state.

    Args:
        length: The number of the prompt's parts: rows, one a token, or several tensors.
        rate: The peak learning rate; None before a range test has found one.
        unit: What a part is called.
        tried: What the range test saw: each rate with the loss in nats after its step.
        steps: The number of optimizer steps.
        gradients: Norms of the gradient with respect to the prompt's numbers at the first steps, in
            nats a unit, before clipping.
        reached: Parts of the prompt that had a gradient in one of these first steps.
        clipped: The number of steps whose gradient was clipped.
        moved: The distance between the first prompt and the one scored last, as a share of the
            first one's norm. None where the prompt is several tensors: weights start at the model's
            own and gates near zero, and a share of either norm says nothing.
        diverged: Why training ended early; empty where it did not.
    """

    length: int
    rate: float | None = None
    unit: Literal["tokens", "tensors"] = "tokens"
    tried: list[tuple[float, float]] = field(default_factory=list)
    steps: int = 0
    gradients: list[float] = field(default_factory=list)
    reached: list[int] = field(default_factory=list)
    clipped: int = 0
    moved: float | None = None
    diverged: str = ""

    def enter(self, norms: Tensor, clipped: bool) -> None:
        """Note a step.

        Args:
            norms: The norm of each part's gradient, shape `(length,)`.
            clipped: Whether the gradient was clipped.
        """
        if len(self.gradients) < FIRST_STEPS:
            self.gradients.append(float(norms.norm()))
            self.reached = sorted({*self.reached, *norms.nonzero().flatten().tolist()})
        self.steps += 1
        self.clipped += clipped


def diagnose(
    training: Training, scores: Sequence[float], winner: float, empty: float | None
) -> dict[str, Any]:
    """What the record of a run says about its training.

    Args:
        training: What the strategy noted.
        scores: Losses in nats of the prompts that were scored, in order; +inf where a prompt could
            not be scored.
        winner: The winner's loss in nats on the select split.
        empty: The empty prompt's loss on the same examples; None where it cannot be scored.

    Returns:
        JSON values. Under `findings` stands what looks wrong, in words; it is empty where nothing
        does.
    """
    return {
        **asdict(training),
        "reached": len(training.reached) / training.length,
        "clipped": training.clipped / max(1, training.steps),
        "before": scores[0] if np.isfinite(scores[0]) else None,
        "after": min(scores),
        "winner": winner,
        "empty": empty,
        "findings": [*_of_training(training, np.asarray(scores)), *_of_result(winner, empty)],
    }


def _of_training(training: Training, scores: Floats) -> list[str]:
    found = [f"it diverged: {training.diverged}"] if training.diverged else []
    if not training.steps:
        return found or ["it was not trained: the run ended before the first step"]
    if missing := training.length - len(training.reached):
        found.append(
            f"no gradient reached {missing} of the prompt's {training.length} {training.unit}"
        )
    first, best = scores[0], scores.min()
    if best >= first:
        found.append("training did not lower the loss")
        # AdamW undoes a constant scale of its gradients, so that clipping alone is no fault: on the
        # task `capitals` training succeeds in spite of it.
        if training.clipped >= _NEARLY_ALL * training.steps:
            found.append(
                "the rate looks too high, or 'clip' too low: "
                "the gradient was clipped at nearly all steps"
            )
    later = scores[1:]
    high = later[np.isfinite(later)].max(initial=-np.inf)
    if high > first * (1 + _JUMP) and high - first > first - best:
        found.append(
            f"the rate looks too high: the loss jumped from {first:.3f} at the start to {high:.3f}"
        )
    if training.moved is not None and training.moved < _HARDLY:
        found.append(
            f"the rate looks too low: the prompt moved by {100 * training.moved:.1g} % of its norm "
            "only"
        )
    elif _still_falling(scores):
        found.append("the rate or the budget looks too low: the loss was still falling at the end")
    return found


def _still_falling(scores: Floats) -> bool:
    """Whether the last quarter of the scorings brought a good part of all that the loss fell by."""
    quarter = len(scores) // 4
    if not quarter:
        return False
    gained = scores[:-quarter].min() - scores.min()
    return bool(gained > _STILL * (scores[0] - scores.min()) > 0)


def _of_result(winner: float, empty: float | None) -> list[str]:
    if empty is None or winner <= empty:
        return []
    return [
        f"the result is worse than the empty prompt: {winner:.3f} against {empty:.3f} nats "
        "on the select split"
    ]
