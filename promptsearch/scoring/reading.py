"""An example as token ids around slots and answer, and how its answers are read off its rows.

A causal LM predicts a token at the place before it: an answer stands behind its row, and its last
token is predicted, never read. A masked LM predicts a token where a mask stands for it: an answer
becomes as many masks as it has tokens, all at once, or one by one with the others in place. In an
encoder-decoder model the row of the encoder holds all but the answer, which stands behind the first
tokens of the decoder's row, and is predicted as a causal LM does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from promptsearch.models import LanguageModel
from promptsearch.models.family import CAUSAL, Family
from promptsearch.scoring.answer_ids import Tokens
from promptsearch.scoring.tree import Path, Tree, grow


class Reading(NamedTuple):
    """A row, and tokens of an answer that are told by it.

    Args:
        ids: The ids of the row below its trunk.
        at: The place in it from which the first of the tokens is predicted; those of the others
            follow.
        tokens: The tokens.
        source: The ids of the encoder's row, where the other one is the decoder's.
    """

    ids: Path
    at: int
    tokens: Tokens
    source: Path = ()


def readings(
    before: Path,
    answer: Tokens,
    behind: Path,
    mask: int | None,
    *,
    one_by_one: bool = False,
    source: Path = (),
) -> list[Reading]:
    """The rows that tell an answer: their log-probabilities are summed.

    Args:
        before: The ids before the answer, below the trunk.
        answer: The ids of the answer.
        behind: The ids behind it; none where an answer ends its row.
        mask: The token that stands for a token of the answer; None where the answer is written
            behind the row.
        one_by_one: Whether each token has a mask and a row of its own.
        source: The ids of the encoder's row; none where there is no encoder.
    """
    if mask is None:
        return [Reading((*before, *answer[:-1]), len(before) - 1, answer, source)]
    if not one_by_one:
        masks = (mask,) * len(answer)
        return [Reading((*before, *masks, *behind), len(before), answer)]
    return [
        Reading((*before, *answer[:i], mask, *answer[i + 1 :], *behind), len(before) + i, (token,))
        for i, token in enumerate(answer)
    ]


def spans(family: Family, answers: Sequence[Tokens], *, one_by_one: bool = False) -> list[int]:
    """The numbers of answer tokens in the rows that are read for an example, each row once.

    Args:
        family: The model's family.
        answers: The ids of the example's answers.
        one_by_one: As for `readings`.
    """
    lengths = [len(answer) for answer in answers]
    if not family.middle:
        return [length - 1 for length in lengths]
    if one_by_one:
        return [length for length in lengths for _ in range(length)]
    return sorted(set(lengths))  # answers of one length share their masks


@dataclass(frozen=True)
class Layout:
    """One example under a template, as token ids.

    Args:
        segments: The ids before, between and after the slots. The first segment begins with the
            leading special tokens; where the first slot is in front of the whole row, the second
            one does.
        answers: The ids of each answer: those to choose from in their order, or each right answer
            with its end.
        family: The model's family.
        behind: The ids behind the answer: before, between and after the slots there. The last of
            them ends with the closing special tokens. There are none where answers end their rows.
        mask: The token that stands for a token of an answer; None where answers end their rows.
        one_by_one: Whether each token of an answer is told by a row of its own.
        start: The ids with which a decoder begins the answer, while the segments are the encoder's
            row; none where there is no decoder.
    """

    segments: tuple[Tokens, ...]
    answers: tuple[Tokens, ...]
    family: Family = CAUSAL
    behind: tuple[Tokens, ...] = ()
    mask: int | None = None
    one_by_one: bool = False
    start: Tokens = ()

    @property
    def lead(self) -> int:
        """The number of tokens before the first slot, where these do not depend on what follows."""
        return 0 if self.family.both_ways else len(self.segments[0])

    @property
    def tail(self) -> int:
        """The number of tokens behind the lead, without the prompt's own and the answer's."""
        return sum(map(len, (*self.segments, *self.behind, self.start))) - self.lead

    @property
    def spans(self) -> list[int]:
        """The numbers of answer tokens in the rows that are read, each row once."""
        return spans(self.family, self.answers, one_by_one=self.one_by_one)

    @property
    def readings(self) -> int:
        """The number of times that the text is read with one prompt: answers branch off, or not."""
        return len(self.spans) if self.family.middle else 1

    @property
    def context(self) -> int:
        """The number of tokens behind the lead.

        They reach from the first slot to the end of each answer, without the prompt's own tokens.
        """
        told = self.spans if self.family.middle else map(len, self.answers)
        return self.tail * self.readings + sum(told)

    def join(self, slots: Sequence[Tokens]) -> list[int]:
        """All ids of a row up to the answer.

        Args:
            slots: The ids in each slot.
        """
        joined = list(self.segments[0])
        for slot, segment in zip(slots, self.segments[1:], strict=not self.behind):
            joined += slot
            joined += segment
        return joined

    def join_behind(self, slots: Sequence[Tokens]) -> list[int]:
        """All ids of a row behind the answer.

        Args:
            slots: The ids in each slot.
        """
        own = slots[len(self.segments) - 1 :]
        parts = zip(self.behind, (*own, ()), strict=True) if self.behind else ()
        return [i for segment, slot in parts for i in (*segment, *slot)]

    def read(self, slots: Sequence[Tokens], answer: Tokens, above: int = 0) -> list[Reading]:
        """The rows that tell an answer.

        Args:
            slots: The ids in each slot.
            answer: The ids of the answer.
            above: The number of tokens of the trunk above the rows.
        """
        before, behind = tuple(self.join(slots)[above:]), tuple(self.join_behind(slots))
        if self.start:
            return readings(self.start, answer, (), None, source=before)
        return readings(before, answer, behind, self.mask, one_by_one=self.one_by_one)


def together(rows: Sequence[Reading], lm: LanguageModel) -> list[list[int]]:
    """The places of rows that make a tree together: all, those that are the same, or each alone.

    Args:
        rows: The rows below one trunk.
        lm: The model.
    """
    if lm.passes.trees:
        return [list(range(len(rows)))]
    same: dict[Path | int, list[int]] = {}
    for i, one in enumerate(rows):
        # A decoder writes all answers of one input; answers of one length are told by one row.
        alike = one.source if lm.family.encodes else one.ids if lm.family.middle else i
        same.setdefault(alike, []).append(i)
    return list(same.values())


def tree_of(rows: Sequence[Reading], above: int = 0) -> Tree:
    """The tree of rows that go through the LM together.

    Args:
        rows: The rows, of one input.
        above: The number of tokens of the trunk above them.
    """
    return grow([one.ids for one in rows], above, rows[0].source)


def lines_of(
    trees: Sequence[Tree], begins: Sequence[int], places: Sequence[int]
) -> list[list[int]]:
    """The places of each row's tokens in a pass, in the order in which the rows were told.

    Args:
        trees: The trees of the pass.
        begins: The place of the first token of each tree.
        places: The place of each of their rows, tree by tree, among the rows as they were told.
    """
    lines = [
        [begin + token for token in row]
        for tree, begin in zip(trees, begins, strict=True)
        for row in tree.rows
    ]
    found = dict(zip(places, lines, strict=True))
    return [found[place] for place in range(len(lines))]


def joined(table: Tensor, counts: Sequence[int]) -> Tensor:
    """What several rows tell of each answer: the sum of their log-probabilities, and whether all.

    Args:
        table: For each row the log-probability of its tokens, and whether all are greedy, shape
            `(rows, 2)`.
        counts: The number of rows of each answer.

    Returns:
        The same for each answer, shape `(answers, 2)`.
    """
    if len(counts) == len(table):
        return table
    return torch.stack(
        [torch.stack([some[:, 0].sum(), some[:, 1].amin()]) for some in table.split(list(counts))]
    )
