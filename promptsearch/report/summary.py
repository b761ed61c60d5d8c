"""What every form of the report shows: a row for each strategy of each task, the tests, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from promptsearch.report.notation import ERRORS
from promptsearch.report.results import Results, Run, Study, TaskInfo
from promptsearch.report.verdict import verdict
from promptsearch.statistics import Comparison, Interval, Sample, compare_all, interval, jackknife
from promptsearch.task import metric_function

#: Metrics that are means over examples of right and wrong.
_MEANS = ("accuracy", "exact_match")


@dataclass(frozen=True)
class Row:
    """One strategy on one task.

    Args:
        runs: Its finished runs, at least one, by seed.
        family: What it shares with the rows of other lengths in a sweep; else its label.
        place: Of the family in the study file; gives it its colour.
        chosen: Whether it stands for its family: of several lengths the one with the least mean loss on the select split.
        scores: Test metric of runs by examples.
        metric: Mean test metric.
        loss: Mean test loss in nats.
        regret: Mean search loss above that of the reference, in nats; None where the two do not compare.
        model: The LM's number of parameters; None where it is not known.
        wanted: Runs that the study asks for.
    """

    runs: tuple[Run, ...]
    family: str
    place: int
    chosen: bool
    scores: Sample
    metric: Interval
    loss: Interval
    regret: float | None
    model: int | None
    wanted: int

    @property
    def label(self) -> str:
        """The strategy's name in the study."""
        return self.runs[0].label

    @property
    def reference(self) -> bool:
        """Whether it is a reference line, never ranked."""
        return self.runs[0].reference

    @property
    def searches(self) -> bool:
        """Whether it looked for its prompt within the study's budget, so that it has a curve."""
        return self.runs[0].searches and not self.reference

    @cached_property
    def best(self) -> Run:
        """The run whose prompt has the least loss on the select split; the test split has no say."""
        return min(self.runs, key=lambda run: run.select.loss)

    @property
    def unexported(self) -> tuple[Run, ...]:
        """The runs whose winner has no export."""
        return tuple(run for run in self.runs if run.export)

    @property
    def share(self) -> float:
        """Parameters that have to be stored with the best run's prompt, as a share of the LM's."""
        return self.best.stored / self.model if self.model else 0.0

    @property
    def gap(self) -> float:
        """Mean test loss above search loss, in nats."""
        return float(np.mean([run.gap for run in self.runs]))

    @property
    def spent(self) -> float:
        """Mean tokens spent by a run, with those brought."""
        return float(np.mean([run.spent for run in self.runs]))

    @property
    def brought(self) -> float:
        """Mean tokens spent by the runs that these started from."""
        return float(np.mean([run.start.spent if run.start else 0 for run in self.runs]))

    @property
    def seconds(self) -> float:
        """Mean seconds of a run."""
        return float(np.mean([run.seconds for run in self.runs]))


@dataclass(frozen=True)
class TaskSummary:
    """One task of a study.

    Args:
        verdict: Who won, in words.
        rows: Best mean test metric first, references last.
        comparisons: All pairs of ranked strategies, each at its chosen length.
        floor: What always giving the most frequent answer scores; None where the metric is another.
    """

    name: str
    info: TaskInfo
    verdict: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    floor: float | None

    @property
    def sweeps(self) -> tuple[tuple[Row, ...], ...]:
        """The families that were run at several lengths, in the order of the study, each by length."""
        families: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: (row.place, row.best.length)):
            families.setdefault(row.family, []).append(row)
        return tuple(tuple(rows) for rows in families.values() if len(rows) > 1)

    @property
    def clear(self) -> bool:
        """Whether the leader beats every other strategy."""
        leader = next((row.label for row in self.rows if row.chosen), None)
        against = [test for test in self.comparisons if test.first == leader]
        return bool(against) and all(test.significant for test in against)


def summarise(results: Results) -> tuple[TaskSummary, ...]:
    """Means, intervals and tests of all tasks of a study.

    Args:
        results: From `load_results`.

    Returns:
        One summary a task, in the order of the study.

    Raises:
        TaskError: A metric `module:function` cannot be loaded here.
    """
    return tuple(_task(name, info, results) for name, info in results.study.tasks.items())


def _task(name: str, info: TaskInfo, results: Results) -> TaskSummary:
    runs = [run for run in results.runs if run.task == name]
    labels = list(dict.fromkeys(run.label for run in runs))
    best, chosen = _reference(runs), _chosen(runs, results.study)
    rows = [_row([run for run in runs if run.label == label], info, results.study, best, label in chosen) for label in labels]
    rows.sort(key=lambda row: (row.reference, -row.metric.mean, row.loss.mean))
    samples = {row.label: row.scores for row in rows if row.chosen and not row.reference}
    floor = info.majority if info.metric in _MEANS else None
    sentence = verdict(
        samples,
        info.metric,
        floor=floor,
        failed=sum(run.task == name for run in results.failed),
        unfinished=sum(task == name for task, _, _ in results.unfinished),
    )
    if results.study.model.served and results.study.model.served.get("scores") == "errors":
        sentence += f" {ERRORS}"
    return TaskSummary(name, info, sentence, tuple(rows), tuple(compare_all(samples)), floor)


def _chosen(runs: Sequence[Run], study: Study) -> set[str]:
    """The labels that stand for their families."""
    losses: dict[str, list[float]] = {}
    for run in runs:
        losses.setdefault(run.label, []).append(run.select.loss)
    ranked = sorted(losses, key=lambda label: float(np.mean(losses[label])))
    return set({study.family(label): label for label in reversed(ranked)}.values())  # the last one to be named is the best


def _row(runs: Sequence[Run], info: TaskInfo, study: Study, reference: Run | None, chosen: bool) -> Row:
    deterministic, label = runs[0].deterministic, runs[0].label
    families = list(dict.fromkeys(study.family(each) for each in [*study.strategies, label]))
    scores = Sample(_scores(runs, info.metric), deterministic)
    losses = Sample(np.array([run.test.losses for run in runs]), deterministic)
    return Row(
        runs=tuple(runs),
        family=study.family(label),
        place=families.index(study.family(label)),
        chosen=chosen,
        scores=scores,
        metric=interval(scores, (-np.inf, np.inf) if ":" in info.metric else (0, 1)),
        loss=interval(losses, (0, np.inf)),
        regret=_regret(runs, reference),
        model=study.model.parameters,
        wanted=1 if deterministic else len(study.seeds),
    )


def _scores(runs: Sequence[Run], metric: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The test metric, shape `(runs, examples)`, so that the mean of a row is the run's metric."""
    first = runs[0].test
    if metric in _MEANS or first.labels is None:
        return np.array([run.test.correct for run in runs], dtype=np.float64)
    return jackknife(metric_function(metric), first.labels, [run.test.predictions or () for run in runs])


def _reference(runs: Sequence[Run]) -> Run | None:
    lines = [run for run in runs if run.reference and run.winner.kind == "hard"]
    return min(lines, key=lambda run: run.search.loss_fp32, default=None)


def _regret(runs: Sequence[Run], reference: Run | None) -> float | None:
    """Only hard prompts of the reference's length come from the space that it searched."""
    if reference is None or any(run.reference or run.winner.kind != "hard" or run.length != reference.length for run in runs):
        return None
    return float(np.mean([run.search.loss_fp32 - reference.search.loss_fp32 for run in runs]))
