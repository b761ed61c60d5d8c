"""The table of a sweep, metric against prompt length, the same in all forms of the report."""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.report.notation import number
from promptsearch.report.summary import Row, TaskSummary

#: The sentence that says which lengths are compared.
CHOSEN = (
    "Strategies were run at several lengths; compared are those with the least loss on the select "
    "split, which one would take without a look at the test split"
)


def lengths(task: TaskSummary) -> list[int]:
    """All lengths of a task's sweeps, ascending, in prompt tokens."""
    return sorted({row.best.length for rows in task.sweeps for row in rows})


def cells(rows: Sequence[Row], columns: Sequence[int]) -> list[str]:
    """The cells of a strategy: its name, then its mean test metric at each length.

    A star marks the length that is compared; a length that has not finished is blank.

    Args:
        rows: The strategy's rows, one for each length.
        columns: The lengths of the table, in prompt tokens.
    """
    at = {row.best.length: number(row.metric.mean) + ("*" if row.chosen else "") for row in rows}
    return [rows[0].family, *(at.get(length, "") for length in columns)]
