"""Accuracy: the share of rows whose right answer is the one chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.tasks.metrics.choices import expected, places
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric


class Accuracy(Metric):
    """The share of right choices."""

    name = "accuracy"
    answers = "choices"
    mean = True

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """1 for a right choice, 0 for a wrong one."""
        labels, predictions, _ = places(rows)
        right: Floats = (labels == predictions).astype(np.float64)[:, None]
        return right

    def feedback(self, row: Answered) -> str:
        """The right answer, where another one was given."""
        return expected(row)
