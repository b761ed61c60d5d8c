"""Token F1: the overlap of words of the answer and a right text.

It is the F1 of SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1), with version 2's rule
for texts of which nothing is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from promptsearch.tasks.metrics.metric import Answered, Floats
from promptsearch.tasks.metrics.normalisation import Normalised


class TokenF1(Normalised):
    """The mean over rows of the best F1 of words over the references.

    The defaults are SQuAD's; `Normalised` has the options.
    """

    name = "token_f1"

    def __init__(
        self, *, lowercase: bool = True, punctuation: bool = False, articles: bool = False
    ) -> None:
        super().__init__(lowercase=lowercase, punctuation=punctuation, articles=articles)

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The best F1."""
        return np.array(
            [
                [
                    max(
                        _f1(self.normal(row.output).split(), text.split())
                        for text in self.wanted(row)
                    )
                ]
                for row in rows
            ]
        )


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))
