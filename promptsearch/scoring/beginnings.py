"""The rows of a split, by what begins them.

Behind an empty slot the text may be the beginning of the row, which many tokenizers cut in a
different way. So prompts that leave slots empty may have rows of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.kinds import Placed, Sharing, Slots
from promptsearch.scoring.rows import TokenRows
from promptsearch.scoring.split_layout import SplitLayout


class Beginnings:
    """The layouts and rows of prompts, by which slots they fill.

    Args:
        full: The layouts for prompts that fill all slots.
        rows: Their rows.
        lay_out: Gives the layouts for a prompt that puts these tokens into the slots; None where
            empty slots change nothing.
        make: Makes the rows of layouts.
    """

    def __init__(
        self,
        full: SplitLayout,
        rows: TokenRows,
        lay_out: Callable[[Slots], SplitLayout] | None,
        make: Callable[[SplitLayout], TokenRows],
    ) -> None:
        self._full = full, rows
        self._lay_out = lay_out
        self._make = make
        self._others: dict[tuple[bool, ...], tuple[SplitLayout, TokenRows]] = {}

    def layout(self, slots: Slots) -> SplitLayout:
        """The layouts for a prompt.

        Args:
            slots: The tokens that the prompt puts into the slots.
        """
        return self._of(slots)[0]

    def compute(
        self, placed: Placed, examples: ExampleIds, sharing: Sharing | None
    ) -> tuple[Tensor, ExampleIds, int]:
        """The same as `TokenRows.compute` returns; prompts whose rows begin alike go together."""
        together: dict[TokenRows, list[int]] = {}
        for i, slots in enumerate(placed.slots):
            together.setdefault(self._of(slots)[1], []).append(i)
        if placed.paired:
            return _beside(
                [rows.compute(placed.some(own), examples[own]) for rows, own in together.items()],
                [i for some in together.values() for i in some],
            )
        if len(together) == 1:
            (rows,) = together
            return rows.compute(placed, examples, sharing)
        found = [
            rows.compute(placed.some(some), examples, sharing) for rows, some in together.items()
        ]
        back = torch.tensor([i for some in together.values() for i in some]).argsort()
        return (
            torch.cat([flat for flat, _, _ in found])[back],
            found[0][1],
            sum(computed for _, _, computed in found),
        )

    def _of(self, slots: Slots) -> tuple[SplitLayout, TokenRows]:
        filled = tuple(map(bool, slots))
        if self._lay_out is None or all(filled):
            return self._full
        if filled not in self._others:
            full, rows = self._full
            layout = self._lay_out(slots)
            same = layout.layouts == full.layouts
            self._others[filled] = layout, rows if same else self._make(layout)
        return self._others[filled]


def _beside(
    parts: Sequence[tuple[Tensor, ExampleIds, int]], places: Sequence[int]
) -> tuple[Tensor, ExampleIds, int]:
    """What `TokenRows.compute` returns of examples in several parts, for all of them in order.

    Args:
        parts: What it returned of each part.
        places: The places of the parts' examples, part by part, among all.
    """
    lines = [
        own for flat, begins, _ in parts for own in flat.split(np.diff(begins).tolist(), dim=1)
    ]
    ordered = [lines[i] for i in np.argsort(places)]
    begins = np.concatenate([[0], np.cumsum([own.shape[1] for own in ordered])])
    return torch.cat(ordered, 1), begins, sum(computed for _, _, computed in parts)
