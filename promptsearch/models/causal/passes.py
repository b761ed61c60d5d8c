"""The passes through a causal LM, and what it can take in them.

Passes take a *forest*: trees of tokens, which may share a *trunk* whose keys and values an earlier
pass made (see `attention.forest`). Gated prompts stand *beside* the text (see `attention.gated`).
What a model can do is tried out once, when it is first needed (see `causal.trials`).
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
from promptsearch.models.attention.forest import Forest, chains
from promptsearch.models.attention.gated import Adaption, project
from promptsearch.models.attention.layers import Layers, UnknownLayers
from promptsearch.models.causal.forward import Forward
from promptsearch.models.causal.trials import check_path, try_layers, try_trees
from promptsearch.models.longest import longest_row
from promptsearch.models.own_passes import OwnPasses
from promptsearch.models.products import fast_products


class CausalPasses(OwnPasses[Forward]):
    """The passes through a causal LM, see `promptsearch.models.family.Passes`.

    Args:
        model: A causal LM of transformers.
        name: The name of the model, for messages.
        lead: The special tokens before every text.
    """

    def __init__(self, model: Any, name: str, lead: Sequence[int]) -> None:
        super().__init__(Forward(model), name, lead)

    # What the model can take.

    @cached_property
    def trees(self) -> bool:
        """Whether rows can share what they begin with, tried out against the model's own forward.

        A warning says why where they cannot: each row is then computed whole.
        """
        return self._tried(
            lambda: try_trees(self._forward, self._probe),
            "rows cannot share what they begin with ({}); each is computed whole",
        )

    @cached_property
    def layers(self) -> Layers:
        """The layers one by one, tried out against the model's own forward.

        Raises:
            ModelError: The layers cannot be told apart, or their projections are not known.
        """

        def explain(error: BaseException) -> ModelError:
            named = not isinstance(error, UnknownLayers)
            fault = f"{type(error).__name__}: {error}" if named else str(error)
            return ModelError(
                f"the model '{self._name}' takes no gated prompt: {fault[:200]}. "
                "Take prompts that fill slots, or prefixes"
            )

        with strangers(explain):
            if not self.trees:
                raise UnknownLayers("its attention cannot be exchanged")
            layers = try_layers(self._forward, self._probe, self.recorded)
        return layers

    @cached_property
    def recorded(self) -> Forest:
        """The recorded pass of one token."""
        device = self._forward.embeddings.device
        forest = chains([1], device)
        forest.record = True
        with torch.inference_mode():
            self._forward.packed(self.embed(torch.tensor(self._probe[:1], device=device)), forest)
        return forest

    @cached_property
    def prefix_shape(self) -> tuple[int, int, int, int]:
        """The shape of one token in a prefix, `(layers, 2, key heads, size of a head)`.

        The 2 are keys, then values.

        Raises:
            ModelError: Rows of this model cannot begin with given keys and values, or the keys and
                values of its layers differ in size.
        """
        heads = self.heads if self.trees else []
        if len(set(heads)) != 1:
            sizes = ", ".join(f"{count} heads of {size}" for count, size in sorted(set(heads)))
            reason = (
                f"its layers have keys of different sizes ({sizes})"
                if heads
                else "its rows cannot begin with given keys"
            )
            raise ModelError(
                f"the model '{self._name}' takes no prefix: {reason}. Take prompts that fill slots"
            )
        return len(heads) // 2, 2, *heads[0]

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The largest shape of gated prompts: `(layers, heads, width)`.

        Raises:
            ModelError: The model takes no gated prompts.
        """
        return len(self.layers), self.layers.heads, self._forward.embeddings.shape[1]

    @property
    def context(self) -> int | None:
        """The longest text in tokens; None where the model names no limit."""
        return longest_row(self._forward.model.config)

    def check(self, *, gradients: bool = False) -> None:
        """Compare our path through the model with its own forward, in its dtype.

        Args:
            gradients: Whether prompts are trained on it, so that gradients must reach what enters
                the layers.

        Raises:
            ModelError: The two differ, since the architecture does something between layers and
                logits that is not known here; or it is no causal LM, or cannot be computed in this
                dtype.
        """
        check_path(self._forward, self._probe, self._name, gradients=gradients)

    # From ids to logits.

    def hidden(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of one pass.

        Args:
            embedded: All tokens of the pass, one tree after the other, shape `(tokens, width)`.
            forest: Which token sees which. Where `trees` is False, it must be rows without branches
                and trunks.

        Returns:
            The states, shape `(tokens, width)`.
        """
        if forest.trunk is not None:  # of all layers, or of the top-most
            forest.first = forest.trunk.values - self.values
        if self.trees:
            return self._forward.packed(embedded, forest)
        # The rows are padded to the right and need no mask: under causal attention no token sees
        # the padding behind it.
        rows = (
            embedded[forest.order]
            if forest.order is not None
            else embedded.unflatten(0, (-1, forest.size))
        )
        states = self._forward.rows(rows).flatten(0, 1)
        return states if forest.back is None else states[forest.back]

    def entering(self, layer: int, embedded: Tensor, forest: Forest) -> Tensor:
        """The hidden states that enter a layer, see `Forward.entering`."""
        return self._forward.entering(self.layers, layer, embedded, forest)

    def above(self, layer: int, states: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of a pass that begins at a layer, see `Forward.above`."""
        return self._forward.above(self.layers, layer, states, forest)

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states, see `Forward.logits`."""
        return self._forward.logits(states, tokens)

    def fast(self) -> AbstractContextManager[None]:
        """A context in which passes are faster, and their numbers others within rounding."""
        return fast_products(self._forward.model)

    # Prompts that stand in no slot.

    def adaption(self, prompts: Sequence[tuple[Tensor, Tensor]]) -> Adaption:
        """Gated prompts as the layers attend to them; gradients flow back.

        Args:
            prompts: The vectors and the gates of each prompt, see `GatedPrompt`.

        Raises:
            ModelError: The model takes no gated prompts.
        """
        return project(self.layers, prompts, self._forward.embeddings)

    def cache(self, keys_values: Tensor) -> Any:
        """Given keys and values as a cache of `transformers`, for a row that goes on behind them.

        Args:
            keys_values: The keys and values, shape `(layers, 2, key heads, tokens, size of a
                head)`.
        """
        from transformers import DynamicCache

        return DynamicCache(self.cached(keys_values), config=self._forward.model.config)
