"""The rows of a batch that go on token by token, and what the LM computes of them.

A row has one or more branches, see `promptsearch.models.attention.table`. Where a model cannot go
on from kept keys and values, its rows are computed whole in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from promptsearch.models import LanguageModel
from promptsearch.models.attention.across import Across
from promptsearch.models.attention.forest import Forest
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.models.attention.table import BegunRow, Table
from promptsearch.scoring.forward import begin_decoding, embed, extend, run
from promptsearch.scoring.packing import pack
from promptsearch.scoring.ready import InputRow, Library
from promptsearch.scoring.sharing import PASS_TOKENS
from promptsearch.scoring.tree import grow


class Growing(Protocol):
    """Rows that go on."""

    computed: int
    """The number of tokens that went through the LM."""

    @property
    def live(self) -> list[int]:
        """The places of the rows that still go on, in the order in which they are computed."""

    def begin(self) -> Tensor:
        """The last hidden state of each row as it begins, shape `(rows, 1, width)`."""

    def drop(self, gone: Sequence[int]) -> None:
        """Take rows out, by their places; the order of the others may change."""

    def step(self, tokens: Sequence[Sequence[int]], origins: Sequence[Sequence[int]]) -> Tensor:
        """Add a token to each branch.

        Args:
            tokens: An id for each branch of each live row.
            origins: For each branch, the branch of its row that it goes on from; nothing where
                each goes on from itself.

        Returns:
            The last hidden states of these tokens, shape `(rows, branches, width)`.
        """


def growing(
    lm: LanguageModel, rows: Sequence[InputRow], library: Library, branches: int, steps: int
) -> Growing:
    """Rows as they begin.

    Args:
        lm: The model.
        rows: The rows.
        library: The prompts.
        branches: The number of branches of each row.
        steps: The most tokens that a branch grows by.
    """
    if lm.family.encodes:
        return _Decoded(lm, rows, library, branches, steps)
    if lm.passes.trees:
        return _Kept(lm, rows, library, branches, steps)
    return _Whole(lm, rows, library)


class _Kept:
    """Rows whose keys and values are kept, see `Growing`; the arguments are those of `growing`."""

    def __init__(
        self,
        lm: LanguageModel,
        rows: Sequence[InputRow],
        library: Library,
        branches: int,
        steps: int,
    ) -> None:
        self._lm, self._rows, self._library, self._branches = lm, rows, library, branches
        begun = [
            BegunRow(trunk, len(row.ids)) for trunk, row in zip(self._trunks(), rows, strict=True)
        ]
        heads = lm.passes.heads
        like = lm.passes.kept.top(sum(count * size for count, size in heads))
        self._table = Table(begun, heads, like, branches, steps, lm.device)
        self.computed = 0

    def _trunks(self) -> list[KeysValues]:
        """What of each row's trunk the branches attend to; rows that share one hold the same."""
        return [row.trunk for row in self._rows]

    @property
    def live(self) -> list[int]:
        return self._table.live

    def begin(self) -> Tensor:
        """As many rows in a pass as it takes, those below the same trunk together."""
        lm, found = self._lm, []
        order = self.live
        limit = PASS_TOKENS.get(lm.device.type, PASS_TOKENS["cpu"])
        for places in pack(
            order,
            lambda i: len(self._rows[i].ids),
            lambda: limit,
            lambda i: len(self._rows[i].trunk),
        ):
            some = [self._rows[i] for i in places]
            states, kept = extend(
                lm,
                [row.ids for row in some],
                [row.trunk for row in some],
                self._library.vectors,
                self._library.beside([row.owner for row in some]),
            )
            for place, own in zip(places, kept, strict=True):
                self._table.put(place, own)
            self.computed += sum(len(row.ids) for row in some)
            found.append(states)
        return torch.cat(found)[:, None]

    def drop(self, gone: Sequence[int]) -> None:
        self._table.drop(gone)

    def step(self, tokens: Sequence[Sequence[int]], origins: Sequence[Sequence[int]]) -> Tensor:
        lm, live = self._lm, self.live
        ids = torch.tensor(tokens, device=lm.device)
        self._table.begin(torch.tensor(origins, device=lm.device) if origins else None)
        forest = Forest(
            positions=self._table.positions,
            size=self._branches,
            table=self._table,
            adaption=self._library.beside([self._rows[i].owner for i in live]),
            across=self._across(live),
        )
        self.computed += ids.numel()
        states = lm.passes.hidden(embed(lm, ids.flatten(), None), forest)
        return states.view(*ids.shape, -1)

    def _across(self, live: Sequence[int]) -> Across | None:
        """What the live rows read of an encoder."""
        return None


class _Decoded(_Kept):
    """Rows that a decoder writes, see `Growing`: what it reads of the encoder is projected once."""

    def _trunks(self) -> list[KeysValues]:
        lm = self._lm
        # The decoder's own keys and values come last in a trunk.
        own = sum(count * size for count, size in lm.passes.heads)
        parts = {id(row.trunk): row.trunk.top(own) for row in self._rows}
        return [parts[id(row.trunk)] for row in self._rows]

    def begin(self) -> Tensor:
        """The encoder reads all rows in one pass, and the decoder begins all of them."""
        lm, order = self._lm, self.live
        rows = [self._rows[i] for i in order]
        trees = [grow([row.ids], len(row.trunk), row.source) for row in rows]
        trunks = [row.trunk for row in rows]
        states, begins, forest = begin_decoding(lm, trees, trunks, self._library.vectors)
        assert forest.across is not None
        self._read, self._order = forest.across, order
        recorded = forest.recorded
        for place, begin, row in zip(order, begins, rows, strict=True):
            self._table.put(place, recorded[begin : begin + len(row.ids)])
        self.computed += sum(tree.tokens for tree in trees)
        ends = [begin + len(row.ids) - 1 for begin, row in zip(begins, rows, strict=True)]
        return states[ends][:, None]

    def _across(self, live: Sequence[int]) -> Across:
        if self._order != list(live):
            self._read = self._read.of([self._order.index(i) for i in live])
            self._order = list(live)
        return self._read


class _Whole:
    """Rows that are computed whole in every step, see `Growing`.

    Args:
        lm: The model.
        rows: The rows as they begin.
        library: The prompts.
    """

    def __init__(self, lm: LanguageModel, rows: Sequence[InputRow], library: Library) -> None:
        self._lm, self._library = lm, library
        self._paths = {place: [row.ids] for place, row in enumerate(rows)}
        self.computed = 0

    @property
    def live(self) -> list[int]:
        return list(self._paths)

    def begin(self) -> Tensor:
        return self._last()

    def drop(self, gone: Sequence[int]) -> None:
        for place in gone:
            del self._paths[place]

    def step(self, tokens: Sequence[Sequence[int]], origins: Sequence[Sequence[int]]) -> Tensor:
        for i, (place, before) in enumerate(self._paths.items()):
            known = before * len(tokens[i]) if len(before) == 1 else before
            order = origins[i] if origins else range(len(tokens[i]))
            self._paths[place] = [
                (*known[origin], token) for origin, token in zip(order, tokens[i], strict=True)
            ]
        return self._last()

    def _last(self) -> Tensor:
        """The last hidden states at the ends of all branches."""
        lm, found = self._lm, []
        paths = [path for some in self._paths.values() for path in some]
        limit = PASS_TOKENS.get(lm.device.type, PASS_TOKENS["cpu"])
        for some in pack(paths, len, lambda: limit):
            trees = [grow([path]) for path in some]
            states, begins = run(lm, trees, None, self._library.vectors)
            found.append(states[[b + len(path) - 1 for b, path in zip(begins, some, strict=True)]])
            self.computed += sum(map(len, some))
        states = torch.cat(found)
        return states.view(len(self._paths), -1, states.shape[1])
