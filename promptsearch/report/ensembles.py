"""The part "Ensembles of the seeds", the same in all forms of the report.

Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv:2104.08691,
section 6: prompts of several seeds answer together. Here the probabilities that they give to each
choice are averaged. `promptsearch apply STUDY/TASK/STRATEGY` does so, see
`promptsearch.export.ensemble`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.errors import TaskError, UnknownName
from promptsearch.records.measured import ExamplesRecord, MetricRecord
from promptsearch.records.metrics import known
from promptsearch.records.scores import Floats
from promptsearch.records.study import TaskRecord
from promptsearch.report.notation import number
from promptsearch.report.summary import Row, TaskSummary

#: Column -> what it shows, in one line; the first one names the strategy.
COLUMNS = {
    "members": "finished runs, whose probabilities of each choice are averaged",
    "metric, together": "test metric of the average; blank where it needs more than is recorded",
    "metric, one": "the mean of the members' own",
    "loss, together": "mean nats of the average on the test split",
    "loss, one": "the mean of the members' own",
}
#: Means of recorded decimals that differ by less are level: they are summed in another order.
_LEVEL = 1e-9
TOLD = "Ensembles of the seeds: the members' probabilities of each choice, averaged"


@dataclass(frozen=True)
class Ensemble:
    """What the runs of a row do together on the test split.

    Args:
        loss: Mean nats.
        metric: The task's metric; None where it cannot be known from the records.
    """

    loss: float
    metric: float | None


def ensemble_of(tests: Sequence[ExamplesRecord], task: TaskRecord) -> Ensemble | None:
    """What several winners do together, from the records of each.

    Args:
        tests: Their scores on the test split.
        task: The task.

    Returns:
        None where answers are text, which has no choices to average over.
    """
    if any(test.labels is None for test in tests):
        return None
    right = np.exp([[-loss for loss in test.losses] for test in tests]).mean(0)  # (examples,)
    loss = float(-np.log(right).mean())
    said = _answers(tests, task, right)
    return Ensemble(loss, None if said is None else _metric(tests[0], task, said))


def _answers(
    tests: Sequence[ExamplesRecord], task: TaskRecord, right: Floats
) -> tuple[int, ...] | None:
    """The most probable choice of each example; None where it cannot be known."""
    labels = tests[0].labels or ()
    tables = [test.probabilities for test in tests if test.probabilities is not None]
    if len(tables) == len(tests):
        means = [np.mean(row, axis=0) for row in zip(*tables, strict=True)]
        return tuple(map(_said, means, labels))
    if (task.options or len(task.choices or ())) != 2:
        return None
    # Of two choices, the other one has what the right one leaves; a tie is wrong, as everywhere.
    return tuple(
        label if share > 0.5 else 1 - label for label, share in zip(labels, right, strict=True)
    )


def _said(shares: Floats, label: int) -> int:
    """The place of the most probable choice; a tie is wrong, as everywhere.

    Args:
        shares: The probability of each choice.
        label: The right one's place.
    """
    others = [place for place in range(len(shares)) if place != label]
    best = max(others, key=lambda place: float(shares[place]))
    return label if shares[label] > shares[best] + _LEVEL else best


def _metric(one: ExamplesRecord, task: TaskRecord, said: tuple[int, ...]) -> float | None:
    """The task's metric of answers; None where it needs more than these, or is a stranger's."""
    about = one.metrics[0] if one.metrics else MetricRecord(task.metric, None, task.metric)
    try:
        found = known(replace(one, predictions=said), replace(about, statistics=None))
    except (TaskError, UnknownName):
        return None
    return None if found is None else found.score


def together(task: TaskSummary) -> list[tuple[Row, Ensemble]]:
    """The rows of a task that have several members, each with what these do together."""
    found = [
        (row, ensemble_of([run.test for run in row.runs], task.info))
        for row in task.rows
        if len(row.runs) > 1
    ]
    return [(row, ensemble) for row, ensemble in found if ensemble is not None]


def cells(row: Row, ensemble: Ensemble) -> list[str]:
    """The cells of a row: its label, then those of `COLUMNS`.

    Args:
        row: A row from `together`.
        ensemble: What its members do together.
    """
    return [
        row.label,
        str(len(row.runs)),
        "" if ensemble.metric is None else number(ensemble.metric),
        number(row.metric.mean),
        number(ensemble.loss),
        number(row.loss.mean),
    ]
