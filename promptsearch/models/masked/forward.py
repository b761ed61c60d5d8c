"""A masked LM's own forward: token ids to vectors, vectors to states, states to logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from promptsearch.models.attention.forest import Forest, attending
from promptsearch.models.attention.layers import Reached
from promptsearch.models.products import fast_products


class MaskedForward:
    """The forward of a masked LM, with its own attention or another.

    Vectors are those that token ids become in the model's embedding table: token types, positions
    and norms are added by the model behind it.

    Args:
        model: A masked LM of transformers.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        #: The position of the first token of a row: RoBERTa and its relatives begin to count behind
        #: the position of padding.
        self.first = 0
        table: Any = getattr(model.base_model, "embeddings", None)
        if hasattr(table, "create_position_ids_from_input_ids"):
            self.first = int(table.padding_idx) + 1

    @property
    def embeddings(self) -> Tensor:
        """The input embeddings, shape `(vocabulary, width)`."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of token ids, shape `(..., width)`.

        Args:
            ids: Token ids, shape `(...)`.
        """
        vectors: Tensor = self.model.get_input_embeddings()(ids)
        return vectors

    def packed(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The last hidden states of one pass, its rows one after the other, without padding.

        Args:
            embedded: All tokens of the pass, shape `(tokens, width)`.
            forest: The rows, each of which sees all of itself, and the prefixes above them.

        Returns:
            The states, shape `(tokens, width)`.
        """
        positions = (forest.positions + self.first)[None]
        with attending(self.model, forest), self.fast():
            return self._last(inputs_embeds=embedded[None], position_ids=positions)[0]

    def padded(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The same, row by row with padding, with the model's own attention.

        Args:
            embedded: As for `packed`.
            forest: The rows; no prefix is above them.
        """
        rows = (
            embedded[forest.order]
            if forest.order is not None
            else embedded.unflatten(0, (-1, forest.size))
        )
        # What the first token of a row sees is the row.
        seen = None if forest.visible is None else forest.visible[:, 0].long()
        with self.fast():
            states = self._last(inputs_embeds=rows, attention_mask=seen).flatten(0, 1)
        return states if forest.back is None else states[forest.back]

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states, by the model's own head.

        Args:
            states: The last hidden states, shape `(rows, width)`.
            tokens: The tokens whose logits are wanted, shape `(tokens,)`; None for the whole
                vocabulary.

        Returns:
            The logits, shape `(rows, tokens)`.
        """
        with self._knowing(states), self.fast():
            if tokens is None:
                every: Tensor = self.model(inputs_embeds=states[None]).logits[0].float()
                return every
            head = self.model.get_output_embeddings()
            with head.register_forward_pre_hook(_stop):
                try:
                    self.model(inputs_embeds=states[None])
                except Reached as reached:
                    found: Tensor = reached.states[0].float() @ head.weight[tokens].float().T
                    return found if head.bias is None else found + head.bias[tokens].float()
        return self.logits(states)[:, tokens]  # the head's weights are used in another way

    def fast(self) -> Any:
        """A context in which products are faster; where gradients are wanted, it does nothing."""
        return nullcontext() if torch.is_grad_enabled() else fast_products(self.model)

    def _last(self, **inputs: Tensor | None) -> Tensor:
        states: Tensor = self.model.base_model(**inputs).last_hidden_state
        return states

    @contextmanager
    def _knowing(self, states: Tensor) -> Iterator[None]:
        """A context in which the last hidden states are given, so that only the head computes."""
        from transformers.modeling_outputs import BaseModelOutput

        own = vars(self.model.base_model)
        before = {"forward": own["forward"]} if "forward" in own else {}
        own["forward"] = lambda *args, **given: BaseModelOutput(last_hidden_state=states[None])
        try:
            yield
        finally:
            own.pop("forward")
            own.update(before)


def _stop(module: Any, inputs: tuple[Tensor, ...]) -> None:
    raise Reached(inputs[0])
