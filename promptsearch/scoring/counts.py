"""The numbers of tokens in the rows of a split, and what all of its examples begin with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.scoring.kinds import Slots
from promptsearch.scoring.reading import Layout
from promptsearch.scoring.tree import Path, common


class RowCounts:
    """The numbers of tokens in the rows of a split, without those of prompts.

    Args:
        layouts: The layouts of all examples.
        one_token: Whether each answer is one token, whose logits are read from one row.
        share: Whether rows of one prompt may share what all examples begin with.

    Attributes:
        layouts: The layouts of all examples.
        lead: The number of tokens before the first slot, shape `(examples,)`.
        tail: The number of tokens behind the lead up to the answer, or around it, shape
            `(examples,)`.
        read: The number of answer tokens that are read, or of masks, shape `(examples,)`.
        answers: The number of rows where answers share nothing, shape `(examples,)`.
        same: The number of segments that all examples have in common.
    """

    def __init__(self, layouts: Sequence[Layout], *, one_token: bool, share: bool) -> None:
        self.layouts = layouts
        self.lead = np.array([layout.lead for layout in layouts])
        self.tail = np.array([layout.tail for layout in layouts])
        self.read = np.array([sum(layout.spans) for layout in layouts])
        self.answers = np.array(
            # The answers that a decoder writes are branches of one tree.
            [1 if one_token or layout.start else len(layout.spans) for layout in layouts]
        )
        self.same, self._part = self._common() if share else (1, 0)

    @property
    def fixed(self) -> int:
        """The number of tokens behind the lead that all examples begin with."""
        segments = self.layouts[0].segments
        return sum(len(s) for s in segments[1 : self.same]) + (self._part if self.same else 0)

    def beginning(self, slots: Slots) -> Path:
        """The ids of a row from its beginning to where the examples begin to differ.

        Args:
            slots: The ids that the prompt puts into the slots.
        """
        segments = self.layouts[0].segments
        parts = list(segments[0])
        for i in range(self.same):
            parts += slots[i]
            parts += segments[i + 1] if i + 1 < self.same else segments[i + 1][: self._part]
        return tuple(parts)

    def _common(self) -> tuple[int, int]:
        """The number of segments that all examples have in common.

        Returns:
            That number, and the number of tokens with which the next segment begins alike.
        """
        first = self.layouts[0].segments
        same = 0
        while same < len(first) and all(
            layout.segments[same] == first[same] for layout in self.layouts
        ):
            same += 1
        if same == len(first):  # no example differs: leave the last token to the rows
            same -= 1
        part = min(common(layout.segments[same], first[same]) for layout in self.layouts)
        below = min(sum(map(len, layout.segments[same:])) for layout in self.layouts)
        return same, max(0, min(part, below - 1))
