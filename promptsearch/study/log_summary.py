"""What the log of a search tells: losses, their curve, and why prompts failed."""

from __future__ import annotations

from typing import Any

import numpy as np

from promptsearch.records.ledger import total
from promptsearch.records.log import RunLog
from promptsearch.records.scores import rows_of


def mean_losses(line: dict[str, Any]) -> list[float]:
    """The mean loss in nats of each prompt of a call; +inf where it could not be scored.

    Args:
        line: The call's line of the log.
    """
    return [
        float("inf") if row is None or None in row else float(np.mean(row))
        for row in line["losses"]
    ]


def search_losses(log: RunLog) -> list[float]:
    """What a search saw of the prompts scored on `score_on`, in order; +inf for failures.

    It is the mean loss, or a race's estimate of it where the race stopped short of all examples.
    """
    lines = [
        line for line in log.lines if line["stage"] == "search" and line["examples"] == "score_on"
    ]
    return [
        row.value
        for line in lines
        for row in rows_of(line, max(len(row or ()) for row in line["losses"]))
    ]


def curve(log: RunLog) -> list[tuple[int, float]]:
    """Tokens spent and the best loss so far.

    There is a point after each evaluation on all of `score_on` that lowered it, and one at the end.
    """
    points: list[tuple[int, float]] = []
    best, spent = float("inf"), 0
    for line in log.lines:
        if line["stage"] != "search":
            continue
        ledger = line["ledger"]
        spent = total(ledger)
        if line["examples"] == "score_on" and (low := min(mean_losses(line))) < best:
            best = low
            points.append((spent, best))
    return [*points, (spent, best)] if points and points[-1][0] < spent else points


def first_failure(log: RunLog) -> str:
    """Why the first prompt that failed did so, or else what may help."""
    reason = next(
        (next(iter(line["failures"].values())) for line in log.lines if line["failures"]), None
    )
    return f"The first failure: {reason}" if reason else "Give it a larger budget."
