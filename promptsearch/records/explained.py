"""What makes winners win: the schema of `explained.json`, which lies beside a study's records.

It is made after all is chosen, by `promptsearch explain`, and no run is charged for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The name of the record.
EXPLAINED = "explained.json"
#: How a winner is changed: it loses a piece, all are shuffled, or a word gives way to a near one.
Way = Literal["without", "shuffled", "near"]


@dataclass(frozen=True)
class ChangeRecord:
    """A winner that was changed in one place, or in its order.

    Args:
        way: How it was changed.
        place: The place of the piece among the winner's; None where all of them were shuffled.
        text: What stands in the slots now, joined by ` | `.
        loss: Mean select loss above the winner's own, in nats; None where it cannot be scored.
        error: The standard error of that, over the select examples; None likewise.
    """

    way: Way
    place: int | None
    text: str
    loss: float | None
    error: float | None


@dataclass(frozen=True)
class ExplanationRecord:
    """What a winner is worth without parts of it.

    Args:
        task: The task's name.
        label: The label of the run that it won.
        seed: The seed of that run.
        key: Its name in logs.
        pieces: What it consists of, in order: tokens of a hard prompt, words or lines of a text.
        loss: Its own mean select loss in nats, in float32.
        tokens: What scoring all of this took in LM tokens, which no run is charged.
        changes: The changed prompts.
    """

    task: str
    label: str
    seed: int
    key: str
    pieces: tuple[str, ...]
    loss: float
    tokens: int
    changes: tuple[ChangeRecord, ...]

    @property
    def name(self) -> tuple[str, str, int, str]:
        """What tells it from others."""
        return (self.task, self.label, self.seed, self.key)


@dataclass(frozen=True)
class ExplainedRecord:
    """All winners that were explained: the schema of `explained.json`."""

    winners: tuple[ExplanationRecord, ...] = ()
