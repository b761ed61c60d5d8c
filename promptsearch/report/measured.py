"""What the runs of a task measured: its metric by examples, and the metrics beside it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.errors import TaskError, UnknownName
from promptsearch.records.measured import ExamplesRecord, MetricRecord
from promptsearch.records.metrics import known, limits, moves_all, shares_of
from promptsearch.records.run import RunRecord
from promptsearch.statistics import Floats, Sample


@dataclass(frozen=True)
class Parts:
    """What is known of the test examples of runs, by a run's label and seed.

    Args:
        shares: What each example adds to the metric.
        answers: Numbers that tell the answers to an example apart, see `Sample`; None where shares
            do.
    """

    shares: Mapping[tuple[str, int], Sequence[float]]
    answers: Mapping[tuple[str, int], Floats] | None

    def sample(self, runs: Sequence[RunRecord], groups: tuple[Hashable, ...] | None) -> Sample:
        """The scores of some runs of one strategy.

        Args:
            runs: The runs.
            groups: The groups of examples, see `Sample`.
        """
        keys = [(run.label, run.seed) for run in runs]
        shares = np.array([self.shares[key] for key in keys], dtype=np.float64)
        answers = None if self.answers is None else np.array([self.answers[key] for key in keys])
        return Sample(shares, runs[0].deterministic, groups, answers)


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
            shares = shares_of(run.test, metric, trust_code=trust_code)
        except (TaskError, UnknownName) as error:
            return None, _left_out(metric, f"{name}: {error}")
        if shares is None:
            failed = run.test.metric_failed and f"{name}: {run.test.metric_failed}"
            return None, _left_out(metric, failed or "its code is the study's; add --trust-code")
        found[run.label, run.seed] = shares
    return Parts(found, _answers(runs, metric, trust_code)), ""


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


def _answers(
    runs: Sequence[RunRecord], metric: str, trust_code: bool
) -> dict[tuple[str, int], Floats] | None:
    """What tells the answers of runs apart, where one of them moves the scores of all examples.

    It is what each answer adds to the metric's statistics: two that are wrong in other ways are the
    same where the metric takes them for the same. Where that is not known it is the answer itself;
    None where an example's score is that of its own answer, or nothing more is known.
    """
    tests = [run.test for run in runs]
    if not all(moves_all(test, metric) for test in tests):
        return None
    rows = [_statistics(test, metric, trust_code) for test in tests]
    added = [each for each in rows if each is not None]
    given = [test.predictions for test in tests if test.predictions is not None]
    if len(added) == len(tests) and len({each.shape for each in added}) == 1:
        found = added
    elif given and len(given) == len(tests):
        answers, places = np.unique(np.array(given), return_inverse=True)
        found = list(np.eye(len(answers))[places.reshape(len(tests), -1)])
    else:
        return None
    return {(run.label, run.seed): each for run, each in zip(runs, found, strict=True)}


def _statistics(test: ExamplesRecord, metric: str, trust_code: bool) -> Floats | None:
    """What each answer adds to the metric's statistics; None where that is not known."""
    about = test.metrics[0] if test.metrics else MetricRecord(metric, test.metric, metric)
    if about.statistics is not None:
        return np.array(about.statistics, dtype=np.float64)
    try:
        found = known(test, about, trust_code=trust_code)
    except (TaskError, UnknownName):  # the shares were recorded; a library is missing here
        return None
    return None if found is None else found.statistics


def _left_out(metric: str, why: str) -> str:
    return f"Intervals of metric {metric}, and tests of who won by it, are left out: {why}."
