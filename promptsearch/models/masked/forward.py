"""A masked LM's own forward: token ids to vectors, vectors to states, states to logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from promptsearch.models.attention.forest import Forest, attending
from promptsearch.models.forward import OwnForward, head_logits
from promptsearch.models.longest import first_position


class MaskedForward(OwnForward):
    """The forward of a masked LM, with its own attention or another.

    Token types, positions and norms are added to vectors by the model.

    Args:
        model: A masked LM of transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        #: The position of the first token of a row.
        self.first = first_position(model.base_model)

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

    def by_length(self, embedded: Tensor, forest: Forest) -> Tensor:
        """The same with the model's own attention: rows of one length go together.

        None is padded: what some models fold or pool beside a token would have padding in it.

        Args:
            embedded: As for `packed`.
            forest: The rows; no prefix is above them.
        """
        assert forest.visible is not None
        rows = (
            embedded[forest.order]
            if forest.order is not None
            else embedded.unflatten(0, (-1, forest.size))
        )
        # What the first token of a row sees is the row.
        lengths = forest.visible[:, 0].sum(-1)
        places, found = [], []
        with self.fast():
            for length in lengths.unique().tolist():
                places.append((lengths == length).nonzero()[:, 0])
                states = self._last(inputs_embeds=rows[places[-1], :length])
                found.append(pad(states, (0, 0, 0, forest.size - length)))
        padded = torch.cat(found)[torch.cat(places).argsort()].flatten(0, 1)
        return padded if forest.back is None else padded[forest.back]

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits in float32 from last hidden states, by the model's own head.

        Args:
            states: The last hidden states, shape `(rows, width)`.
            tokens: The tokens whose logits are wanted, shape `(tokens,)`; None for the whole
                vocabulary.

        Returns:
            The logits, shape `(rows, tokens)`.
        """
        inputs = {"inputs_embeds": states[None]}
        with self.fast():
            return head_logits(self.model, self.model.base_model, inputs, states, tokens)

    def _last(self, inputs_embeds: Tensor, **inputs: Tensor | None) -> Tensor:
        inputs["inputs_embeds"] = inputs_embeds
        states: Tensor = self.model.base_model(**inputs).last_hidden_state
        return states.to(inputs_embeds.device)  # the last layer may lie elsewhere
