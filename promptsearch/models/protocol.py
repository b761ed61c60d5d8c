"""What a study needs from any model, wherever it runs: texts go in, and scores come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from promptsearch.models.flops import Flops


class TextModel(Protocol):
    """A model that is loaded here (`LanguageModel`), or served elsewhere (`ServedModel`)."""

    @property
    def name(self) -> str:
        """The name that reports call it by."""

    @property
    def device(self) -> Any:
        """Where it runs."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensors that it gives."""

    @property
    def hash(self) -> str:
        """A name for what its scores depend on besides the text."""

    @property
    def tokenizer_hash(self) -> str:
        """A name for the way in which texts are cut, and for what an id in a prompt means."""

    @property
    def parameters(self) -> int | None:
        """The number of its weights; None where it is not known."""

    @property
    def flops(self) -> Flops | None:
        """The FLOPs of its forward pass; None where its size is not known."""

    @property
    def facts(self) -> dict[str, Any]:
        """What exports say of it, so that it can be found again."""

    @property
    def served(self) -> Mapping[str, Any] | None:
        """Where and how it is served, for records; None where it is loaded here."""

    @property
    def noise(self) -> float:
        """The error of a token's log-probability by rounding, in nats; 0 where it is not known."""

    @property
    def words(self) -> tuple[int, ...]:
        """The ids of the words that a pool may hold."""

    @property
    def plain(self) -> tuple[int, ...]:
        """The ids of all tokens that texts are made of."""

    @property
    def anew(self) -> bool:
        """Whether a text behind a special token is cut like one at the beginning of a row."""

    @property
    def added(self) -> frozenset[int]:
        """The ids that no text is meant to hold, special tokens for example."""

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """The ids of a text, which stands behind other text or (`begins`) begins a row."""

    def decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of ids, which stand behind other text or (`begins`) begin a row."""

    def count_answer(self, text: str) -> int:
        """The number of tokens that an answer's text is charged."""

    def check(self, *, gradients: bool = False) -> None:
        """Check that texts can be scored by it and, with `gradients`, prompts trained on it."""

    def check_unchanged(self) -> None:
        """Check that nothing has written to its weights."""

    def searched_in(self, dtype: str) -> torch.dtype:
        """The dtype of a search, from the `dtype` that the study asks for."""

    def room(self) -> int:
        """How many bytes keys and values may take where a study does not say."""

    def to(self, dtype: torch.dtype) -> TextModel:
        """The same model in another dtype."""
