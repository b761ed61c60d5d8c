"""F1, macro: the mean over classes of the harmonic mean of precision and recall.

F1 of a class is 2 tp / (2 tp + fp + fn). Classes that are neither right nor given anywhere do not
count, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.tasks.metrics.choices import expected, places
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric


class F1(Metric):
    """The mean F1 of the classes."""

    name = "f1"
    answers = "choices"

    @property
    def signature(self) -> str:
        """Says how the classes count."""
        return "f1|average:macro"

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """For each class: whether the row is a true positive, a false one, or a false negative."""
        labels, predictions, choices = places(rows)
        right = labels[:, None] == np.arange(choices)  # (rows, choices)
        given = predictions[:, None] == np.arange(choices)
        return np.concatenate([right & given, given & ~right, right & ~given], 1).astype(float)

    def score(self, sums: Floats, rows: int) -> float:
        """The mean over the classes that there are."""
        true, false, missed = np.split(sums, 3)
        there = true + false + missed > 0
        return float((2 * true[there] / (2 * true + false + missed)[there]).mean())

    def feedback(self, row: Answered) -> str:
        """The right answer, where another one was given."""
        return expected(row)
