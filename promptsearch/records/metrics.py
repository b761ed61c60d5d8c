"""The metrics of a record: what each example adds to one, and whether a score is that of its rows.

A built-in metric is made again from its name and options. The code of a stranger's is not run here:
what its rows add to it was recorded with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.errors import TaskError, UnknownName
from promptsearch.records.measured import ExamplesRecord, MetricRecord
from promptsearch.records.study import TaskRecord
from promptsearch.tasks.metrics import METRICS, find_metric
from promptsearch.tasks.metrics.measured import Measured, choice_rows, measured

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
        elif (found := known(score, each)) is not None:
            same(what, each.score, found.score)


def known(
    score: ExamplesRecord, record: MetricRecord, *, trust_code: bool = False
) -> Measured | None:
    """A metric with the statistics of its rows; None where that cannot be had.

    Args:
        score: The scores on the test split.
        record: One of its metrics.
        trust_code: Whether a metric that is not built in may be imported.
    """
    if record.name not in METRICS and not trust_code:
        return None
    try:
        metric = find_metric(record.name, record.options)
        if record.statistics is not None:
            rows = np.array(record.statistics, dtype=np.float64)
            return Measured(metric, metric.score(rows.sum(0), len(rows)), rows)
        if score.labels is None or score.predictions is None:
            return None
        return measured(metric, choice_rows(score.labels, score.predictions))
    except (TaskError, UnknownName, ArithmeticError, ValueError, IndexError):
        return None  # a library that is missing, or a metric of another version


def shares_of(
    score: ExamplesRecord, record: MetricRecord, *, trust_code: bool = False
) -> Sequence[float] | None:
    """What each row adds to a metric: numbers whose mean is its score; None where it is not known.

    Args:
        score: The scores on the test split.
        record: Its main metric.
        trust_code: As in `known`.
    """
    if record.mean:
        rows = record.statistics
        return score.correct if rows is None else [row[0] for row in rows]
    if score.shares is not None:
        return score.shares
    found = known(score, record, trust_code=trust_code)
    try:
        return None if found is None else found.shares
    except TaskError:
        return None


def same(what: str, one: float, other: float) -> None:
    """See that two numbers are the same, but for the order of a sum.

    Raises:
        ValueError: They are not; the message names them.
    """
    if not abs(one - other) <= SAME * max(1.0, abs(other)):
        raise ValueError(f"{what} is {one}, and what it is made of gives {other}")
