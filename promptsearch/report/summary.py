"""The summary that every form of the report shows of each task.

It has a row for each strategy of the task, the tests, and the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.records.results import Results
from promptsearch.records.run import RunRecord
from promptsearch.records.study import StudyRecord, TaskRecord
from promptsearch.report.notation import ERRORS
from promptsearch.report.verdict import verdict
from promptsearch.search.alike import was_blind
from promptsearch.statistics import Comparison, Interval, Sample, compare_all, interval
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import choice_rows, measured

#: The metrics that are the share of right answers, which runs record as such.
_RIGHT_OR_WRONG = ("accuracy", "exact_match")
#: A run's label and seed -> what each of its test examples adds to the metric.
_Parts = Mapping[tuple[str, int], Sequence[float]]


@dataclass(frozen=True)
class Row:
    """One strategy on one task.

    Args:
        runs: Its finished runs, at least one, by seed.
        family: The name that it shares with the rows of other lengths in a sweep; without a sweep,
            its label.
        place: The family's place in the study file, which gives it its colour.
        chosen: Whether it stands for its family: its length is the one with the least mean loss on
            the select split.
        scores: The test metric of runs by examples, shape `(runs, examples)`; where the study's own
            metric cannot be computed, the recorded one of each run, shape `(runs, 1)`.
        metric: The mean test metric.
        loss: The mean test loss in nats.
        regret: The mean search loss above that of the reference, in nats; None where the two cannot
            be compared.
        model: The LM's number of parameters; None where it is not known.
        wanted: The number of runs that the study asks for.
    """

    runs: tuple[RunRecord, ...]
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
    def best(self) -> RunRecord:
        """The run with the least loss on the select split; the test split has no say."""
        return min(self.runs, key=lambda run: run.select.loss)

    @property
    def unexported(self) -> tuple[RunRecord, ...]:
        """The runs whose winner has no export."""
        return tuple(run for run in self.runs if run.export)

    @property
    def share(self) -> float:
        """The parameters to be stored with the best run's prompt, as a share of the LM's."""
        return self.best.stored / self.model if self.model else 0.0

    @property
    def gap(self) -> float:
        """The mean test loss above the search loss, in nats."""
        return float(np.mean([run.gap for run in self.runs]))

    @property
    def spent(self) -> float:
        """The mean number of tokens spent by a run, with those that it brought from another run."""
        return float(np.mean([run.spent for run in self.runs]))

    @property
    def brought(self) -> float:
        """The mean number of tokens spent by the runs that these started from."""
        return float(np.mean([run.start.spent if run.start else 0 for run in self.runs]))

    @property
    def seconds(self) -> float:
        """The mean seconds of a run."""
        return float(np.mean([run.seconds for run in self.runs]))


@dataclass(frozen=True)
class TaskSummary:
    """One task of a study.

    Args:
        name: The task's name.
        info: What the study recorded about the task.
        verdict: Who won, in words.
        rows: The rows, best mean test metric first, references last.
        comparisons: The tests of all pairs of ranked strategies, each at its chosen length.
        floor: The score of always giving the most frequent answer; None where the metric is no mean
            over examples.
        left_out: Which part of the metric is not shown, and why; empty where all of it is.
        signatures: The short signatures of the ranked rows: one, unless several versions of
            promptsearch made them.
    """

    name: str
    info: TaskRecord
    verdict: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    floor: float | None
    left_out: str = ""
    signatures: tuple[str, ...] = ()

    @property
    def sweeps(self) -> tuple[tuple[Row, ...], ...]:
        """The families run at several lengths, in the order of the study, each by length."""
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
    """The means, intervals and tests of all tasks of a study.

    Args:
        results: The results, from `load_results`.

    Returns:
        One summary for each task, in the order of the study. A metric that is a function of the
        study's author is shown as runs recorded it; the function is called only where they did not
        record it and `results.trust_code` allows it.
    """
    return tuple(_task(name, info, results) for name, info in results.study.tasks.items())


def _task(name: str, info: TaskRecord, results: Results) -> TaskSummary:
    runs = [run for run in results.runs if run.task == name]
    labels = list(dict.fromkeys(run.label for run in runs))
    best, chosen = _reference(runs), _chosen(runs, results.study)
    parts, left_out = _parts(runs, info.metric, results.trust_code)
    rows = [
        _row(
            [run for run in runs if run.label == label],
            parts,
            info,
            results.study,
            best,
            label in chosen,
        )
        for label in labels
    ]
    rows.sort(
        key=lambda row: (row.reference, -np.nan_to_num(row.metric.mean, nan=-np.inf), row.loss.mean)
    )
    samples = {row.label: row.scores for row in rows if row.chosen and not row.reference}
    floor = info.majority if info.metric in _RIGHT_OR_WRONG else None
    sentence = left_out or verdict(
        samples,
        info.metric,
        floor=floor,
        failed=sum(run.task == name for run in results.failed),
        unfinished=sum(task == name for task, _, _ in results.unfinished),
    )
    if results.study.model.served and results.study.model.served.get("scores") == "errors":
        sentence += f" {ERRORS}"
    if blind := [run for run in runs if was_blind(run.stopped)]:
        sentence += (
            f" {len(blind)} of {len(runs)} searches were blind, "
            f"such as '{blind[0].label}': {blind[0].stopped}."
        )
    comparisons = () if left_out else tuple(compare_all(samples))
    signatures = tuple(dict.fromkeys(run.signature for run in runs if not run.reference))
    return TaskSummary(name, info, sentence, tuple(rows), comparisons, floor, left_out, signatures)


def _chosen(runs: Sequence[RunRecord], study: StudyRecord) -> set[str]:
    """The labels that stand for their families."""
    losses: dict[str, list[float]] = {}
    for run in runs:
        losses.setdefault(run.label, []).append(run.select.loss)
    ranked = sorted(losses, key=lambda label: float(np.mean(losses[label])))
    # The best label of a family comes last and replaces the others.
    return set({study.family(label): label for label in reversed(ranked)}.values())


def _row(
    runs: Sequence[RunRecord],
    parts: _Parts | None,
    info: TaskRecord,
    study: StudyRecord,
    reference: RunRecord | None,
    chosen: bool,
) -> Row:
    deterministic, label = runs[0].deterministic, runs[0].label
    families = list(dict.fromkeys(study.family(each) for each in [*study.strategies, label]))
    if parts is None:  # the recorded numbers, one a run
        alone = [[np.nan if run.test.metric is None else run.test.metric] for run in runs]
        scores = Sample(np.array(alone, dtype=np.float64), deterministic)
        metric = Interval(scores.mean, np.nan, np.nan, scores.covers_seeds)
    else:
        scores = Sample(
            np.array([parts[run.label, run.seed] for run in runs], dtype=np.float64), deterministic
        )
        metric = interval(scores, (-np.inf, np.inf) if ":" in info.metric else (0, 1))
    losses = Sample(np.array([run.test.losses for run in runs]), deterministic)
    return Row(
        runs=tuple(runs),
        family=study.family(label),
        place=families.index(study.family(label)),
        chosen=chosen,
        scores=scores,
        metric=metric,
        loss=interval(losses, (0, np.inf)),
        regret=_regret(runs, reference),
        model=study.model.parameters,
        wanted=1 if deterministic else len(study.seeds),
    )


def _parts(runs: Sequence[RunRecord], metric: str, trust_code: bool) -> tuple[_Parts | None, str]:
    """The parts that test examples add to the metric of each run; or None, and why not."""
    found = {}
    for run in runs:
        test = run.test
        known: Sequence[float] | None = None
        if metric in _RIGHT_OR_WRONG or test.labels is None:
            known = test.correct
        elif ":" in metric:
            known = test.shares
        try:
            if known is None and (trust_code or ":" not in metric):
                rows = choice_rows(test.labels, test.predictions or ())
                known = measured(find_metric(metric), rows).shares
        except TaskError as error:
            return None, _left_out(metric, f"{run.label}, seed {run.seed}: {error}")
        if known is None:
            failed = test.metric_failed and f"{run.label}, seed {run.seed}: {test.metric_failed}"
            return None, _left_out(metric, failed or "its code is the study's; add --trust-code")
        found[run.label, run.seed] = known
    return found, ""


def _left_out(metric: str, why: str) -> str:
    return f"Intervals of metric {metric}, and tests of who won by it, are left out: {why}."


def _reference(runs: Sequence[RunRecord]) -> RunRecord | None:
    lines = [run for run in runs if run.reference and run.winner.kind == "hard"]
    return min(lines, key=lambda run: run.search.loss_fp32, default=None)


def _regret(runs: Sequence[RunRecord], reference: RunRecord | None) -> float | None:
    """The mean search loss of runs above the reference's, in nats; None where they do not compare.

    Only hard prompts of the reference's length come from the space that it searched.
    """
    if reference is None or any(
        run.reference or run.winner.kind != "hard" or run.length != reference.length for run in runs
    ):
        return None
    return float(np.mean([run.search.loss_fp32 - reference.search.loss_fp32 for run in runs]))
