"""Prefix match: the share of answers that begin with a right text, whatever comes after it.

It forgives an answer that does not end, so it says nothing about what a user would be shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.tasks.metrics.metric import Answered, Floats
from promptsearch.tasks.metrics.normalisation import Normalised


class PrefixMatch(Normalised):
    """The share of answers that begin with a reference or an alias.

    `Normalised` has the options.
    """

    name = "prefix_match"

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """1 for an answer that begins with a right text, 0 for another one."""
        return np.array([[self._begins(row)] for row in rows], dtype=np.float64)

    def _begins(self, row: Answered) -> bool:
        given = self.normal(row.output)
        # Nothing is left of some texts, such as the article "The": all answers begin with it.
        return any(given.startswith(text) if text else given == text for text in self.wanted(row))
