"""The part "From vectors to words", the same in all forms of the report.

It shows what a soft prompt loses where words take its place.
"""

from __future__ import annotations

from promptsearch.records.run import BeginningRecord, RunRecord
from promptsearch.report.notation import in_slots, number, visible
from promptsearch.report.summary import TaskSummary

#: Column -> what it shows, in one line; the first two name the run.
COLUMNS = {
    "from": "the run whose soft prompt it started from",
    "select loss, in words": "mean nats on the select split: of the vectors, then of the words",
    "select metric, in words": "the same for the metric",
    "test loss, in words": "mean nats on the test split: of the vectors, then of the words",
    "test metric, in words": "the same for the metric",
    "words": "the words",
}


def projected(task: TaskSummary) -> list[tuple[RunRecord, BeginningRecord]]:
    """All runs that started from vectors of the same task and ended with words, row by row."""
    runs = [run for row in task.rows for run in row.runs]
    return [
        (run, run.start)
        for run in runs
        if run.start
        and run.start.task is None
        and run.start.kind == "soft"
        and run.winner.kind == "hard"
    ]


def cells(run: RunRecord, start: BeginningRecord) -> list[str]:
    """The cells of a run: its label and seed, then those of `COLUMNS`.

    Args:
        run: A run from `projected`.
        start: The record of what this run started from.
    """
    pairs = [
        (start.select.loss, run.select.loss),
        (start.select.metric, run.select.metric),
        (start.test.loss, run.test.loss),
        (start.test.metric, run.test.metric),
    ]
    scores = [f"{number(vectors)} → {number(words)}" for vectors, words in pairs]
    return [
        run.label,
        str(run.seed),
        visible(start.run),
        *scores,
        visible(in_slots(run.winner.text), 80),
    ]
