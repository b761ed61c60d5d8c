"""The summary that every form of the report shows of each task.

It has a row for each strategy of the task, the tests, and the verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from promptsearch.records.measured import MetricRecord
from promptsearch.records.metrics import RIGHT_OR_WRONG
from promptsearch.records.results import Results
from promptsearch.records.run import RunRecord
from promptsearch.records.study import StudyRecord, TaskRecord
from promptsearch.report.best_control import Against, Candidate, against
from promptsearch.report.measured import Parts, Scale, beside, further, parts_of, scale_of
from promptsearch.report.notation import ERRORS
from promptsearch.report.regret import references_of, regret
from promptsearch.report.selected import chosen_labels, selected
from promptsearch.report.verdict import verdict
from promptsearch.search.alike import was_blind
from promptsearch.statistics import (
    Comparison,
    Interval,
    Sample,
    compare_all,
    compare_leader,
    interval,
)


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
        select_by: Whether the metric on the select split counts where one run stands for others,
            and how it is read; None for the loss.
        further: The mean test score by each metric beside the task's own.
        asked: The prompt length that it was run at in a sweep; None without one.
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
    select_by: Scale | None = None
    further: Mapping[str, float] = field(default_factory=dict)
    asked: int | None = None

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

    @property
    def control(self) -> bool:
        """Whether it is a control: what a search must beat to be worth its price.

        Records from before strategies said so have it where a prompt was neither searched nor
        trained, nor taken from another run.
        """
        run = self.runs[0]
        told = not run.searches and run.access == "scores" and run.start is None
        return not run.reference and (told if run.control is None else run.control)

    @property
    def sought(self) -> str:
        """What it looked for: words, vectors or weights."""
        if self.best.access == "weights":
            return "weights"
        return "words" if self.best.winner.shape is None else "vectors"

    @cached_property
    def best(self) -> RunRecord:
        """The run that is best on the select split; the test split has no say."""
        return min(self.runs, key=lambda run: selected(run, self.select_by))

    @property
    def length(self) -> int:
        """Its place in a sweep: the length that was asked for, which a winner may fall short of."""
        return self.best.length if self.asked is None else self.asked

    @property
    def unended(self) -> int | None:
        """How many test answers of all runs met the limit of tokens; None where none are text."""
        known = [run.test.unended for run in self.runs if run.test.unended is not None]
        return sum(known) if known else None

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
    def cost(self) -> float | None:
        """The mean of the most that a run costs in money; None where no price is known."""
        known = [run.cost for run in self.runs if run.cost is not None]
        return float(np.mean(known)) if known else None

    @property
    def flops(self) -> float | None:
        """The mean of the FLOPs that a run's tokens stand for; None where they are not known."""
        known = [run.flops for run in self.runs if run.flops is not None]
        return float(np.mean(known)) if len(known) == len(self.runs) else None

    @property
    def seconds(self) -> float | None:
        """The mean seconds of a run; None where all took most of their scores from the cache."""
        known = [run.seconds for run in self.runs if run.timed]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class TaskSummary:
    """One task of a study.

    Args:
        name: The task's name.
        info: What the study recorded about the task.
        verdict: Who won, in words.
        scale: How the metric's scores are read.
        rows: The rows, best mean test metric first, references last.
        leading: The tests of the leader against each other ranked strategy, each at its chosen
            length; it wins where all of them are significant.
        against: The ranked strategies against the best control; None where there is none.
        comparisons: The tests of all pairs of ranked strategies.
        floor: The score of always giving the most frequent answer; None where the metric is no mean
            over examples.
        left_out: Which part of the metric is not shown, and why; empty where all of it is.
        signatures: The short signatures of the ranked rows: one, unless several versions of
            promptsearch made them.
        beside: The metrics beside the task's own, as the runs recorded them.
    """

    name: str
    info: TaskRecord
    scale: Scale
    verdict: str
    rows: tuple[Row, ...]
    leading: tuple[Comparison, ...]
    against: Against | None
    comparisons: tuple[Comparison, ...]
    floor: float | None
    left_out: str = ""
    signatures: tuple[str, ...] = ()
    beside: tuple[MetricRecord, ...] = ()

    @property
    def priced(self) -> bool:
        """Whether what runs cost in money is known."""
        return any(row.cost is not None for row in self.rows)

    @property
    def counted(self) -> bool:
        """Whether the FLOPs of runs are known."""
        return any(row.flops is not None for row in self.rows)

    @property
    def sweeps(self) -> tuple[tuple[Row, ...], ...]:
        """The families run at several lengths, in the order of the study, each by length."""
        families: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: (row.place, row.length)):
            families.setdefault(row.family, []).append(row)
        return tuple(tuple(rows) for rows in families.values() if len(rows) > 1)

    @property
    def clear(self) -> bool:
        """Whether the leader beats every other strategy."""
        return bool(self.leading) and all(test.significant for test in self.leading)


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
    scale = scale_of(runs, info.metric)
    by = scale if results.study.select_by == "metric" else None
    references, chosen = references_of(runs), chosen_labels(runs, results.study, by)
    parts, left_out = parts_of(runs, info.metric, results.trust_code)
    rows = [
        _row(own, parts, info, results.study, references, own[0].label in chosen, scale)
        for own in ([run for run in runs if run.label == label] for label in labels)
    ]

    def place(row: Row) -> tuple[bool, float, float]:
        score = scale.sign * row.metric.mean
        return row.reference, -np.nan_to_num(score, nan=-np.inf), row.loss.mean

    rows.sort(key=place)
    ranked = [row for row in rows if row.chosen and not row.reference]
    samples = {row.label: scale.turned(row.scores) for row in ranked}
    beaten = None if left_out else _against(ranked, scale, by)
    floor = info.majority if info.metric in RIGHT_OR_WRONG else None
    sentence = left_out or verdict(
        samples,
        scale,
        against=beaten,
        floor=floor,
        failed=Counter(run.label for run in results.failed if run.task == name),
        unfinished=sum(task == name for task, _, _ in results.unfinished),
        unit="test example" if info.groups is None else "group of test examples",
    )
    if results.study.model.served and results.study.model.served.get("scores") == "errors":
        sentence += f" {ERRORS}"
    if blind := [run for run in runs if was_blind(run.stopped)]:
        sentence += (
            f" {len(blind)} of {sum(run.searches for run in runs)} searches were blind, "
            f"such as '{blind[0].label}': {blind[0].stopped}."
        )
    return TaskSummary(
        name,
        info,
        scale,
        sentence,
        tuple(rows),
        () if left_out or not samples else tuple(compare_leader(samples, scale.widest)),
        beaten,
        () if left_out else tuple(compare_all(samples, scale.widest)),
        floor,
        left_out,
        tuple(dict.fromkeys(run.signature for run in runs if not run.reference)),
        beside(runs),
    )


def _against(rows: Sequence[Row], scale: Scale, by: Scale | None) -> Against | None:
    """The ranked rows against the best control, which the select split names.

    Where losses of some are of other chances than those of the others, the metric names it.
    """
    by = scale if any(run.winner.own_losses for row in rows for run in row.runs) else by
    candidates = [
        Candidate(
            row.label,
            row.sought,
            row.control,
            row.searches,
            float(np.mean([selected(run, by) for run in row.runs])),
            row.place,
            scale.turned(row.scores),
        )
        for row in rows
    ]
    return against(candidates, f"select {scale.name if by else 'loss'}", scale.widest)


def _row(
    runs: Sequence[RunRecord],
    parts: Parts | None,
    info: TaskRecord,
    study: StudyRecord,
    references: Sequence[RunRecord],
    chosen: bool,
    scale: Scale,
) -> Row:
    deterministic, label = runs[0].deterministic, runs[0].label
    families = list(dict.fromkeys(study.family(each) for each in [*study.strategies, label]))
    if parts is None:  # the recorded numbers, one a run
        alone = [[np.nan if run.test.metric is None else run.test.metric] for run in runs]
        scores = Sample(np.array(alone, dtype=np.float64), deterministic)
        metric = Interval(scores.mean, np.nan, np.nan, scores.covers_seeds)
    else:
        scores = parts.sample(runs, info.groups)
        metric = interval(scores, scale.bounds)
    losses = np.array([run.test.losses for run in runs])
    return Row(
        runs=tuple(runs),
        family=study.family(label),
        place=families.index(study.family(label)),
        chosen=chosen,
        scores=scores,
        metric=metric,
        loss=interval(Sample(losses, deterministic, info.groups), (0, np.inf)),
        # A search that followed a metric did not look for the least loss.
        regret=None if study.objective else regret(runs, references),
        model=study.model.parameters,
        wanted=1 if deterministic else study.seeds_of(label),
        select_by=scale if study.select_by == "metric" else None,
        further=further(runs),
        asked=study.asked(label),
    )
