"""The metrics of a record: what each example adds to one, and whether a score is that of its rows.

A built-in metric is made again from its name and options. The code of a stranger's is not run here:
what its rows add to it was recorded with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promptsearch.errors import TaskError, UnknownName
from promptsearch.records.measured import ExamplesRecord, MetricRecord
from promptsearch.records.study import TaskRecord
from promptsearch.tasks.metrics import METRICS, find_metric
from promptsearch.tasks.metrics.measured import Measured, choice_rows, measured

#: The metrics that are the share of right answers; earlier versions recorded no more of them than
#: which answers are right.
RIGHT_OR_WRONG = ("accuracy", "exact_match")
#: The relative difference up to which two sums are the same: float64 in another order differs by
#: less.
SAME = 1e-6


def check_metrics(name: str, score: ExamplesRecord, task: TaskRecord, size: int) -> None:
    """See that the metrics on a split are those of its rows, as far as that can be told.

    Args:
        name: The split's name.
        score: The scores on the split, with metrics.
        task: The split's task.
        size: The number of examples in the split.

    Raises:
        ValueError: They are not; the message says where.
    """
    main = score.metrics[0]
    if (main.name, main.score) != (task.metric, score.metric):
        raise ValueError(
            f"{name}.metric is {score.metric}, and {name}.metrics has {main.score} of {main.name}"
        )
    for each in score.metrics:
        what = f"{name}.metrics.{each.name}"
        if (each.score is None) != bool(each.failed):
            raise ValueError(f"{what} has neither a score nor a reason, or both")
        if each.statistics is None:
            if each.mean and each.score is not None and name == "test":
                same(what, each.score, float(np.mean(score.correct)))
            continue
        widths = {len(row) for row in each.statistics}
        if len(each.statistics) != size or len(widths) != 1 or (each.mean and widths != {1}):
            raise ValueError(f"{what} has statistics of another shape than its {size} rows")
    if name != "test":
        return
    for each in score.metrics:
        what = f"{name}.metrics.{each.name}"
        if each.score is None:
            continue
        if each.mean and each.statistics is not None:
            same(what, each.score, float(np.mean(each.statistics)))
            continue
        try:
            found = known(score, each)
        except (TaskError, UnknownName):  # a library that is missing here, or another version
            continue
        if found is not None:
            same(what, each.score, found.score)


def known(
    score: ExamplesRecord, record: MetricRecord, *, trust_code: bool = False
) -> Measured | None:
    """A metric with the statistics of its rows.

    Args:
        score: The scores on the test split.
        record: One of its metrics.
        trust_code: Whether a metric that is not built in may be imported.

    Returns:
        None where a stranger's code would have to be run, or the statistics are not recorded.

    Raises:
        TaskError: The metric fails, or a library is missing.
        UnknownName: There is no such metric any more, or no such option.
    """
    if record.name not in METRICS and not trust_code:
        return None
    metric = find_metric(record.name, record.options)
    if record.statistics is not None:
        rows = np.array(record.statistics, dtype=np.float64)
        found = Measured(metric, np.nan, rows)
        return replace(found, score=found.score_of(rows.sum(0), len(rows)))
    if score.labels is None or score.predictions is None:
        return None
    return measured(metric, choice_rows(score.labels, score.predictions))


def shares_of(
    score: ExamplesRecord, metric: str, *, trust_code: bool = False
) -> Sequence[float] | None:
    """What each row adds to the task's metric: numbers whose mean is its score.

    Args:
        score: The scores on the test split.
        metric: The metric's name.
        trust_code: As in `known`.

    Returns:
        One number a row; None where a stranger's code would have to be run, or nothing is known.

    Raises:
        TaskError: The metric has no score with one row left out.
    """
    if not score.metrics and (metric in RIGHT_OR_WRONG or score.labels is None):
        # The record of an earlier version, or answers that could not be generated.
        return None if score.metric is None else score.correct
    about = score.metrics[0] if score.metrics else MetricRecord(metric, score.metric, metric)
    if about.mean and about.score is not None:
        rows = about.statistics
        return score.correct if rows is None else [row[0] for row in rows]
    if score.shares is not None:
        return score.shares
    found = None if about.score is None else known(score, about, trust_code=trust_code)
    return None if found is None else found.shares


def moves_all(score: ExamplesRecord, metric: str) -> bool:
    """Whether one answer moves what every row adds to the task's metric, which is then no mean.

    Args:
        score: The scores on the test split.
        metric: The metric's name.
    """
    if score.metrics:
        return not score.metrics[0].mean
    return metric not in RIGHT_OR_WRONG and score.labels is not None


def limits(score: ExamplesRecord, metric: str) -> tuple[float, float]:
    """The least and the greatest score that there can be, infinite where there is no limit.

    Args:
        score: The scores on a split.
        metric: The metric's name.
    """
    low, high = score.metrics[0].bounds if score.metrics else (None, None)
    if not score.metrics and ":" not in metric:  # the record of an earlier version
        low, high = 0.0, 1.0
    return -np.inf if low is None else low, np.inf if high is None else high


def same(what: str, one: float, other: float) -> None:
    """See that two numbers are the same, but for the order of a sum.

    Raises:
        ValueError: They are not; the message names them.
    """
    if not abs(one - other) <= SAME * max(1.0, abs(other)):
        raise ValueError(f"{what} is {one}, and what it is made of gives {other}")
