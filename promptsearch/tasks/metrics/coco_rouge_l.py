"""ROUGE-L as coco-caption computes it, and the E2E challenge with it (Lin 2004, section 3).

It differs from the one of summarisation: recall counts more, the best precision and the best recall
may come from different references, and words are cut in another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed
from promptsearch.tasks.metrics.tokens import ptb

_BETA = 1.2


class CocoRougeL(Metric):
    """The mean F of the longest common subsequence of words.

    Args:
        tokenize: `ptb` for words as coco-caption cuts them, `none` for texts that are cut already.
    """

    name = "coco_rouge_l"
    mean = True

    def __init__(self, *, tokenize: Literal["ptb", "none"] = "ptb") -> None:
        self.tokenize = tokenize

    @property
    def signature(self) -> str:
        """Says how precision and recall are joined, and how words are cut."""
        return signed(self.name, beta=_BETA, refs="max_p_max_r", tok=self.tokenize)

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The F of each row."""
        return np.array([[self._f(row)] for row in rows])

    def _f(self, row: Answered) -> float:
        given = self._words(row.output)
        texts = [self._words(text) for text in row.references]
        shared = [longest_common(given, words) for words in texts]
        precision = max(shared) / max(len(given), 1)
        recall = max(count / max(len(words), 1) for count, words in zip(shared, texts, strict=True))
        if not precision or not recall:
            return 0.0
        return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)

    def _words(self, text: str) -> list[str]:
        return ptb(text) if self.tokenize == "ptb" else text.split()


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest sequence of words that two texts have in this order."""
    best = [0] * (
        len(other) + 1
    )  # best[j]: of the words of `one` so far and the first j of `other`
    for word in one:
        diagonal = 0
        for j, theirs in enumerate(other, start=1):
            above = best[j]
            best[j] = diagonal + 1 if word == theirs else max(above, best[j - 1])
            diagonal = above
    return best[-1]
