"""Attention across: each tree of a decoder reads a row of the encoder.

The encoder's rows lie one after the other in one pass, and so do the decoder's trees; the keys and
values of a row are projected once for all branches of its tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.moved import Moved


class Rows(Protocol):
    """The rows of an encoder as `Forest` lays them out."""

    visible: Tensor | None
    trunk: KeysValues | None

    def spread(self, packed: Tensor) -> Tensor:
        """The tokens of a pass as padded rows."""


class Across:
    """What the trees of a pass read of the encoder.

    Args:
        attentions: The decoder's attentions to the encoder, from below.
        rows: The encoder's rows, one for each tree, in the order of the trees.
        states: Their last hidden states, shape `(tokens, width)`.
        first: The place where the keys and values of these attentions begin in the rows' trunks.

    Attributes:
        record: Whether to keep the keys and values of a pass: later ones read them instead of
            `states`.
    """

    def __init__(
        self, attentions: Sequence[Any], rows: Rows, states: Tensor, first: int = 0
    ) -> None:
        self.states, self._rows, self._first = states, rows, first
        self.record = False
        self._layers = {id(attention): i for i, attention in enumerate(attentions)}
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._recorded: list[Tensor] = []
        self._moved = Moved()
        seen = rows.visible
        assert seen is not None  # an encoder's rows see all of themselves
        # What the first token of a row sees is the row, behind its trunk.
        self._hidden = ~seen[:, 0][:, None, None]  # (trees, 1, 1, trunk + size)

    def reads(self, module: Any) -> bool:
        """Whether an attention is one of the decoder's to the encoder."""
        return id(module) in self._layers

    @property
    def recorded(self) -> KeysValues:
        """The recorded keys and values of all tokens."""
        return KeysValues.side_by_side(self._recorded)

    def of(self, places: Sequence[int]) -> Across:
        """What some of the trees read, from the keys and values that a pass has kept.

        Args:
            places: The places of the trees.
        """
        index, moved = torch.tensor(places, device=self._hidden.device), Moved()
        found = Across.__new__(Across)
        # The attentions are called with some state; what they make of it is not read.
        found.states, found._rows, found._first = self.states[:1], self._rows, self._first
        found.record, found._layers, found._recorded = False, self._layers, []
        found._moved = Moved()
        found._kept = {
            i: (k[moved.to(index, k.device)], v[moved.to(index, v.device)])
            for i, (k, v) in self._kept.items()
        }
        found._hidden = self._hidden[index]
        return found

    def attend(
        self, module: Any, queries: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """The attention of a layer to the encoder: softmax(Q K^T / sqrt(d)) V.

        Args:
            module: The attention.
            queries: The trees' queries, shape `(trees, heads, size, size of a head)`.
            key: The keys of the encoder's tokens, shape `(heads, tokens, size of a head)`.
            value: Their values, like `key`.
            scaling: The factor for the products; None for 1 / sqrt(size of a head).

        Returns:
            Shape like `queries`.
        """
        layer = self._layers[id(module)]
        keys, values = self._kept.get(layer) or self._read(layer, key, value)
        hidden = self._moved.to(self._hidden, queries.device)
        if queries.device.type != "cpu":
            return scaled_dot_product_attention(
                queries, keys, values, attn_mask=~hidden, scale=scaling
            )
        scale = queries.shape[-1] ** -0.5 if scaling is None else scaling
        weights = (queries * scale) @ keys.transpose(2, 3)
        return weights.masked_fill_(hidden, float("-inf")).softmax(-1) @ values

    def _read(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of the rows behind their trunks, from those of the tokens."""
        found = []
        heads, _, size = key.shape
        for place, packed in enumerate((key, value)):
            if self.record:
                self._recorded.append(packed.transpose(0, 1).flatten(1))
            padded = self._rows.spread(packed)
            if (trunk := self._rows.trunk) is not None:
                begin = self._first + (2 * layer + place) * heads * size
                above = trunk.columns(begin, heads * size).unflatten(2, (heads, size))
                above = above.transpose(1, 2).expand(len(padded), -1, -1, -1)
                padded = torch.cat([above, padded], 2)
            found.append(padded)
        if self.record:
            self._kept[layer] = found[0], found[1]
        return found[0], found[1]
