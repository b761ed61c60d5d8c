"""What the runs of a task measured: its metric by examples, and the metrics beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.errors import TaskError, UnknownName
from promptsearch.records.measured import MetricRecord
from promptsearch.records.metrics import limits, shares_of
from promptsearch.records.run import RunRecord
from promptsearch.statistics import Sample

#: A run's label and seed -> what each of its test examples adds to the metric.
Parts = Mapping[tuple[str, int], Sequence[float]]


@dataclass(frozen=True)
class Scale:
    """How the scores of a metric are read.

    Args:
        name: The metric's name.
        higher_is_better: Whether a higher score is a better one.
        bounds: The least and the greatest score that there can be, infinite where there is no
            limit.
    """

    name: str
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    def sign(self) -> int:
        """What turns scores so that a higher one is better."""
        return 1 if self.higher_is_better else -1

    @property
    def widest(self) -> float:
        """The largest difference that there can be between two scores."""
        return self.bounds[1] - self.bounds[0]

    @property
    def arrow(self) -> str:
        """The sign beside the name of a metric whose lower scores are the better ones."""
        return "" if self.higher_is_better else " ↓"

    def turned(self, sample: Sample) -> Sample:
        """The scores so that a higher one is better."""
        return replace(sample, scores=self.sign * sample.scores)


def scale_of(runs: Sequence[RunRecord], metric: str) -> Scale:
    """How the scores of a task's metric are read, as its runs recorded it."""
    for run in runs:
        higher = all(each.higher_is_better for each in run.test.metrics[:1])
        return Scale(metric, higher, limits(run.test, metric))
    return Scale(metric)


def parts_of(runs: Sequence[RunRecord], metric: str, trust_code: bool) -> tuple[Parts | None, str]:
    """What test examples add to the metric of each run; or None, and why it is not known.

    Args:
        runs: The runs of a task.
        metric: The task's metric.
        trust_code: Whether a metric of the study's author may be imported.
    """
    found = {}
    for run in runs:
        name = f"{run.label}, seed {run.seed}"
        try:
            known = shares_of(run.test, metric, trust_code=trust_code)
        except (TaskError, UnknownName) as error:
            return None, _left_out(metric, f"{name}: {error}")
        if known is None:
            failed = run.test.metric_failed and f"{name}: {run.test.metric_failed}"
            return None, _left_out(metric, failed or "its code is the study's; add --trust-code")
        found[run.label, run.seed] = known
    return found, ""


def further(runs: Sequence[RunRecord]) -> dict[str, float]:
    """The mean test score of each metric beside the task's own over runs; NaN where one failed."""
    names = list(dict.fromkeys(each.name for run in runs for each in run.test.metrics[1:]))
    scores = [{each.name: each.score for each in run.test.metrics} for run in runs]
    return {
        name: float(np.mean([np.nan if row.get(name) is None else row[name] for row in scores]))
        for name in names
    }


def beside(runs: Sequence[RunRecord]) -> tuple[MetricRecord, ...]:
    """The metrics beside a task's own, in their order, as runs recorded them first."""
    found: dict[str, MetricRecord] = {}
    for run in runs:
        for each in run.test.metrics[1:]:
            found.setdefault(each.name, each)
    return tuple(found.values())


def _left_out(metric: str, why: str) -> str:
    return f"Intervals of metric {metric}, and tests of who won by it, are left out: {why}."
