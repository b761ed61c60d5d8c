"""What the passes of all families have in common, see `promptsearch.models.family.Passes`."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar, Generic, NoReturn, TypeVar

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.attention.across import Across
from promptsearch.models.attention.forest import Forest, UnknownAttention
from promptsearch.models.attention.gated import Adaption
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.layers import Layers
from promptsearch.models.forward import OwnForward

log = logging.getLogger(__name__)
F = TypeVar("F", bound=OwnForward)


class OwnPasses(ABC, Generic[F]):
    """The passes through a model.

    Args:
        forward: The model's own forward.
        name: The name of the model, for messages.
        around: The special tokens of every text, before and behind which other ids stand: a row to
            try the model out with.
    """

    def __init__(self, forward: F, name: str, *around: Sequence[int]) -> None:
        self._forward, self._name = forward, name
        rows = len(forward.embeddings)
        before, *behind = around
        self._probe = (
            *before,
            *(i * rows // 8 for i in range(1, 8)),
            *(i for some in behind for i in some),
        )

    @property
    def start(self) -> tuple[int, ...]:
        """The ids with which a decoder begins an answer; none where there is none."""
        return ()

    @property
    @abstractmethod
    def recorded(self) -> Forest:
        """A recorded pass."""

    @property
    def heads(self) -> Sequence[tuple[int, int]]:
        """For each layer's keys and values in turn, how many heads, and the size of a head."""
        return self.recorded.heads

    @cached_property
    def kept(self) -> KeysValues:
        """The keys and values of no tokens, each where its layer lies."""
        return self.recorded.recorded[:0]

    @property
    def values(self) -> int:
        """The number of numbers in one token's keys and values, in all layers together."""
        return self.kept.values

    def place(self, rows: Tensor) -> KeysValues:
        """Given keys and values, each where its layer lies; gradients flow back.

        Args:
            rows: Those of any tokens in all layers, or in the top-most ones only, shape
                `(tokens, values)`; of a model whose rows share nothing, `(0, 0)`.
        """
        return self.kept.like(rows) if rows.shape[1] else KeysValues((rows,))

    @property
    @abstractmethod
    def prefix_shape(self) -> tuple[int, int, int, int]:
        """The shape of one token in a prefix."""

    @property
    def prefix_layers(self) -> tuple[int, ...]:
        """The numbers of layers that a prefix may have: all of them, or any of the top-most."""
        return tuple(range(self.prefix_shape[0], 0, -1))

    def cached(self, keys_values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Given keys and values as layers of a cache of `transformers`, each where its layer lies.

        Args:
            keys_values: Shape `(layers, 2, key heads, tokens, size of a head)`.
        """
        own = self.place(keys_values.permute(3, 0, 1, 2, 4).flatten(1)).layers(self.heads)
        return [
            (keys[None], values[None]) for keys, values in zip(own[::2], own[1::2], strict=True)
        ]

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids as the layers take them, shape `(..., width)`.

        Args:
            ids: Token ids, shape `(...)`.
        """
        return self._forward.embed(ids)

    @cached_property
    def vocabulary(self) -> Tensor:
        """Every token as the layers take it, shape `(vocabulary, width)`.

        These are the embeddings or, as in Gemma 3 and BART, the embeddings scaled.
        """
        plain = self._forward.embeddings
        probe = torch.arange(2, device=plain.device)
        with torch.no_grad():
            if torch.equal(self.embed(probe), plain[probe]):
                return plain
            return self.embed(torch.arange(len(plain), device=plain.device))

    def read(self, embedded: Tensor, rows: Forest) -> Across:
        """No rows for a decoder: there is none.

        Raises:
            ModelError: Always.
        """
        raise ModelError(f"the model '{self._name}' has no decoder that could read rows")

    def _tried(self, trial: Callable[[], None], fails: str) -> bool:
        """Whether a trial of the model succeeds; a warning says why where it does not.

        Args:
            trial: Raises where it does not succeed.
            fails: What cannot be done then, and what is done instead, with `{}` for the reason.
        """

        def explain(error: BaseException) -> UnknownAttention:
            named = not isinstance(error, UnknownAttention)
            return UnknownAttention(f"{type(error).__name__}: {error}" if named else str(error))

        try:
            with strangers(explain):
                trial()
        except UnknownAttention as fault:
            log.warning("%s: %s", self._name, fails.format(str(fault)[:200]))
            return False
        return True


class UngatedPasses(OwnPasses[F]):
    """The passes through a model whose layers take no gated prompts."""

    #: No row shares what it begins with: what stands there depends on what follows.
    trees = False
    #: What kind of model it is, for messages.
    noun: ClassVar[str]

    @property
    def layers(self) -> Layers:
        """No layers that gated prompts could be projected by."""
        self._refuse_gated()

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """No shape: the layers take no gated prompts."""
        self._refuse_gated()

    def entering(self, layer: int, embedded: Tensor, forest: Forest) -> Tensor:
        """No states: the layers take no gated prompts."""
        self._refuse_gated()

    def above(self, layer: int, states: Tensor, forest: Forest) -> Tensor:
        """No states: the layers take no gated prompts."""
        self._refuse_gated()

    def adaption(self, prompts: Sequence[tuple[Tensor, Tensor]]) -> Adaption:
        """No adaption: the layers take no gated prompts."""
        self._refuse_gated()

    def _refuse_gated(self) -> NoReturn:
        raise ModelError(
            f"the model '{self._name}' is {self.noun} one and takes no gated prompt. "
            "Take prompts that fill slots, or prefixes"
        )
