"""Metrics of tasks of choice: the built-in ones, and functions of a study's author."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from promptsearch.errors import TaskError, UnknownName
from promptsearch.importing import load_named
from promptsearch.printable import brief

# What counts and calculates is imported where it is used: study files are read without it.

METRICS = {
    "accuracy": "choices",
    "balanced_accuracy": "choices",
    "f1": "choices",
    "exact_match": "text",
}
#: Those that are means over examples of right and wrong.
MEANS = ("accuracy", "exact_match")


def check_metric(metric: str, choices: int | None) -> None:
    """Refuse a metric that does not exist, does not fit the task, or gives no number for labels of its kind.

    Args:
        metric: A built-in one, or `module:function`, which is tried before anything is scored.
        choices: How many answers there are to choose from; None for text answers.

    Raises:
        UnknownName: No metric has the name.
        TaskError: The metric is for the other kind of answers, its function cannot be loaded, fails, or gives no number.
    """
    if ":" in metric:
        if choices is None:
            raise TaskError(
                f"the metric '{metric}' compares choices; tasks with text answers have exact_match"
            )
        labels = [place % choices for place in range(12 * choices)]
        predictions = [
            (label + (place % 3 == 0)) % choices for place, label in enumerate(labels)
        ]  # two thirds are right
        measure(metric, metric_function(metric), labels, predictions)
    elif metric not in METRICS:
        raise UnknownName("metric", metric, [*METRICS, "module:function"])
    elif (METRICS[metric] == "choices") != (choices is not None):
        raise TaskError(
            f"the metric '{metric}' is for {METRICS[metric]} answers, and this task's are of the other kind"
        )


def metric_function(metric: str) -> Callable[..., Any]:
    """`(labels, predictions) -> number` for a metric over choices.

    It imports the module that a `module:function` names: what reads a stranger's results asks first, see `importing`.

    Raises:
        TaskError: `module:function` cannot be loaded, or is no function.
    """
    if ":" in metric:
        try:
            found = load_named(metric)
        except Exception as error:  # a stranger's module may raise anything while it is imported
            raise TaskError(
                f"the metric '{metric}' cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not callable(found):
            raise TaskError(
                f"the metric '{metric}' is {brief(found)}: expected a function of labels and predictions"
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
    """What a metric says, a finite number.

    Args:
        metric: Its name.
        function: From `metric_function`.
        labels: The right answers' places among the choices, shape `(examples,)`.
        predictions: Those given, of the same shape.

    Raises:
        TaskError: The function raised, or gave something else; both are named.
    """
    import numpy as np

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class may be without examples
            found = function(
                np.array(labels, np.int64), np.array(predictions, np.int64)
            )  # its own copies
    except (Exception, SystemExit) as error:  # a stranger's function may do anything
        raise TaskError(f"the metric '{metric}' failed: {type(error).__name__}: {error}") from error
    try:
        number = math.nan if isinstance(found, (str, bytes, bytearray)) else float(found)
    except Exception:  # what it gave may be of any type
        number = math.nan
    if not math.isfinite(number):
        raise TaskError(f"the metric '{metric}' gave {brief(found)}: expected a finite number")
    return number


def shares(metric: str, labels: Sequence[int], predictions: Sequence[int]) -> list[float]:
    """What each example adds to a metric that is no mean over examples: their mean is the metric, see `jackknife`.

    Args:
        metric: Its name.
        labels: The right answers' places among the choices, shape `(examples,)`.
        predictions: Those given, of the same shape.

    Raises:
        TaskError: As `measure`, also where one example is left out.
    """
    from promptsearch.statistics import jackknife

    function = metric_function(metric)
    return [
        float(x)
        for x in jackknife(lambda *pair: measure(metric, function, *pair), labels, [predictions])[0]
    ]
