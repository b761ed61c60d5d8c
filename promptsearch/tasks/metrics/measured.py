"""The score of a metric, whoever wrote it: checked, or refused by the metric's name and the row."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from promptsearch.errors import PromptSearchError, TaskError
from promptsearch.importing import strangers
from promptsearch.printable import brief
from promptsearch.statistics import jackknife
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric

#: The number of rows of each right answer, and of texts, that a metric is tried on.
_TRIED = 3


@dataclass(frozen=True)
class Measured:
    """What a metric says of rows.

    Args:
        metric: The metric.
        score: The score of all of them.
        statistics: The statistics of each row, shape `(rows, statistics)`.
        draws: Those of each answer that was drawn for a row, where there are several; `statistics`
            are their means.
    """

    metric: Metric
    score: float
    statistics: Floats
    draws: tuple[Floats, ...] = ()

    @property
    def shares(self) -> tuple[float, ...]:
        """What each row adds: numbers whose mean is the score, see `jackknife`.

        Raises:
            TaskError: The metric has no score with one row left out.
        """
        if self.metric.mean:
            return tuple(self.statistics[:, 0].tolist())
        return tuple(jackknife(self.score_of, self.statistics).tolist())

    def score_of(self, sums: Floats, rows: int) -> float:
        """The score of other sums of these statistics, such as those of rows drawn again.

        Args:
            sums: The sums, shape `(statistics,)`.
            rows: The number of rows in them.

        Raises:
            TaskError: The metric fails, or gives no finite number.
        """
        return _score(self.metric, sums, rows)


def measured(metric: Metric, rows: Sequence[Answered]) -> Measured:
    """Measure rows.

    Args:
        metric: The metric.
        rows: All rows of a split.

    Raises:
        TaskError: The metric is for other answers, fails, or gives something else than finite
            numbers of the right shape; the message names it, and the row where one is to blame.
    """
    if not rows:
        raise TaskError(f"the metric '{metric.name}' has no rows: expected at least one")
    if metric.answers != "any":
        for number, row in enumerate(rows):
            if (row.label is not None) != (metric.answers == "choices"):
                raise _of_other_answers(metric, f": see {_shown(number, row)}")
    with strangers(lambda error: _to_blame(metric, rows, error)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may be without examples
        given = metric.statistics(rows)
    statistics = _numbers(metric, given, rows)
    return Measured(metric, _score(metric, statistics.sum(0), len(rows)), statistics)


def measured_over(metric: Metric, drawn: Sequence[Sequence[Answered]]) -> Measured:
    """Measure rows of which several answers were drawn: each row has the mean of its statistics.

    Args:
        metric: The metric.
        drawn: The rows, once for each answer.

    Raises:
        TaskError: As `measured`.
    """
    found = [measured(metric, rows) for rows in drawn]
    if len(found) == 1:
        return found[0]
    draws = tuple(each.statistics for each in found)
    mean = np.mean(draws, axis=0)
    return Measured(metric, found[0].score_of(mean.sum(0), len(mean)), mean, draws)


def check_metric(
    metric: Metric, kind: Literal["choices", "text"], rows: Sequence[Answered]
) -> None:
    """Refuse a metric that does not fit a task, or fails on it, before anything is scored.

    Args:
        metric: The metric. It is tried on a few of the rows, unless it needs what may be missing.
        kind: How the task is answered.
        rows: All rows of a split as if they had been answered; none to see only what it is for.

    Raises:
        TaskError: The metric is for other answers, refuses the rows, or `measured` refuses it.
    """
    if metric.answers not in ("any", kind):
        raise _of_other_answers(metric)
    if not rows:
        return
    with strangers(partial(_failed, metric)):
        metric.check(rows)
    if not metric.alone:
        return
    met: Counter[int | None] = Counter()
    few = []
    # Some of each right answer, since there are scores that a single class does not have.
    for row in rows:
        met[row.label] += 1
        few += [row] if met[row.label] <= _TRIED else []
    measured(metric, few)


def choice_rows(
    labels: Sequence[int],
    predictions: Sequence[int],
    probabilities: Sequence[Sequence[float]] | None = None,
) -> list[Answered]:
    """Rows of which no more is known than which answer is right, and which one was given.

    Args:
        labels: The right answers' places among the choices, shape `(rows,)`.
        predictions: The places of the answers given, of the same shape.
        probabilities: The probability of each answer, shape `(rows, choices)`, where they are
            known.
    """
    return [
        Answered(
            output=str(said),
            references=(str(right),),
            label=int(right),
            prediction=int(said),
            probabilities=tuple(map(float, known)),
        )
        for right, said, known in zip(
            labels,
            predictions,
            [()] * len(labels) if probabilities is None else probabilities,
            strict=True,
        )
    ]


def _of_other_answers(metric: Metric, where: str = "") -> TaskError:
    return TaskError(
        f"the metric '{metric.name}' is for {metric.answers} answers, "
        f"and this task's are of the other kind{where}"
    )


def _score(metric: Metric, sums: Floats, rows: int) -> float:
    with strangers(partial(_failed, metric)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = metric.score(sums.copy(), rows)
    try:
        number = math.nan if isinstance(found, (str, bytes, bytearray)) else float(found)
    except Exception:  # what it gave may be of any type
        number = math.nan
    if not math.isfinite(number):
        raise TaskError(f"the metric '{metric.name}' gave {brief(found)}: expected a finite number")
    return number


def _numbers(metric: Metric, given: Any, rows: Sequence[Answered]) -> Floats:
    """The statistics as an array of our own."""
    wanted = f"expected numbers of shape ({len(rows)}, statistics), one row each"
    try:
        found = np.array(given, dtype=np.float64)
    except Exception as error:  # what it gave may be of any type
        raise TaskError(
            f"the metric '{metric.name}' gave {brief(given)} as statistics: {wanted}"
        ) from error
    if found.ndim != 2 or len(found) != len(rows) or not found.shape[1]:
        raise TaskError(
            f"the metric '{metric.name}' gave statistics of shape {found.shape}: {wanted}"
        )
    if metric.mean and found.shape[1] != 1:
        raise TaskError(
            f"the metric '{metric.name}' says that it is a mean, and gave {found.shape[1]} "
            "statistics a row: expected 1"
        )
    for number in np.flatnonzero(~np.isfinite(found).all(1))[:1].tolist():
        raise TaskError(
            f"the metric '{metric.name}' gave {brief(found[number].tolist())} for "
            f"{_shown(number, rows[number])}: expected finite numbers"
        )
    return found


def _to_blame(metric: Metric, rows: Sequence[Answered], error: BaseException) -> PromptSearchError:
    """The error with the first row on which the metric fails alone, too.

    An error of ours says all that there is to say; it may be a server's that is gone, and asking
    again may cost tokens.
    """
    if isinstance(error, PromptSearchError):
        return error
    for number, row in enumerate(rows):
        try:
            metric.statistics([row])
        except KeyboardInterrupt:
            raise
        except BaseException as own:  # a stranger's metric may raise anything
            return _failed(metric, own, f" on {_shown(number, row)}")
    return _failed(metric, error)


def _failed(metric: Metric, error: BaseException, where: str = "") -> PromptSearchError:
    if isinstance(error, PromptSearchError):
        return error
    return TaskError(f"the metric '{metric.name}' failed{where}: {type(error).__name__}: {error}")


def _shown(number: int, row: Answered) -> str:
    return f"row {number + 1} (output {brief(row.output)}, reference {brief(row.references[0])})"
