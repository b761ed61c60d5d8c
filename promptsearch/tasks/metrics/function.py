"""A study's own function of labels and predictions, as a metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics.choices import places
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric


class FunctionMetric(Metric):
    """A metric made of a function that knows nothing of statistics.

    What such a function is called with, pairs of a label and a prediction, can be counted; so the
    counts are the statistics, and the function is called on as many of each pair as there are, in
    the order of the pairs and not of the rows.

    Args:
        name: `module:function`.
        function: From labels and predictions, whole numbers of shape `(rows,)` each, to a number.
    """

    answers = "choices"
    bounds = (-np.inf, np.inf)

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._function = function

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """For each pair of a label and a prediction, whether it is this row's."""
        labels, predictions, choices = places(rows)
        if (predictions < 0).any():
            number = int(np.argmax(predictions < 0)) + 1
            raise TaskError(
                f"the metric '{self.name}' pairs labels and predictions, and of row {number} it is "
                "not known which answer was given"
            )
        pairs: Floats = np.zeros((len(rows), choices * choices))
        pairs[np.arange(len(rows)), labels * choices + predictions] = 1
        return pairs

    def score(self, sums: Floats, rows: int) -> float:
        """What the function gives, of whatever type: `measured` looks at it."""
        choices = round(len(sums) ** 0.5)
        pairs = np.repeat(np.arange(len(sums)), np.rint(sums).astype(np.int64))
        found: float = self._function(pairs // choices, pairs % choices)
        return found
