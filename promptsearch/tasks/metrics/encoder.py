"""What metrics over an encoder ask of it; which one it is, is handed in from outside."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from math import log
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed


class Encoded(Protocol):
    """A text as an encoder sees it."""

    @property
    def states(self) -> NDArray[np.float32]:
        """A vector for each token, shape `(tokens, width)`."""
        ...

    @property
    def ids(self) -> NDArray[np.int64]:
        """The tokens' ids, shape `(tokens,)`."""
        ...

    @property
    def pieces(self) -> tuple[str, ...]:
        """The tokens as the tokenizer writes them."""
        ...

    @property
    def begins(self) -> NDArray[np.bool_]:
        """Whether each token begins a word, shape `(tokens,)`."""
        ...

    @property
    def special(self) -> NDArray[np.bool_]:
        """Whether each token is one that the tokenizer adds, shape `(tokens,)`."""
        ...


class Encoder(Protocol):
    """A model that gives each token of a text a vector."""

    @property
    def signature(self) -> str:
        """Which model it is, down to its weights, and which of its layers, in one word."""
        ...

    def states(self, texts: Sequence[str]) -> Sequence[Encoded]:
        """Each text as tokens with their states.

        Args:
            texts: The texts, which may be empty.
        """
        ...


class OverEncoder(Metric):
    """A metric that compares texts by an encoder's states.

    Whoever reads the study file makes the encoder of the options and hands it in by `over`.

    Args:
        encoder: The encoder's name on the Hub, or its folder.
        layer: The layer whose states count, from 0, the embeddings; negative ones count from the
            last.
        idf: Whether tokens count more that few rows' references have.
    """

    alone = False

    def __init__(self, *, encoder: str, layer: int = -1, idf: bool = False) -> None:
        self.encoder, self.layer, self.idf = encoder, layer, idf
        self._over: Encoder | None = None

    @property
    def signature(self) -> str:
        """Says which encoder it is over."""
        over = self._over.signature if self._over else f"{self.encoder}-L{self.layer}"
        return signed(self.name, encoder=over, idf="yes" if self.idf else "no", refs="max")

    def over(self, encoder: Encoder) -> Self:
        """The same metric over this encoder.

        Args:
            encoder: What the option `encoder` names.
        """
        self._over = encoder
        return self

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The best score over the references."""
        if self._over is None:
            raise TaskError(
                f"the metric '{self.name}' has no encoder: make it of the option 'encoder', and "
                "hand it in by `over`"
            )
        texts = dict.fromkeys(text for row in rows for text in (row.output, *row.references))
        known = dict(zip(texts, self._over.states(list(texts)), strict=True))
        references = [[known[text] for text in row.references] for row in rows]
        weights = _weights(references, self.idf)
        return np.array(
            [
                [max(self.alike(known[row.output], each, weights) for each in wanted)]
                for row, wanted in zip(rows, references, strict=True)
            ]
        )

    @abstractmethod
    def alike(self, given: Encoded, wanted: Encoded, weights: Weights) -> float:
        """How alike an output and a reference are.

        Args:
            given: The output.
            wanted: The reference.
            weights: The weights of tokens.
        """


class Weights(NamedTuple):
    """The weights of tokens: log((rows + 1) / (rows that have it + 1)), or 1 for all.

    Args:
        rows: The number of texts that were counted; None where all tokens weigh the same.
        having: Token id -> the number of these texts that have it.
    """

    rows: int | None
    having: Counter[int]

    def of(self, text: Encoded) -> Floats:
        """The weight of each token of a text, 0 for special ones, shape `(tokens,)`."""
        if self.rows is None:
            return (~text.special).astype(np.float64)
        found = [log((self.rows + 1) / (self.having[token] + 1)) for token in text.ids.tolist()]
        return np.where(text.special, 0.0, found)


def _weights(references: Sequence[Sequence[Encoded]], idf: bool) -> Weights:
    if not idf:
        return Weights(None, Counter())
    texts = [text for each in references for text in each]
    having = Counter(token for text in texts for token in set(text.ids.tolist()))
    return Weights(len(texts), having)
