"""The passes through a masked LM, and what it can take in them.

A token sees its whole row, so rows share nothing: each is computed whole. Many rows go through the
LM in one pass, one after the other without padding, and each sees only itself. A prefix stands in
front of a row as keys and values that all of its tokens see; the row's positions follow those of
the prefix, as in P-tuning v2 (Liu et al. 2021, arXiv:2110.07602, and its code).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.importing import strangers
from promptsearch.models.attention.forest import Forest, UnknownAttention
from promptsearch.models.attention.rows import rows_of
from promptsearch.models.longest import longest_row
from promptsearch.models.masked.forward import MaskedForward
from promptsearch.models.masked.trials import check_head, try_packing, try_prefix
from promptsearch.models.own_passes import UngatedPasses


class MaskedPasses(UngatedPasses[MaskedForward]):
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
        super().__init__(MaskedForward(model), name, lead, (mask, *close))

    #: What kind of model it is, for messages.
    noun = "a masked"

    @cached_property
    def packs(self) -> bool:
        """Whether rows go through the LM without padding, tried out against its own forward.

        A warning says why where they do not: those of one length go together then.
        """
        return self._tried(
            lambda: try_packing(self._forward, self._probe),
            "rows of several lengths cannot go together ({}); those of one length do",
        )

    @cached_property
    def recorded(self) -> Forest:
        """A recorded pass of one row."""
        device = self._forward.embeddings.device
        forest = rows_of([len(self._probe)], device)
        forest.record = True
        with torch.inference_mode():
            self._forward.packed(self.embed(torch.tensor(self._probe, device=device)), forest)
        return forest

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
        hidden = self._forward.packed if self.packs else self._forward.by_length
        check_head(self._forward, hidden, self._probe, self._name, gradients=gradients)

    # From ids to logits.

    def hidden(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of one pass.

        Args:
            embedded: All tokens of the pass, one row after the other, shape `(tokens, width)`.
            forest: The rows, each of which sees all of itself.

        Returns:
            The states, shape `(tokens, width)`.
        """
        if forest.trunk is not None:  # of all layers, or of the top-most
            forest.first = forest.trunk.values - self.values
        return (
            self._forward.packed(embedded, forest)
            if self.packs
            else self._forward.by_length(embedded, forest)
        )

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states, see `MaskedForward.logits`."""
        return self._forward.logits(states, tokens)

    def fast(self) -> AbstractContextManager[None]:
        """A context in which passes are faster, as all are that need no gradients."""
        found: AbstractContextManager[None] = self._forward.fast()
        return found

    # Prompts that stand in no slot.

    def cache(self, keys_values: Tensor) -> Any:
        """Given keys and values as a cache of `transformers`, for a row behind them.

        Args:
            keys_values: The keys and values, shape `(layers, 2, heads, tokens, size of a head)`.
        """
        from transformers import DynamicCache

        return DynamicCache(self.cached(keys_values))
