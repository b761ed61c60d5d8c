"""ROUGE (Lin 2004, aclanthology.org/W04-1013), as the package rouge-score computes it.

It is the one of summarisation; the scripts of table-to-text challenges have another one, see
`coco_rouge_l`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.printable import brief
from promptsearch.tasks.metrics.libraries import require
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed

#: What rouge-score keeps of words.
_KEPT = re.compile("[a-z0-9]", re.IGNORECASE | re.ASCII)


def reads(texts: Iterable[str]) -> bool:
    """Whether ROUGE reads most letters and digits of texts: it knows those of ASCII alone."""
    every = "".join(texts)
    kept = len(_KEPT.findall(every))
    return kept > 0 and 2 * kept >= sum(map(str.isalnum, every))


class Rouge(Metric):
    """The mean F of what output and reference share; of several references, the best F counts.

    Case never counts, and of punctuation nothing does.

    Args:
        stemmer: Whether words count as their Porter stems.
    """

    mean = True

    def __init__(self, *, stemmer: bool = False) -> None:
        require("rouge_score", self.name)
        self.stemmer = stemmer

    @property
    def signature(self) -> str:
        """Says how the F of several references are joined, and the package's version."""
        stemmer = "porter" if self.stemmer else "no"
        return signed(self.name, refs="max", stemmer=stemmer, rouge_score=version("rouge-score"))

    def check(self, rows: Sequence[Answered]) -> None:
        """Refuse references in other letters than those that rouge-score keeps.

        Raises:
            TaskError: Most of their letters and digits are others.
        """
        if not reads(text for row in rows for text in row.references):
            raise TaskError(
                f"the metric '{self.name}' reads the letters a to z and digits alone, which "
                f"references such as {brief(rows[0].references[0])} hardly have, so that even the "
                "right answer would score 0: take chrf or coco_rouge_l"
            )

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The best F over the row's references."""
        found = [self._scorer.score_multi(row.references, row.output) for row in rows]
        return np.array([[each[self.name].fmeasure] for each in found])

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer([self.name], use_stemmer=self.stemmer)


class Rouge1(Rouge):
    """ROUGE of words; see `Rouge` for the options."""

    name = "rouge1"


class Rouge2(Rouge):
    """ROUGE of pairs of words; see `Rouge` for the options."""

    name = "rouge2"


class RougeL(Rouge):
    """ROUGE of the longest common subsequence of words; see `Rouge` for the options."""

    name = "rougeL"


class RougeLsum(Rouge):
    """ROUGE-L of each line, for summaries of a sentence a line; see `Rouge` for the options."""

    name = "rougeLsum"
