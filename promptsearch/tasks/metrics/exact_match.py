"""Exact match: the share of answers that are, after normalisation, a right text.

The generated answer counts whole, up to its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.tasks.metrics.metric import Answered, Floats
from promptsearch.tasks.metrics.normalisation import Normalised


class ExactMatch(Normalised):
    """The share of answers that equal a reference or an alias; see `Normalised` for the options."""

    name = "exact_match"

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """1 for an answer that equals a right text, 0 for another one."""
        return np.array(
            [[self.normal(row.output) in self.wanted(row)] for row in rows], dtype=np.float64
        )
