"""Keys and values of rows that go on token by token, laid out as attention reads them.

A row goes on in one or more *branches*: the beams of a search, or the samples that are drawn. What
stands before the branches is stored once: the keys and values of a trunk for all rows below it,
those of a row's own tokens for all of its branches. In each step every branch grows by one token.

Columns: the own tokens of rows come first, on the right edge, so that all rows go on in the same
column; each step then adds a column for each branch. What a branch sees of these is up to a mask,
so that beams change places without a copy of any key or value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.moved import Moved
from promptsearch.models.attention.relative import Relative

#: Rows below the same trunk share its keys and values from this number of rows on; fewer of them
#: copy it, and go through the attention together with the rows of other trunks.
_SHARED = 4


@dataclass(frozen=True)
class BegunRow:
    """A row that is to go on.

    Args:
        trunk: The keys and values of what comes first; rows that share it hold the same object.
        tokens: The number of its own tokens, which stand below the trunk.
    """

    trunk: KeysValues
    tokens: int


class Table:
    """The keys and values of rows that go on.

    Args:
        rows: The rows as they begin. A trunk may stand in the top-most layers only.
        heads: For each layer's keys and values in turn, how many heads they have, and the size of a
            head.
        like: The keys and values of any tokens in all of these layers, each where it lies.
        branches: The number of branches of each row.
        steps: The most tokens that a branch grows by.
        device: Where the tokens of a step lie.
    """

    def __init__(
        self,
        rows: Sequence[BegunRow],
        heads: Sequence[tuple[int, int]],
        like: KeysValues,
        branches: int,
        steps: int,
        device: torch.device,
    ) -> None:
        self._branches = branches
        below: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            below.setdefault(id(row.trunk), []).append(place)
        # A trunk of some layers cannot stand among the rows' own tokens, which stand in all.
        values = sum(count * size for count, size in heads)
        least = {
            i: 1 if rows[some[0]].trunk.values < values else _SHARED for i, some in below.items()
        }
        alone = [p for i, some in below.items() if len(some) < least[i] for p in some]
        shared = [some for i, some in below.items() if len(some) >= least[i]]
        self._blocks = [
            _Block(
                [(p, rows[p]) for p in some],
                like[:0].layers(heads),
                branches,
                steps,
                device,
                share=some is not alone,
            )
            for some in [*shared, *([alone] if alone else [])]
        ]
        self._layer = 0

    @property
    def live(self) -> list[int]:
        """The places of the rows that still go on, in the order of the table."""
        return [place for block in self._blocks for place in block.live]

    @property
    def positions(self) -> Tensor:
        """The position of the tokens of the present step, shape `(rows * branches,)`."""
        positions = torch.cat([block.positions for block in self._blocks])
        return positions.repeat_interleave(self._branches)

    def put(self, place: int, keys_values: KeysValues) -> None:
        """Fill in the keys and values of a row's own tokens.

        Args:
            place: The row's place among those that the table began with.
            keys_values: Those of the tokens in all layers.
        """
        next(b for b in self._blocks if place in b.live).put(place, keys_values)

    def drop(self, gone: Sequence[int]) -> None:
        """Take rows out, which changes the order of the others.

        Args:
            gone: The places of rows among those that the table began with.
        """
        for block in self._blocks:
            block.drop([place for place in gone if place in block.live])
        self._blocks = [block for block in self._blocks if block.live]

    def begin(self, origins: Tensor | None) -> None:
        """Make room for a step, in which each branch grows by one token.

        Args:
            origins: The branch of its row that each branch goes on from, shape `(rows, branches)`,
                in the order of the table; None where each goes on from itself.
        """
        self._layer = 0
        first = 0
        for block in self._blocks:
            rows = slice(first, first + len(block.live))
            block.begin(None if origins is None else origins[rows])
            first = rows.stop

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float | None,
        window: int | None,
        relative: Relative | None = None,
    ) -> Tensor:
        """The attention of the next layer, which also stores the step's keys and values.

        Args:
            queries: The queries of the step's tokens, shape `(rows, heads, branches, size)`.
            keys: Their keys, shape `(rows, key heads, branches, size)`.
            values: Their values, like `keys`.
            scaling: The factor for the products; None for 1 / sqrt(size).
            window: A token sees the last `window` tokens, itself among them; None for all.
            relative: What is added to the products by relative position; only where no heads share
                a key head.

        Returns:
            Shape `(rows, heads, branches, size)`.
        """
        layer, self._layer = self._layer, self._layer + 1
        scale = queries.shape[-1] ** -0.5 if scaling is None else scaling
        found, first = [], 0
        for block in self._blocks:
            rows = slice(first, first + len(block.live))
            found.append(
                block.attend(
                    layer, queries[rows], keys[rows], values[rows], scale, window, relative
                )
            )
            first = rows.stop
        return found[0] if len(found) == 1 else torch.cat(found)


class _Block:
    """Rows below one trunk, or below trunks that stand among their own tokens.

    Args:
        rows: Each row with its place among those of the table.
        empty: The keys and values of no tokens, in turn for each layer, shape `(key heads, 0,
            size)`.
        branches: As for `Table`, like `steps` and `device`.
        steps: The most tokens that a branch grows by.
        device: Where the tokens of a step lie.
        share: Whether all rows have the same trunk, which is stored once.
    """

    def __init__(
        self,
        rows: Sequence[tuple[int, BegunRow]],
        empty: Sequence[Tensor],
        branches: int,
        steps: int,
        device: torch.device,
        *,
        share: bool,
    ) -> None:
        self.live = [place for place, _ in rows]  # row i of each tensor is that of place live[i]
        self._branches = branches
        self._heads = [(part.shape[0], part.shape[2]) for part in empty]
        trunk = rows[0][1].trunk
        own = [row.tokens + (0 if share else len(row.trunk)) for _, row in rows]
        self._above, self._width = len(trunk) if share else 0, max(own)
        self._used, self._step = self._width, -1  # the columns that hold something; the step
        room = self._width + steps * branches
        # Keys and values in turn, (key heads, trunk, size), and (rows, key heads, columns, size).
        # Memory that is not yet used is not yet taken either, on a CPU. A row of the table holds
        # keys the other way round, (size, columns): products of a few queries read them faster.
        above = trunk[: self._above].layers(self._heads)
        missing = len(empty) - len(above)  # of layers in which the trunk does not stand
        self._trunk = [part.contiguous() for part in (*empty[:missing], *above)]
        self._own = [
            part.new_empty(len(rows), count, size, room).transpose(2, 3)
            if i % 2 == 0
            else part.new_empty(len(rows), count, room, size)
            for i, (part, (count, size)) in enumerate(zip(empty, self._heads, strict=True))
        ]
        for tensor in self._own:  # what no branch sees is multiplied by 0, so it must be a number
            tensor[:, :, : self._width] = 0
        for place, row in rows:
            if not share:
                self._fill(place, -len(row.trunk) - row.tokens, row.trunk)
        self._columns, self._sees = self._places(own, steps, device)
        self._next = self._columns[:, self._above + self._width].clone()
        self._masks: dict[int | None, Tensor | None] = {}
        self._moved = Moved()

    @property
    def positions(self) -> Tensor:
        """The position of each row's tokens of the present step, shape `(rows,)`."""
        return self._next[: len(self.live)] + self._step

    def put(self, place: int, keys_values: KeysValues) -> None:
        """Fill in the keys and values of a row's own tokens, see `Table.put`."""
        self._fill(place, -len(keys_values), keys_values)

    def drop(self, gone: Sequence[int]) -> None:
        """Take rows out: the last one moves into the place of each."""
        for place in gone:
            i, last = self.live.index(place), len(self.live) - 1
            self.live[i] = self.live[last]
            self.live.pop()
            if i < last:
                for tensor in self._own:
                    tensor[i, :, : self._used] = tensor[last, :, : self._used]
                for tensor in (self._columns, self._sees, self._next):
                    tensor[i] = tensor[last]

    def begin(self, origins: Tensor | None) -> None:
        """Make room for a step, see `Table.begin`."""
        sees, count = self._sees[: len(self.live)], self._branches
        if origins is not None:
            grown = slice(self._above + self._width, self._above + self._used)
            index = origins[..., None].expand(-1, -1, grown.stop - grown.start)
            sees[:, :, grown] = sees[:, :, grown].gather(1, index)
        new = slice(self._above + self._used, self._above + self._used + count)
        sees[:, :, new] = torch.eye(count, dtype=torch.bool, device=sees.device)
        self._used += count
        self._step += 1
        self._masks.clear()
        self._moved = Moved()

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
        window: int | None,
        relative: Relative | None,
    ) -> Tensor:
        """The attention of a layer as plain products, softmax(Q K^T) V, see `Table.attend`."""
        rows, repeats = len(queries), queries.shape[1] // keys.shape[1]
        own_keys, own_values = (
            tensor[:rows, :, : self._used] for tensor in self._own[2 * layer : 2 * layer + 2]
        )  # (rows, key heads, columns, size)
        own_keys[:, :, -self._branches :], own_values[:, :, -self._branches :] = keys, values
        # The query heads that share a key head stand one below the other, branch by branch.
        grouped = queries.unflatten(1, (-1, repeats)).transpose(2, 3)
        folded = grouped.flatten(2, 3) * scale  # (rows, key heads, branches * repeats, size)
        weights = folded @ own_keys.transpose(2, 3)
        trunk_keys, trunk_values = self._trunk[2 * layer : 2 * layer + 2]
        above = trunk_keys.shape[
            1
        ]  # 0 where there is no trunk, or where it stands above this layer
        if above:
            # All queries read the trunk in one product.
            high = folded.transpose(0, 1).flatten(1, 2) @ trunk_keys.transpose(1, 2)
            weights = torch.cat([high.unflatten(1, (rows, -1)).transpose(0, 1), weights], -1)
        if relative is not None:
            columns = self._columns[:rows, self._above - above : self._above + self._used]
            biases = relative.of((columns - self.positions[:, None])[:, None])
            weights = weights + biases.to(weights.device)
        if (hidden := self._hidden(rows, window)) is not None:
            seen = self._moved.to(hidden, weights.device)[..., self._above - above :]
            weights.unflatten(2, (-1, repeats)).masked_fill_(seen, float("-inf"))
        weights = weights.softmax(-1)
        out = weights[..., above:] @ own_values
        if above:
            high = weights[..., :above].transpose(0, 1).flatten(1, 2) @ trunk_values
            out = out + high.unflatten(1, (rows, -1)).transpose(0, 1)
        joined: Tensor = out.unflatten(2, (-1, repeats)).transpose(2, 3).flatten(1, 2)
        return joined

    # Private.

    def _hidden(self, rows: int, window: int | None) -> Tensor | None:
        """The columns that each branch does not see; None where it sees all of them.

        Args:
            rows: The number of rows.
            window: A token sees the last `window` tokens, itself among them; None for all.

        Returns:
            Boolean, shape `(rows, 1, branches, 1, trunk + columns)`.
        """
        if window not in self._masks:
            columns = slice(self._above + self._used)
            hidden = ~self._sees[:rows, :, columns]
            if window is not None:
                distance = self.positions[:, None] - self._columns[:rows, columns]
                hidden |= (distance >= window)[:, None]
            self._masks[window] = hidden[:, None, :, None] if bool(hidden.any()) else None
        return self._masks[window]

    def _places(
        self, own: Sequence[int], steps: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """The position of each column in its row, and which columns each branch sees.

        Args:
            own: The number of each row's own tokens.
            steps: The most tokens that a branch grows by.
            device: The device of the tensors.

        Returns:
            Positions, shape `(rows, trunk + columns)`; and booleans, shape
            `(rows, branches, trunk + columns)`.
        """
        lengths = torch.tensor(own)[:, None]
        below = torch.arange(self._width) - self._width + lengths  # below 0: no token stands there
        later = lengths + torch.arange(steps).repeat_interleave(self._branches)
        above = torch.arange(self._above).expand(len(own), -1)
        positions = torch.cat([above, self._above + torch.cat([below, later], 1)], 1)
        sees = torch.cat([above >= 0, below >= 0, torch.zeros_like(later, dtype=torch.bool)], 1)
        return positions.to(device), sees[:, None].repeat(1, self._branches, 1).to(device)

    def _fill(self, place: int, back: int, keys_values: KeysValues) -> None:
        """Write keys and values of tokens, `back` columns before the first step's (below 0)."""
        row, begin = self.live.index(place), self._width + back
        for tensor, part in zip(self._own, keys_values.layers(self._heads), strict=True):
            tensor[row, :, begin : begin + len(keys_values)] = part
