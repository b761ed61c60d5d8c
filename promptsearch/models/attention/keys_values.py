"""Keys and values of tokens, all layers side by side, each on the device of its layer.

A model on one device has them in one tensor. One whose layers are spread over several has a tensor
for each run of layers that lie on one device, so that none travels from pass to pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class KeysValues:
    """The keys and values of tokens in all layers, or in the top-most ones only.

    Args:
        parts: Those of each run of layers that lie on one device, from below, shape
            `(tokens, values of the run)` each; of several rows, `(rows, tokens, values of the
            run)`.
    """

    parts: tuple[Tensor, ...]

    @staticmethod
    def side_by_side(layers: Sequence[Tensor]) -> KeysValues:
        """Those of single layers, keys and values in turn, from below.

        Args:
            layers: Shape `(tokens, values of the layer)` each.
        """
        runs = groupby(layers, key=lambda own: own.device)
        return KeysValues(tuple(torch.cat(list(run), -1) for _, run in runs))

    @staticmethod
    def beside(stacks: Sequence[KeysValues]) -> KeysValues:
        """Those of the same tokens in several stacks of layers, from below."""
        return KeysValues.side_by_side([part for own in stacks for part in own.parts])

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, places: Any) -> KeysValues:
        """Those of some tokens or rows, as a tensor of them is indexed."""
        return KeysValues(tuple(part[places] for part in self.parts))

    @property
    def tokens(self) -> int:
        """The number of tokens, those of the longest row."""
        return self.parts[0].shape[-2]

    @property
    def values(self) -> int:
        """The number of numbers in one token's keys and values, in all layers together."""
        return sum(part.shape[-1] for part in self.parts)

    def columns(self, begin: int, count: int) -> Tensor:
        """The numbers of one layer, where that lies, shape `(..., tokens, count)`.

        Args:
            begin: The number of numbers in the layers below.
            count: The number of numbers in the layer.
        """
        for part in self.parts:
            if begin < part.shape[-1]:
                return part[..., begin : begin + count]
            begin -= part.shape[-1]
        raise IndexError(f"expected a column below {self.values}")

    def layers(self, heads: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Those of each layer, keys and values in turn; without layers in which none stand.

        Args:
            heads: For each layer's keys and values in turn, how many heads they have, and the size
                of a head.

        Returns:
            Shape `(key heads, tokens, size of a head)` each, where the layer lies.
        """
        found: list[Tensor] = []
        end = self.values
        for count, size in reversed(heads):
            if (end := end - count * size) < 0:
                break
            own = self.columns(end, count * size)
            found.append(own.unflatten(1, (count, size)).transpose(0, 1))
        return found[::-1]

    def split(self, lengths: Sequence[int]) -> list[KeysValues]:
        """Those of rows that lie one after the other.

        Args:
            lengths: The number of tokens in each row.
        """
        rows = zip(*(part.split(list(lengths)) for part in self.parts), strict=True)
        return [KeysValues(row) for row in rows]

    def above(self, below: KeysValues) -> KeysValues:
        """These tokens, and behind them others."""
        pairs = zip(self.parts, below.parts, strict=True)
        return KeysValues(tuple(torch.cat(pair) for pair in pairs))

    def like(self, rows: Tensor) -> KeysValues:
        """Numbers that are given in one tensor, each where these have theirs; gradients flow back.

        Args:
            rows: Keys and values of any tokens in all layers, or in the top-most ones only, shape
                `(tokens, values)`.
        """
        found, end = [], rows.shape[-1]
        for part in reversed(self.parts):
            begin = max(0, end - part.shape[-1])
            if begin < end:
                found.append(rows[..., begin:end].to(part.device, part.dtype))
            end = begin
        return KeysValues(tuple(found[::-1]) or (rows,))

    def top(self, values: int) -> KeysValues:
        """Those of the top-most layers.

        Args:
            values: The number of numbers in these layers.
        """
        found = []
        for part in reversed(self.parts):
            own = min(values, part.shape[-1])
            if own:
                found.append(part[..., part.shape[-1] - own :])
            values -= own
        return KeysValues(tuple(found[::-1]))

    def on(self, device: torch.device | str) -> Tensor:
        """All of them in one tensor, shape `(..., tokens, values)`.

        Args:
            device: Its device.
        """
        return torch.cat([part.to(device) for part in self.parts], -1)
