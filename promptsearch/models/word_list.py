"""The words of a pool in place of a tokenizer, for a served model that comes without one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

from promptsearch.errors import PromptError
from promptsearch.models.endpoint import estimate_tokens


class WordList:
    """Words in place of the tokens of a tokenizer, see `Tokens`; ids are places in the list.

    Args:
        words: The words of the pool, each with the space before it.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(dict.fromkeys(words))
        self._places = {word: place for place, word in enumerate(self._words)}

    @cached_property
    def hash(self) -> str:
        """20 hexadecimal digits from a SHA-256 over the words."""
        return hashlib.sha256(repr(self._words).encode()).hexdigest()[:20]

    @property
    def words(self) -> tuple[int, ...]:
        """The ids of all words."""
        return tuple(range(len(self._words)))

    @property
    def plain(self) -> tuple[int, ...]:
        """The ids of all words."""
        return self.words

    @property
    def added(self) -> frozenset[int]:
        """No ids: no word is a special token."""
        return frozenset()

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """The ids of the words in a text.

        Args:
            text: Any text.
            begins: Ignored: words are the same at every place.

        Raises:
            PromptError: A word is not in the list.
        """
        pieces = [text] if text in self._places else [f" {word}" for word in text.split()]
        if strange := next((piece for piece in pieces if piece not in self._places), None):
            raise PromptError(
                f"{strange.strip()!r} is not among the {len(self._words)} words of the pool, "
                "and without a tokenizer there are no others: take it into the pool, or give the "
                "model's 'tokenizer'"
            )
        return [self._places[piece] for piece in pieces]

    def decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of ids; `begins` is ignored, as in `encode`."""
        return "".join(self._words[i] for i in ids)

    def count(self, text: str) -> int:
        """The number of tokens that a text is charged, estimated from its bytes."""
        return estimate_tokens(text)
