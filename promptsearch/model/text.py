"""What a study needs of any model: text goes in, and how well it answers comes out, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch


class TextModel(Protocol):
    """A model that is loaded here (`LanguageModel`), or served elsewhere (`ServedModel`)."""

    @property
    def name(self) -> str:
        """What to call it in reports."""

    @property
    def device(self) -> Any:
        """Where it runs."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what it hands out."""

    @property
    def hash(self) -> str:
        """Names what its scores depend on besides the text."""

    @property
    def tokenizer_hash(self) -> str:
        """Names how texts are cut, and what an id of a prompt means."""

    @property
    def parameters(self) -> int | None:
        """The number of its weights; None where it is not known."""

    @property
    def facts(self) -> dict[str, Any]:
        """What names it in exports, and finds it again."""

    @property
    def served(self) -> Mapping[str, Any] | None:
        """Where and how it is served, for records; None: it is loaded here."""

    @property
    def noise(self) -> float:
        """What rounding does to a token's log-probability, in nats; 0 where that is not known."""

    @property
    def words(self) -> tuple[int, ...]:
        """Ids of the words that a pool may hold."""

    @property
    def plain(self) -> tuple[int, ...]:
        """Ids of all tokens that texts are made of."""

    @property
    def anew(self) -> bool:
        """Whether a text behind a special token is cut like one at the beginning of a row."""

    @property
    def added(self) -> frozenset[int]:
        """Ids that no text is meant to hold, special tokens for example."""

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """The ids of a text: behind other text, or at the beginning of a row."""

    def decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of ids: behind other text, or at the beginning of a row."""

    def count(self, text: str) -> int:
        """The tokens of a text, as they are charged."""

    def check(self, *, gradients: bool = False) -> None:
        """See that it can be scored, and trained on."""

    def check_unchanged(self) -> None:
        """See that nothing has written to it."""

    def searched_in(self, dtype: str) -> torch.dtype:
        """The dtype of a search, of the one that a study asks for."""

    def room(self) -> int:
        """Bytes for keys and values, where a study does not say."""

    def to(self, dtype: torch.dtype) -> TextModel:
        """The same model in another dtype."""
