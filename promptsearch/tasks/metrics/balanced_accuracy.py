"""Balanced accuracy: the mean over classes of the share of their rows that are right.

It is Brodersen et al. 2010 (doi:10.1109/ICPR.2010.764) for any number of classes, as scikit-learn
has it: a class without a row does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.tasks.metrics.choices import expected, places
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric


class BalancedAccuracy(Metric):
    """The mean recall of the classes."""

    name = "balanced_accuracy"
    answers = "choices"

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """For each class: whether it is this row's, and whether it was found there, too."""
        labels, predictions, choices = places(rows)
        own = labels[:, None] == np.arange(choices)  # (rows, choices)
        found = own & (labels == predictions)[:, None]
        return np.concatenate([own, found], axis=1).astype(float)

    def score(self, sums: Floats, rows: int) -> float:
        """The mean over the classes that there are."""
        own, found = np.split(sums, 2)
        there = own > 0
        return float((found[there] / own[there]).mean())

    def feedback(self, row: Answered) -> str:
        """The right answer, where another one was given."""
        return expected(row)
