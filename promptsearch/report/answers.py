"""The part "What they answered": a few test rows with the answers of the best few rows."""

from __future__ import annotations

from typing import NamedTuple

from promptsearch.report.notation import visible
from promptsearch.report.summary import TaskSummary

#: How many rows of the table are shown, and the most characters of a text.
_BEST, _LONGEST = 3, 400


class Shown(NamedTuple):
    """A test row with what was answered.

    Args:
        given: The texts of its fields.
        wanted: The right answers.
        answers: Label -> answer, of the seed that is best on the select split.
    """

    given: str
    wanted: str
    answers: dict[str, str]


def shown(task: TaskSummary) -> list[Shown]:
    """The rows to show; empty where no text was generated.

    Args:
        task: A task of the report.
    """
    best = [row for row in task.rows if row.chosen and row.best.test.outputs is not None][:_BEST]
    if not best:
        return []
    return [
        Shown(
            " | ".join(visible(text, _LONGEST) for text in each.fields.values()),
            " | ".join(visible(text, _LONGEST) for text in each.references),
            {row.label: visible((row.best.test.outputs or ())[i], _LONGEST) for row in best},
        )
        for i, each in enumerate(task.info.shown)
    ]
