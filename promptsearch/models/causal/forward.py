"""A causal LM's own forward: token ids to vectors, vectors to states, states to logits."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor

from promptsearch.models.attention.forest import Forest, attending
from promptsearch.models.attention.layers import Layers, Reached, UnknownLayers
from promptsearch.models.forward import OwnForward, few_logits


class Forward(OwnForward):
    """The forward of a model, whole or through some layers, with its own attention or another.

    Args:
        model: A causal LM of transformers.
    """

    def rows(self, embedded: Tensor) -> Tensor:
        """The last hidden states of rows, with the model's own attention.

        Args:
            embedded: The rows, shape `(rows, tokens, width)`.

        Returns:
            The states, shape `(rows, tokens, width)`.
        """
        return self._last(inputs_embeds=embedded)

    def packed(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of one pass, with the attention of `attention.forest`.

        Args:
            embedded: All tokens of the pass, one tree after the other, shape `(tokens, width)`.
            forest: Which token sees which, and which gated prompt each tree attends to.

        Returns:
            The states, shape `(tokens, width)`.
        """
        with ExitStack() as stack:
            stack.enter_context(attending(self.model, forest))
            if (beside := forest.adaption) is not None:
                join = lambda later: forest.gather(later).flatten(1)[None]  # noqa: E731
                stack.enter_context(beside.added_behind(join))
            return self._last(inputs_embeds=embedded[None], position_ids=forest.positions[None])[0]

    def entering(self, layers: Layers, layer: int, embedded: Tensor, forest: Forest) -> Tensor:
        """The hidden states that enter a layer; it and the layers above it are not computed.

        Args:
            layers: The model's layers.
            layer: The number of the layer.
            embedded: As for `packed`.
            forest: Which token sees which.

        Returns:
            The states, shape `(tokens, width)`.
        """
        with layers.ending(layer):
            try:
                self.packed(embedded, forest)
            except Reached as reached:
                return reached.states[0].to(embedded.device)
        raise UnknownLayers(f"no pass goes through its layer {layer}")

    def above(self, layers: Layers, layer: int, states: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of a pass that begins at a layer, with the states that enter it.

        The layers below it are not computed.

        Args:
            layers: The model's layers.
            layer: The number of the layer.
            states: The states as `entering` gives them, shape `(tokens, width)`.
            forest: Which token sees which, and which gated prompt each tree attends to.

        Returns:
            The states, shape `(tokens, width)`.
        """
        with layers.beginning(layer, states[None]):
            return self.packed(states, forest)

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states.

        Args:
            states: The last hidden states, shape `(rows, width)`.
            tokens: The tokens whose logits are wanted, shape `(tokens,)`; None for the whole
                vocabulary.

        Returns:
            The logits, shape `(rows, tokens)`, where the states lie.
        """
        head = self.model.get_output_embeddings()
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        if tokens is None:
            # The last states may have another dtype than the head, as Mamba's have.
            found = head(states.to(head.weight.dtype)).float()
        else:
            found = few_logits(head, states, tokens)
        logits: Tensor = found if cap is None else cap * torch.tanh(found / cap)
        return logits.to(states.device)

    def _last(self, inputs_embeds: Tensor, **inputs: Tensor) -> Tensor:
        inputs["inputs_embeds"] = inputs_embeds
        states: Tensor = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        return states.to(inputs_embeds.device)  # the last layer may lie elsewhere
