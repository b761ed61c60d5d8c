"""NIST (Doddington 2002, doi:10.5555/1289189.1289273), as the E2E challenge's script computes it.

Rare n-grams count more: info(w_1 ... w_n) = log2(count(w_1 ... w_n-1) / count(w_1 ... w_n)) with
counts over the references of all rows (equation 2), and the numerator the number of their words for
n = 1. The score is the information of shared n-grams per n-gram of the output, summed over n up to
5, times a penalty for short outputs (equation 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import exp, inf, log, log2
from typing import Literal

import numpy as np

from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed
from promptsearch.tasks.metrics.tokens import v13a

_ORDER = 5
#: The penalty is 1/2 for outputs of 2/3 of the references' length.
_BETA = log(0.5) / log(1.5) ** 2

Gram = tuple[str, ...]


class NIST(Metric):
    """Information that outputs share with references, in bits.

    Args:
        mode: Whose length of the references counts in the penalty. `pymteval` takes the mean length
            of a row's references. `perl` is `mteval-v13a-sig.pl` as the challenge's script calls
            it: each row's references are filled up with empty ones to the largest number, so that
            the penalty hardly ever bites.
        lowercase: Whether case does not count.
    """

    name = "nist"
    bounds = (0.0, inf)

    def __init__(
        self, *, mode: Literal["perl", "pymteval"] = "pymteval", lowercase: bool = True
    ) -> None:
        self.mode, self.lowercase = mode, lowercase

    @property
    def signature(self) -> str:
        """Says whose penalty it is, and how words are cut."""
        case = "lc" if self.lowercase else "mixed"
        return signed(self.name, mode=self.mode, case=case, tok="13a", order=_ORDER)

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """Information shared and n-grams given, for n from 1 to 5, and the references' length."""
        references = [[self._words(text) for text in row.references] for row in rows]
        information = _information([words for each in references for words in each])
        most = max(map(len, references))
        found = []
        for row, texts in zip(rows, references, strict=True):
            given = self._words(row.output)
            wanted: Counter[Gram] = Counter()
            for words in texts:
                wanted |= _grams(words)  # the largest count in any reference
            shared, total = [0.0] * _ORDER, [max(len(given) - n, 0) for n in range(_ORDER)]
            for gram, count in (_grams(given) & wanted).items():
                shared[len(gram) - 1] += count * information[gram]
            length = sum(map(len, texts)) / (most if self.mode == "perl" else len(texts))
            found.append([*shared, *total, length])
        return np.array(found)

    def score(self, sums: Floats, rows: int) -> float:
        """Equation 3."""
        shared, total, length = sums[:_ORDER], sums[_ORDER : 2 * _ORDER], sums[-1]
        if not total[0] or not length:
            return 0.0
        ratio = min(total[0] / length, 1.0)
        return float((shared / np.maximum(total, 1)).sum() * exp(_BETA * log(ratio) ** 2))

    def _words(self, text: str) -> list[str]:
        return v13a(text, lowercase=self.lowercase)


def _grams(words: Sequence[str]) -> Counter[Gram]:
    return Counter(
        tuple(words[i : i + n]) for n in range(1, _ORDER + 1) for i in range(len(words) - n + 1)
    )


def _information(texts: Sequence[Sequence[str]]) -> dict[Gram, float]:
    """The information in bits of each n-gram of the texts (equation 2)."""
    counts: Counter[Gram] = Counter()
    for words in texts:
        counts.update(_grams(words))
    counts[()] = sum(map(len, texts))
    return {gram: log2(counts[gram[:-1]] / count) for gram, count in counts.items() if gram}
