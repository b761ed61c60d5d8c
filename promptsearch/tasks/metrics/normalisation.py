"""What counts as the same text: how answers are made alike before they are compared."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from promptsearch.tasks.metrics.metric import Answered, Metric, signed

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.IGNORECASE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Normalised(Metric):
    """A metric that compares normalised texts.

    Whitespace at both ends never counts, and other whitespace counts as one space. With `lowercase`
    and without the other two, this is the normalisation of SQuAD (Rajpurkar et al. 2016,
    arXiv:1606.05250, section 6.1).

    Args:
        lowercase: Whether case does not count.
        punctuation: Whether ASCII punctuation counts.
        articles: Whether the words a, an and the count.
    """

    mean = True

    def __init__(
        self, *, lowercase: bool = False, punctuation: bool = True, articles: bool = True
    ) -> None:
        self.lowercase, self.punctuation, self.articles = lowercase, punctuation, articles

    @property
    def signature(self) -> str:
        """Says what counts."""
        return signed(
            self.name,
            case="lc" if self.lowercase else "mixed",
            punct="yes" if self.punctuation else "no",
            articles="yes" if self.articles else "no",
        )

    def normal(self, text: str) -> str:
        """The text as it is compared."""
        text = text.lower() if self.lowercase else text
        text = text if self.punctuation else text.translate(_PUNCTUATION)
        text = text if self.articles else _ARTICLES.sub(" ", text)
        return " ".join(text.split())

    def wanted(self, row: Answered) -> Iterator[str]:
        """The texts that count as right, as they are compared."""
        return map(self.normal, row.references)

    def feedback(self, row: Answered) -> str:
        """A right answer, where the given one does not fully count."""
        if self.statistics([row])[0, 0] == 1:
            return ""
        return f"expected {row.references[0]!r}, got {row.output!r}"
