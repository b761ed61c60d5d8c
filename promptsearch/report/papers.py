"""The part "Beside the papers", the same in all forms of the report.

It says how much a run took here, and how much it takes in the strategy's paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.report.notation import whole
from promptsearch.report.summary import Row, TaskSummary

#: Column -> what it shows, in one line; the first names the row.
COLUMNS = {
    "here": "distinct prompts scored on all of score_on, or optimizer steps, mean over seeds",
    "in its paper": "the same in the strategy's paper, or in its authors' code",
}


def known(task: TaskSummary) -> list[Row]:
    """The rows of a task whose strategy says what its paper takes."""
    return [row for row in task.rows if row.best.paper is not None]


def columns(tasks: Sequence[TaskSummary]) -> dict[str, str]:
    """`COLUMNS`, where a task has this part."""
    return COLUMNS if any(map(known, tasks)) else {}


def cells(row: Row) -> list[str]:
    """The cells of a row: its label, then those of `COLUMNS`.

    Args:
        row: A row whose strategy says what its paper takes.
    """
    paper = row.best.paper
    assert paper is not None  # see `known`
    counts = [
        run.proposals if paper.unit == "prompts" else run.training.steps if run.training else 0
        for run in row.runs
    ]
    here = f"{whole(round(float(np.mean(counts))))} {paper.unit}"
    return [row.label, here, f"{whole(paper.count)} {paper.unit}: {paper.told}"]
