"""What answers are worth: those of a prompt on a split, measured by all metrics of a task.

A metric that fails costs its own number and nothing else: the record says why it is missing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.records.measured import DIGITS, ExamplesRecord, MetricRecord
from promptsearch.study.arena import Arena
from promptsearch.study.judging import Asking, judged
from promptsearch.tasks.answered import chosen, generated
from promptsearch.tasks.metrics.judge import Judge
from promptsearch.tasks.metrics.measured import Measured, choice_rows, measured, measured_over
from promptsearch.tasks.metrics.metric import Answered, Metric
from promptsearch.tasks.task import Example, Task

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """The answers of one prompt to the examples of a split.

    Args:
        drawn: The rows with their answers; several times where several answers are drawn; none
            where no answers are known.
        outputs: The first text that was generated for each; None for choices.
        unended: How many rows met the limit of tokens; None for choices.
        failed: Why no answers are known; empty where nobody asked for them.
    """

    drawn: tuple[Sequence[Answered], ...] = ()
    outputs: tuple[str, ...] | None = None
    unended: int | None = None
    failed: str = ""

    def loss_by(self, metric: Metric) -> float:
        """Minus the metric, or the metric where lower scores are better; +inf where it fails."""
        try:
            score = measured_over(metric, self.drawn).score
        except TaskError:
            return math.inf
        return -score if metric.higher_is_better else score


def choices_of(task: Task, examples: Sequence[Example], line: Mapping[str, Any], i: int) -> Answers:
    """The choices of a prompt.

    Args:
        task: The task.
        examples: The examples of the line.
        line: A line of the log with losses.
        i: The prompt's place in it.
    """
    if line["losses"][i] is None:
        return Answers(failed=line["failures"][str(i)])
    nats = None if line["choices"] is None else np.array(line["choices"][i], dtype=np.float64)
    return Answers((chosen(examples, task.choices or (), nats, line["metric"][i]),))


def texts_of(examples: Sequence[Example], line: Mapping[str, Any], i: int) -> Answers:
    """The texts that were generated under a prompt.

    Args:
        examples: The examples of the line.
        line: A line of the log with texts.
        i: The prompt's place in it.
    """
    texts = line["texts"][i]
    if texts is None:
        return Answers(failed=line["failures"][str(i)])
    drawn = tuple(generated(examples, some) for some in zip(*texts, strict=True))
    outputs = tuple(row.output for row in drawn[0])
    return Answers(drawn, outputs, sum(0 in ended for ended in line["ended"][i]))


def examples_record(
    arena: Arena, line: Mapping[str, Any], i: int, answers: Answers, split: str, name: str
) -> ExamplesRecord:
    """Loss and metrics of one prompt on a split, and per example.

    The metrics beside the task's own are measured on the test split only.

    Args:
        arena: The run's arena.
        line: The line of the log with the prompt's losses.
        i: Its place in it.
        answers: Its answers.
        split: The split's name.
        name: The run's name in warnings.
    """
    losses, correct = tuple(line["losses"][i]), tuple(map(int, line["metric"][i]))
    predictions = labels = shares = None
    if line["choices"] is not None:
        (rows,) = answers.drawn
        labels = tuple(row.label for row in rows if row.label is not None)
        predictions = tuple(row.prediction for row in rows if row.prediction is not None)
        shares = tuple(tuple(round(p, 4) for p in row.probabilities) for row in rows)
    known = ExamplesRecord(
        loss=float(np.mean(losses)),
        metric=None,
        losses=losses,
        correct=correct,
        predictions=predictions,
        labels=labels,
        metric_failed=answers.failed,
        outputs=answers.outputs,
        unended=answers.unended,
        probabilities=shares
        if split == "test" and shares and len(max(shares, key=len)) > 2
        else None,
    )
    if not answers.drawn:
        return known
    task, tested = arena.task, split == "test"
    found = {
        key: _try(key, metric, dict(task.metrics.get(key, {})), answers, known)
        for key, metric in arena.measures.items()
        if tested or key == task.metric
    }
    for each in found.values():
        if each.record.failed:
            _log.warning("%s, %s split: %s", name, split, each.record.failed)
    main = found[task.metric]
    return replace(
        known,
        metric=main.record.score,
        # Whoever reads the results need not have, or trust, the code of a study's own metric.
        shares=main.shares if tested and ":" in task.metric else None,
        metric_failed=main.record.failed or (main.unshared if tested else ""),
        metrics=tuple(
            each.record if tested else replace(each.record, statistics=None)
            for each in found.values()
        ),
    )


class _Tried(NamedTuple):
    """What a metric gave: its record, what each row adds to it, or why that is not known."""

    record: MetricRecord
    shares: tuple[float, ...] | None = None
    unshared: str = ""


def _try(
    key: str, metric: Metric, options: Mapping[str, Any], answers: Answers, known: ExamplesRecord
) -> _Tried:
    """Measure answers by a metric, which may be a stranger's.

    Args:
        key: Its name in the study file.
        metric: The metric.
        options: Its options there.
        answers: The answers.
        known: What else is recorded of them.
    """
    record = MetricRecord(
        name=key,
        score=None,
        signature=metric.signature,
        higher_is_better=metric.higher_is_better,
        bounds=(_limit(metric.bounds[0]), _limit(metric.bounds[1])),
        mean=metric.mean,
        options=options,
    )
    asked = metric.asked if isinstance(metric, Judge) else None
    before = asked.tokens if isinstance(asked, Asking) else 0
    try:
        found = measured_over(metric, answers.drawn)
    except TaskError as error:
        return _Tried(replace(record, failed=str(error)))
    record = replace(record, score=found.score)
    if isinstance(asked, Asking):
        record = judged(record, found, answers.drawn, asked.tokens - before)
    if not _follows(found, known):
        rows = [tuple(float(f"{x:.{DIGITS}g}") for x in row) for row in found.statistics.tolist()]
        record = replace(record, statistics=tuple(rows))
    try:
        return _Tried(record, found.shares if ":" in key else None)
    except TaskError as error:
        return _Tried(record, None, str(error))


def _follows(found: Measured, known: ExamplesRecord) -> bool:
    """Whether the statistics of a metric follow from what else is recorded."""
    if found.metric.mean and found.statistics[:, 0].tolist() == list(known.correct):
        return True
    if known.labels is None or known.predictions is None or found.metric.mean:
        return False
    try:
        rows = choice_rows(known.labels, known.predictions)
        return np.array_equal(measured(found.metric, rows).statistics, found.statistics)
    except TaskError:  # it needs more of a row
        return False


def _limit(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
