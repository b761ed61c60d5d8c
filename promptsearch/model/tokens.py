"""A tokenizer, as prompts need it: with a model that is loaded here, or for one that is not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from promptsearch.errors import ModelError


class Tokens:
    """The tokens of a tokenizer of transformers.

    Args:
        tokenizer: As `transformers.AutoTokenizer` loads it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @staticmethod
    def load(name: str) -> Tokens:
        """A tokenizer alone.

        Args:
            name: A Hub name or a folder.

        Raises:
            ModelError: It cannot be found or loaded.
        """
        import transformers

        try:
            return Tokens(transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False))
        except (OSError, ValueError, ImportError, KeyError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(f"cannot load the tokenizer '{name}': {reason} Expected a folder, or a name on the Hub.") from error

    @cached_property
    def hash(self) -> str:
        """20 hexadecimal digits of a SHA-256 of the vocabulary and of how it cuts a probe text."""
        probe = self._tokenizer("A probe, 123: it's naïve\n  to ask?").input_ids
        content = repr(sorted(self._tokenizer.get_vocab().items())) + repr(list(probe)) + repr(self.lead)
        return hashlib.sha256(content.encode()).hexdigest()[:20]

    @cached_property
    def lead(self) -> tuple[int, ...]:
        """The special tokens that it puts before every text."""
        with_specials = list(self._tokenizer("a").input_ids)
        plain = list(self._tokenizer("a", add_special_tokens=False).input_ids)
        return tuple(with_specials[: with_specials.index(plain[0])]) if plain else ()

    @cached_property
    def added(self) -> frozenset[int]:
        """Ids of special tokens and of others that were added to the vocabulary: no text is meant to hold them."""
        return frozenset(self._tokenizer.added_tokens_decoder)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens; marks of special tokens in the text stay plain text."""
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, exactly."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def words(self, below: int | None = None) -> tuple[int, ...]:
        """Ids of the tokens that begin a word and are nothing else, see `LanguageModel.words`.

        Args:
            below: The first id that the model has no embedding of; None: it has all.
        """
        known = self._tokenizer.get_vocab().values()
        ids = [i for i in known if i not in self.added and (below is None or i < below)]
        texts = zip(ids, self._tokenizer.batch_decode([[i] for i in ids]), strict=True)
        found = [i for i, text in texts if text[:1] == " " and text[1:].isascii() and text[1:].isalpha()]
        return tuple(sorted(found))
