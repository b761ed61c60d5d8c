"""The table of a sweep, metric against prompt length, the same in all forms of the report."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from promptsearch.errors import UnknownName
from promptsearch.report.notation import number
from promptsearch.report.summary import Row, TaskSummary


def chosen(task: TaskSummary) -> str:
    """The sentence that says which lengths are compared."""
    by = task.rows[0].select_by
    best = "the least loss" if by is None else f"the best {by.name}"
    return (
        f"Strategies were run at several lengths; compared are those with {best} on the select "
        "split, which one would take without a look at the test split"
    )


def lengths(task: TaskSummary) -> list[int]:
    """All lengths that a task's sweeps were run at, ascending."""
    return sorted({row.length for rows in task.sweeps for row in rows})


def cells(rows: Sequence[Row], columns: Sequence[int]) -> list[str]:
    """The cells of a strategy: its name, then its mean test metric at each length.

    A star marks the length that is compared; a length that has not finished is blank.

    Args:
        rows: The strategy's rows, one for each length.
        columns: The lengths of the table.
    """
    at = {row.length: number(row.metric.mean) + ("*" if row.chosen else "") for row in rows}
    return [rows[0].family, *(at.get(length, "") for length in columns)]


def mean_of(task: TaskSummary, row: Row, metric: str) -> float:
    """The mean test score of a row by one of the task's metrics; NaN where it failed.

    Args:
        task: A task of the report.
        row: One of its rows.
        metric: The metric's name.

    Raises:
        UnknownName: The task has no such metric.
    """
    if metric == task.info.metric:
        return row.metric.mean
    names = [each.name for each in task.beside]
    if metric not in names:
        raise UnknownName(f"metric of task '{task.name}'", metric, [task.info.metric, *names])
    return row.further.get(metric, nan)
