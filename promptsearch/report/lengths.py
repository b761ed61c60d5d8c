"""Metric against prompt length: the table of a sweep, the same in all forms of the report."""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.report.notation import number
from promptsearch.report.summary import Row, TaskSummary

#: What is compared.
CHOSEN = (
    "Strategies were run at several lengths; compared are those with the least loss on the select split, which one would take "
    "without a look at the test split"
)


def lengths(task: TaskSummary) -> list[int]:
    """All lengths of a task's sweeps, ascending, in prompt tokens."""
    return sorted({row.best.length for rows in task.sweeps for row in rows})


def cells(rows: Sequence[Row], columns: Sequence[int]) -> list[str]:
    """Name and mean test metric at each length; a star marks the length that is compared, blank is what has not finished.

    Args:
        rows: Of one strategy.
        columns: Lengths.
    """
    at = {row.best.length: number(row.metric.mean) + ("*" if row.chosen else "") for row in rows}
    return [rows[0].family, *(at.get(length, "") for length in columns)]
