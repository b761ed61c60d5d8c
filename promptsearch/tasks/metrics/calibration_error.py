"""Expected calibration error (Guo et al. 2017, arXiv:1706.04599, equation 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics.choices import places
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed


class CalibrationError(Metric):
    """The mean gap between how sure the model is of its choices and how often it is right.

    Choices fall into bins by their probability; a bin's gap is between its mean probability and its
    share of right choices, and counts with its share of rows.

    Args:
        bins: The number of bins of equal width.
    """

    name = "calibration_error"
    answers = "choices"
    higher_is_better = False

    def __init__(self, *, bins: Annotated[int, Field(ge=1, le=1000)] = 15) -> None:
        self.bins = bins

    @property
    def signature(self) -> str:
        """Says the number of bins."""
        return signed(self.name, bins=self.bins)

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """For each bin, what the row's probability has above being right; 0 in all but its own."""
        if not all(row.probabilities for row in rows):
            raise TaskError(f"the metric '{self.name}' needs the probabilities of the answers")
        labels, predictions, _ = places(rows)
        sure = np.array([max(row.probabilities) for row in rows])
        # Bin m holds probabilities in ((m - 1) / bins, m / bins].
        place = np.clip(np.ceil(sure * self.bins).astype(int) - 1, 0, self.bins - 1)
        gaps: Floats = np.zeros((len(rows), self.bins))
        gaps[np.arange(len(rows)), place] = sure - (labels == predictions)
        return gaps

    def score(self, sums: Floats, rows: int) -> float:
        """The gaps' absolute values: |B_m| / n |acc(B_m) - conf(B_m)|, summed over bins m."""
        return float(np.abs(sums).sum() / rows)
