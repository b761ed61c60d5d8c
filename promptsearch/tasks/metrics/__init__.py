"""Metrics of tasks: the built-in ones, and functions of a study's author for tasks of choice."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from promptsearch.errors import TaskError, UnknownName
from promptsearch.importing import load_named, strangers
from promptsearch.printable import brief

# Libraries that calculate are imported where they are used: study files are read without them.

#: Name of a built-in metric -> the kind of answers that it is for.
METRICS = {
    "accuracy": "choices",
    "balanced_accuracy": "choices",
    "f1": "choices",
    "exact_match": "text",
}
#: The metrics that are means over examples: 1 for a right answer, 0 for a wrong one.
MEANS = ("accuracy", "exact_match")


def check_metric(metric: str, choices: int | None) -> None:
    """Refuse a metric that does not exist, does not fit the task, or gives no number.

    Args:
        metric: A built-in one, or `module:function`, which is tried on labels of this kind before
            anything is scored.
        choices: The number of answers to choose from; None for text answers.

    Raises:
        UnknownName: No metric has the name.
        TaskError: The metric is for the other kind of answers, or its function cannot be loaded,
            fails, or gives no number.
    """
    if ":" in metric:
        if choices is None:
            raise TaskError(
                f"the metric '{metric}' compares choices; tasks with text answers have exact_match"
            )
        labels = [place % choices for place in range(12 * choices)]
        # Two thirds of the predictions are right.
        predictions = [(label + (place % 3 == 0)) % choices for place, label in enumerate(labels)]
        measure(metric, metric_function(metric), labels, predictions)
    elif metric not in METRICS:
        raise UnknownName("metric", metric, [*METRICS, "module:function"])
    elif (METRICS[metric] == "choices") != (choices is not None):
        raise TaskError(
            f"the metric '{metric}' is for {METRICS[metric]} answers, "
            "and this task's are of the other kind"
        )


def metric_function(metric: str) -> Callable[..., Any]:
    """The function `(labels, predictions) -> number` of a metric over choices.

    For `module:function` the module is imported, so its code runs: a reader of a stranger's results
    asks the user first, see `importing`.

    Args:
        metric: Its name.

    Raises:
        TaskError: `module:function` cannot be loaded, or is no function.
    """
    if ":" in metric:
        with strangers(lambda error: _fault(metric, "cannot be loaded", error)):
            found = load_named(metric)
        if not callable(found):
            raise TaskError(
                f"the metric '{metric}' is {brief(found)}: "
                "expected a function of labels and predictions"
            )
        return found  # type: ignore[no-any-return] # it is of whatever type
    from sklearn import metrics

    known: dict[str, Callable[..., Any]] = {
        "accuracy": metrics.accuracy_score,
        "balanced_accuracy": metrics.balanced_accuracy_score,
        "f1": lambda labels, predictions: metrics.f1_score(labels, predictions, average="macro"),
    }
    return known[metric]


def measure(
    metric: str, function: Callable[..., Any], labels: Sequence[int], predictions: Sequence[int]
) -> float:
    """The value of a metric, a finite number.

    Args:
        metric: Its name.
        function: Its function, from `metric_function`.
        labels: The right answers' places among the choices, shape `(examples,)`.
        predictions: The places of the answers given, of the same shape.

    Raises:
        TaskError: The function raised an error, or gave something else than a finite number; the
            message names the metric, and the error or the value.
    """
    import numpy as np

    with strangers(lambda error: _fault(metric, "failed", error)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may be without examples
        # The function gets copies, which it may change.
        found = function(np.array(labels, np.int64), np.array(predictions, np.int64))
    try:
        number = math.nan if isinstance(found, (str, bytes, bytearray)) else float(found)
    except Exception:  # what it gave may be of any type
        number = math.nan
    if not math.isfinite(number):
        raise TaskError(f"the metric '{metric}' gave {brief(found)}: expected a finite number")
    return number


def _fault(metric: str, what: str, error: BaseException) -> TaskError:
    return TaskError(f"the metric '{metric}' {what}: {type(error).__name__}: {error}")


def shares(metric: str, labels: Sequence[int], predictions: Sequence[int]) -> list[float]:
    """The share of each example in a metric that is no mean over examples, see `jackknife`.

    The mean of the shares is the metric.

    Args:
        metric: Its name.
        labels: The right answers' places among the choices, shape `(examples,)`.
        predictions: The places of the answers given, of the same shape.

    Raises:
        TaskError: `measure` fails, on all examples or with one of them left out.
    """
    from promptsearch.statistics import jackknife

    function = metric_function(metric)
    return [
        float(x)
        for x in jackknife(lambda *pair: measure(metric, function, *pair), labels, [predictions])[0]
    ]
