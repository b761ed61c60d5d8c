"""The part "Did it train?", the same in all forms of the report.

It has a row for each trained run, and says what looks wrong.
"""

from __future__ import annotations

from promptsearch.records.run import RunRecord, TrainingRecord
from promptsearch.report.notation import number, percent, whole
from promptsearch.report.summary import TaskSummary

#: Column -> what it shows, in one line; the first two name the run.
COLUMNS = {
    "before": "search loss of the prompt that training started from, in nats",
    "after": "least search loss, in nats",
    "empty prompt": (
        "loss of the winner minus that of the empty prompt, both on the select split in fp32, "
        "in nats; not charged"
    ),
    "steps": "optimizer steps",
    "rate": "peak learning rate",
    "gradient": (
        "norm of the gradient of the prompt at the first step and at the last of the first few"
    ),
    "reached": (
        "share of the prompt's tokens, or of the changed tensors, that a gradient reached in these "
        "steps"
    ),
    "clipped": "share of the steps whose gradient was clipped",
    "moved": (
        "distance of the last prompt from the first one, as a share of the first one's norm; "
        "blank for several tensors"
    ),
}


def trained(task: TaskSummary) -> list[tuple[RunRecord, TrainingRecord]]:
    """All runs of a task that trained something, in the order of its rows."""
    return [
        (run, run.training) for row in task.rows for run in row.runs if run.training is not None
    ]


def cells(run: RunRecord, training: TrainingRecord) -> list[str]:
    """The cells of a run: its label and seed, then those of `COLUMNS`.

    Args:
        run: A run that trained something.
        training: The record of its training.
    """
    gradients = training.gradients
    return [
        run.label,
        str(run.seed),
        "∞" if training.before is None else number(training.before),
        number(training.after),
        "" if training.empty is None else f"{training.winner - training.empty:+.3f}",
        whole(training.steps),
        "" if training.rate is None else f"{training.rate:.2g}",
        f"{gradients[0]:.2g} to {gradients[-1]:.2g}" if gradients else "",
        percent(training.reached),
        percent(training.clipped),
        "" if training.moved is None else percent(training.moved),
    ]


def findings(task: TaskSummary) -> list[tuple[str, int, str]]:
    """The findings about training, each with the label and seed of its run, and what looks wrong.

    Args:
        task: A task of the report.
    """
    return [
        (run.label, run.seed, finding)
        for run, training in trained(task)
        for finding in training.findings
    ]
