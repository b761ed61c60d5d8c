"""The part "Beside the metric", the same in all forms of the report.

It has the other metrics of a task, and how many answers did not end.
"""

from __future__ import annotations

from promptsearch.report.measured import Scale
from promptsearch.report.notation import number, percent, whole
from promptsearch.report.summary import Row, TaskSummary

#: What the column of answers without an end shows.
UNENDED = "no end"
#: The line above the table, and above one of answers without an end alone.
_SCORES = "Mean test scores by other metrics over seeds (↓: lower is better)"
_ENDS = "Test answers of all seeds that met the limit of tokens before their end"
#: What the last column means.
WITHOUT_END = "answers that met the limit of tokens before their end, of all test answers"


def told(task: TaskSummary) -> str:
    """The line above the table."""
    return _SCORES if task.beside else _ENDS


def columns(task: TaskSummary) -> list[str]:
    """The columns of the table behind the first; empty where there is nothing to show."""
    names = [f"{each.name}{Scale('', each.higher_is_better).arrow}" for each in task.beside]
    return [*names, *([UNENDED] if any(row.unended is not None for row in task.rows) else [])]


def cells(task: TaskSummary, row: Row) -> list[str]:
    """The cells of a row: its label, then those of `columns`.

    Args:
        task: A task of the report.
        row: One of its rows.
    """
    scores = [number(row.further.get(each.name)) for each in task.beside]
    if any(each.unended is not None for each in task.rows):
        answers = sum(len(run.test.losses) for run in row.runs)
        unended = row.unended
        told = "–" if unended is None else f"{whole(unended)} ({percent(unended / answers)})"
        scores.append(told)
    return [row.label, *scores]


def judges(task: TaskSummary) -> list[tuple[str, int, str]]:
    """What is known of judges: label and seed of a run, and how its judge agreed."""
    found = []
    for run in (run for row in task.rows for run in row.runs):
        for each in run.test.metrics[1:]:
            if (told := each.judge) is not None:
                kappa = "" if told.kappa is None else f", kappa {number(told.kappa, 2)}"
                text = (
                    f"{each.name} agrees with what is known of {percent(told.agrees)} of the "
                    f"answers{kappa}; it read and wrote {whole(told.tokens)} tokens, which are not "
                    "of the budget"
                )
                found.append((run.label, run.seed, text))
    return found


def failures(task: TaskSummary) -> list[tuple[str, int, str]]:
    """The metrics beside a task's own that failed: label and seed of a run, and the reason."""
    return [
        (run.label, run.seed, each.failed)
        for row in task.rows
        for run in row.runs
        for each in run.test.metrics[1:]
        if each.failed
    ]
