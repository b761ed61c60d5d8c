"""What metrics over choices count: where the right answer stands, and where the given one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promptsearch.tasks.metrics.metric import Answered

Places = NDArray[np.int64]


def places(rows: Sequence[Answered]) -> tuple[Places, Places, int]:
    """Labels, predictions, and the number of answers to choose from.

    Args:
        rows: Rows of tasks of choice.

    Returns:
        The places of the right answers and of those given, shape `(rows,)` each, and one more than
        the largest place that there can be.
    """
    labels = np.array([-1 if row.label is None else row.label for row in rows])
    predictions = np.array([-1 if row.prediction is None else row.prediction for row in rows])
    most = max(len(row.probabilities) for row in rows)
    return labels, predictions, max(most, int(labels.max()) + 1, int(predictions.max()) + 1)


def expected(row: Answered) -> str:
    """What a reader of a wrong answer is told; empty for a right one."""
    if row.label == row.prediction:
        return ""
    return f"expected {row.references[0]!r}, got {row.output!r}"
