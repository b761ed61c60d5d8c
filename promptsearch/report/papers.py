"""The part "Beside the papers", the same in all forms of the report.

It says how much a run took here, and how much it takes in the strategy's paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.records.run import Paper
from promptsearch.report.notation import percent, whole
from promptsearch.report.summary import Row, TaskSummary

#: Column -> what it shows, in one line; the first names the row.
COLUMNS = {
    "here": (
        "prompts that were scored, once for each set of examples, or optimizer steps, mean over "
        "seeds"
    ),
    "share": "what a run took here, as a share of what it takes in the strategy's paper",
    "in its paper": "what it takes there, or in its authors' code, where the paper does not say it",
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
    here = round(float(np.mean(counts)))
    share = here / paper.count
    return [
        row.label,
        _counted(here, paper),
        percent(share) if share < 10 else f"{whole(share)} times",
        f"{_counted(paper.count, paper)}: {paper.told}",
    ]


def _counted(count: int, paper: Paper) -> str:
    """A count with its unit, as in 1 step, 30,000 steps."""
    return f"{whole(count)} {paper.unit if count != 1 else paper.unit.removesuffix('s')}"
