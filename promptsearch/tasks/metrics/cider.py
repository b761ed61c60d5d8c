"""CIDEr-D (Vedantam et al. 2015, arXiv:1411.5726, section 5), as coco-caption computes it.

Texts are vectors of n-grams, weighted by how few rows' references have them; the score is ten times
the mean cosine of output and references, with counts clipped and other lengths punished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Literal, NamedTuple

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed
from promptsearch.tasks.metrics.tokens import ptb

_ORDER = 4
_SIGMA = 6.0

Gram = tuple[str, ...]


class _Text(NamedTuple):
    """A text as vectors.

    Args:
        weights: For each n, the weight of each n-gram.
        norms: For each n, the length of the vector.
        length: The number of its pairs of words, which stands for the text's length.
    """

    weights: list[dict[Gram, float]]
    norms: list[float]
    length: int


class Cider(Metric):
    """The mean over rows of ten times the weighted cosine of n-grams.

    The weights come from the references of all rows, so a row's score depends on the other rows:
    only scores on the same rows compare.

    Args:
        tokenize: `ptb` for words as coco-caption cuts them, `none` for texts that are cut already.
    """

    name = "cider"
    bounds = (0.0, 10.0)
    mean = True

    def __init__(self, *, tokenize: Literal["ptb", "none"] = "ptb") -> None:
        self.tokenize = tokenize

    @property
    def signature(self) -> str:
        """Says how words are cut."""
        return signed(self.name, variant="D", n=_ORDER, sigma=f"{_SIGMA:g}", tok=self.tokenize)

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The score of each row."""
        if len(rows) < 2:
            raise TaskError(
                f"the metric '{self.name}' weighs words by the rows that have them, which says "
                "nothing of one row: expected at least two"
            )
        references = [[self._grams(text) for text in row.references] for row in rows]
        frequency = Counter(gram for texts in references for gram in set().union(*texts))
        found = []
        for row, texts in zip(rows, references, strict=True):
            given = _vectors(self._grams(row.output), frequency, len(rows))
            wanted = [_vectors(grams, frequency, len(rows)) for grams in texts]
            found.append([10 * sum(_alike(given, text) for text in wanted) / len(wanted)])
        return np.array(found)

    def _grams(self, text: str) -> Counter[Gram]:
        words = ptb(text) if self.tokenize == "ptb" else text.split()
        return Counter(
            tuple(words[i : i + n]) for n in range(1, _ORDER + 1) for i in range(len(words) - n + 1)
        )


def _vectors(grams: Counter[Gram], frequency: Counter[Gram], rows: int) -> _Text:
    """Equation 2: counts times log(rows / rows whose references have the n-gram)."""
    weights: list[dict[Gram, float]] = [{} for _ in range(_ORDER)]
    for gram, count in grams.items():
        weights[len(gram) - 1][gram] = count * (log(rows) - log(max(1, frequency[gram])))
    norms = [sqrt(sum(weight**2 for weight in each.values())) for each in weights]
    return _Text(weights, norms, sum(count for gram, count in grams.items() if len(gram) == 2))


def _alike(given: _Text, wanted: _Text) -> float:
    """The mean over n of the clipped cosine (equation 4 of section 5), punished by length."""
    total = 0.0
    for mine, other, one, two in zip(
        given.weights, wanted.weights, given.norms, wanted.norms, strict=True
    ):
        if one and two:
            product = sum(
                min(weight, other[gram]) * other[gram]
                for gram, weight in mine.items()
                if gram in other
            )
            total += product / (one * two)
    return total / _ORDER * exp(-((given.length - wanted.length) ** 2) / (2 * _SIGMA**2))
