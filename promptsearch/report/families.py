"""Tasks that the values of one field make, such as the relations of a probe, and their mean.

Each task counts once, whatever the number of its examples. The tasks are what intervals and tests
are over: they say what would come out on other tasks of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.report.measured import Scale
from promptsearch.report.summary import Row, TaskSummary
from promptsearch.report.verdict import verdict
from promptsearch.statistics import Interval, Sample, interval

#: The note that explains † beside the rows of a family.
FEW_SEEDS = (
    "† fewer than two seeds finished on all tasks: the interval covers the choice of tasks only, "
    "not the luck of the seed"
)


@dataclass(frozen=True)
class FamilyRow:
    """A strategy on all tasks of a family.

    Args:
        label: Its name.
        metric: The mean over tasks and seeds of its test metric.
        reference: Whether it is a reference line, never ranked.
    """

    label: str
    metric: Interval
    reference: bool


@dataclass(frozen=True)
class Family:
    """The tasks of a family.

    Args:
        name: The family's name.
        tasks: The number of its tasks.
        scale: How the metric's scores are read.
        verdict: Who won on the mean over tasks, in words.
        rows: The strategies that finished on all of them, best first; those of which a run's metric
            failed are left out.
    """

    name: str
    tasks: int
    scale: Scale
    verdict: str
    rows: tuple[FamilyRow, ...]

    @property
    def few_seeds(self) -> bool:
        """Whether an interval does not cover the luck of the seed."""
        return not all(row.metric.covers_seeds for row in self.rows)


def families(tasks: Sequence[TaskSummary]) -> tuple[Family, ...]:
    """The families among the tasks of a report, in their order.

    Args:
        tasks: All tasks of the report.
    """
    members: dict[str, list[TaskSummary]] = {}
    for task in tasks:
        if task.info.family:
            members.setdefault(task.info.family, []).append(task)
    return tuple(_family(name, own) for name, own in members.items())


def _family(name: str, tasks: Sequence[TaskSummary]) -> Family:
    # Of a sweep each task has the length that its select split names; test scores have no say.
    known = [{row.family: row for row in task.rows if row.chosen} for task in tasks]
    common = [label for label in known[0] if all(label in rows for rows in known)]
    samples = {label: _sample([rows[label] for rows in known]) for label in common}
    labels = [label for label in common if not np.isnan(samples[label].scores).any()]
    scale = tasks[0].scale
    rows = [
        FamilyRow(label, interval(samples[label], scale.bounds), known[0][label].reference)
        for label in labels
    ]
    rows.sort(key=lambda row: (row.reference, -scale.sign * row.metric.mean))
    ranked = {row.label: scale.turned(samples[row.label]) for row in rows if not row.reference}
    told = verdict(ranked, scale, unit="task", where=f" on all {len(tasks)} tasks")
    finished = dict.fromkeys(label for rows in known for label in rows)
    if short := [label for label in finished if common and label not in common]:
        told += f" Left out: {', '.join(short)}, which did not finish on all of them."
    if failed := [label for label in common if label not in labels]:
        told += f" Left out: {', '.join(failed)}, since the metric failed on a task."
    return Family(name, len(tasks), scale, told, tuple(rows))


def _sample(rows: Sequence[Row]) -> Sample:
    """The mean scores of a strategy's runs, shape `(seeds, tasks)`; NaN where the metric failed.

    The mean of a task is that of all its runs. The seeds tell their luck: those that finished on
    all tasks, or without any a single one that stands for all.
    """
    seeds = [{run.seed: run.test.metric for run in row.runs} for row in rows]
    means = np.array([np.mean(np.array([*own.values()], dtype=np.float64)) for own in seeds])
    common = [seed for seed in seeds[0] if all(seed in own for own in seeds)]
    scores = np.array([[own[seed] for own in seeds] for seed in common], dtype=np.float64)
    luck = scores - scores.mean(axis=0) if common else np.zeros((1, len(rows)))
    return Sample(means + luck, rows[0].best.deterministic)
