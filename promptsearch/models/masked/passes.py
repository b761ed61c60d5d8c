"""The passes through a masked LM, and what it can take in them.

A token sees its whole row, so rows share nothing: each is computed whole. Many rows go through the
LM in one pass, one after the other without padding, and each sees only itself. A prefix stands in
front of a row as keys and values that all of its tokens see; the row's positions follow those of
the prefix, as in P-tuning v2 (Liu et al. 2021, arXiv:2110.07602, and its code).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.attention.forest import Forest, UnknownAttention
from promptsearch.models.attention.gated import Adaption
from promptsearch.models.attention.layers import Layers
from promptsearch.models.attention.rows import rows_of
from promptsearch.models.longest import longest_row
from promptsearch.models.masked.forward import MaskedForward
from promptsearch.models.masked.trials import check_head, try_packing, try_prefix

log = logging.getLogger(__name__)


class MaskedPasses:
    """The passes through a masked LM, see `promptsearch.models.family.Passes`.

    Args:
        model: A masked LM of transformers.
        name: The name of the model, for messages.
        lead: The special tokens before every text.
        close: The special tokens behind every text.
        mask: The id of the token that stands for a token of an answer.
    """

    def __init__(
        self, model: Any, name: str, lead: Sequence[int], close: Sequence[int], mask: int
    ) -> None:
        self._forward = MaskedForward(model)
        self._name = name
        rows = len(self._forward.embeddings)
        # A row to try the model out with.
        self._probe = (*lead, *(i * rows // 8 for i in range(1, 8)), mask, *close)

    #: No row shares what it begins with: what stands there depends on what follows.
    trees = False

    @cached_property
    def packs(self) -> bool:
        """Whether rows go through the LM without padding, tried out against its own forward.

        A warning says why where they do not: they are padded then.
        """

        def explain(error: BaseException) -> UnknownAttention:
            named = not isinstance(error, UnknownAttention)
            return UnknownAttention(f"{type(error).__name__}: {error}" if named else str(error))

        try:
            with strangers(explain):
                try_packing(self._forward, self._probe)
        except UnknownAttention as fault:
            log.warning(
                "%s: rows cannot be packed without padding (%s); they are padded",
                self._name,
                str(fault)[:200],
            )
            return False
        return True

    @property
    def layers(self) -> Layers:
        """No layers that gated prompts could be projected by."""
        self._refuse_gated()

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """No shape: the layers take no gated prompts."""
        self._refuse_gated()

    @cached_property
    def _recorded(self) -> Forest:
        """A recorded pass of one row."""
        device = self._forward.embeddings.device
        forest = rows_of([len(self._probe)], device)
        forest.record = True
        with torch.inference_mode():
            self._forward.packed(self.embed(torch.tensor(self._probe, device=device)), forest)
        return forest

    @property
    def heads(self) -> Sequence[tuple[int, int]]:
        """For each layer's keys and values in turn, how many heads, and the size of a head."""
        return self._recorded.heads

    @cached_property
    def values(self) -> int:
        """The number of numbers in one token's keys and values, in all layers together."""
        return self._recorded.recorded.shape[1]

    @cached_property
    def prefix_shape(self) -> tuple[int, int, int, int]:
        """The shape of one token in a prefix, `(layers, 2, heads, size of a head)`.

        Layers that share their weights, as ALBERT's do, have keys and values of their own.

        Raises:
            ModelError: Rows of this model cannot stand behind given keys and values.
        """

        def explain(error: BaseException) -> ModelError:
            return ModelError(
                f"the model '{self._name}' takes no prefix: {str(error)[:200]}. "
                "Take prompts that fill slots"
            )

        with strangers(explain):
            if not self.packs:
                raise UnknownAttention("its attention cannot be exchanged")
            try_prefix(self._forward, self._probe)
        return len(self.heads) // 2, 2, *self.heads[0]

    @property
    def context(self) -> int | None:
        """The longest row in tokens; None where the model names no limit."""
        limit = longest_row(self._forward.model.config)
        return None if limit is None else limit - self._forward.first

    def check(self, *, gradients: bool = False) -> None:
        """Compare our path through the model with its own forward, in its dtype.

        Args:
            gradients: Whether prompts are trained on it, so that gradients must reach what enters
                the layers.

        Raises:
            ModelError: The two differ, or the model cannot be computed in this dtype.
        """
        hidden = self._forward.packed if self.packs else self._forward.padded
        check_head(self._forward, hidden, self._probe, self._name, gradients=gradients)

    # From ids to logits.

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids, shape `(..., width)`.

        Args:
            ids: Token ids, shape `(...)`.
        """
        return self._forward.embed(ids)

    def hidden(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of one pass.

        Args:
            embedded: All tokens of the pass, one row after the other, shape `(tokens, width)`.
            forest: The rows, each of which sees all of itself.

        Returns:
            The states, shape `(tokens, width)`.
        """
        return (
            self._forward.packed(embedded, forest)
            if self.packs
            else self._forward.padded(embedded, forest)
        )

    def entering(self, layer: int, embedded: Tensor, forest: Forest) -> Tensor:
        """No states: the layers take no gated prompts."""
        self._refuse_gated()

    def above(self, layer: int, states: Tensor, forest: Forest) -> Tensor:
        """No states: the layers take no gated prompts."""
        self._refuse_gated()

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states, see `MaskedForward.logits`."""
        return self._forward.logits(states, tokens)

    def fast(self) -> AbstractContextManager[None]:
        """A context in which passes are faster, as all are that need no gradients."""
        found: AbstractContextManager[None] = self._forward.fast()
        return found

    # Prompts that stand in no slot.

    def adaption(self, prompts: Sequence[tuple[Tensor, Tensor]]) -> Adaption:
        """No adaption: the layers take no gated prompts."""
        self._refuse_gated()

    def cache(self, keys_values: Tensor) -> Any:
        """Given keys and values as a cache of `transformers`, for a row behind them.

        Args:
            keys_values: The keys and values, shape `(layers, 2, heads, tokens, size of a head)`.
        """
        from transformers import DynamicCache

        layers = keys_values.to(self._forward.embeddings)
        return DynamicCache([(keys[None], values[None]) for keys, values in layers])

    def _refuse_gated(self) -> NoReturn:
        raise ModelError(
            f"the model '{self._name}' is a masked one and takes no gated prompt. "
            "Take prompts that fill slots, or prefixes"
        )
