"""What a study tells those who watch it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a study stands.

    Args:
        run: `task/label/seed0`.
        number: The run's number, from 1.
        total: Runs in the study.
        stage: `loading`, `search`, `select`, `test`, `done` or `failed`; `note` says something that
            stays on the screen.
        best: Lowest mean loss so far in nats.
        spent: LM tokens.
        budget: LM tokens; None before the run has one.
        seconds: The time of this run so far, in seconds.
        message: For people: what is loading, or why the run failed.
    """

    run: str
    number: int
    total: int
    stage: str
    best: float | None = None
    spent: int = 0
    budget: int | None = None
    seconds: float = 0.0
    message: str = ""
