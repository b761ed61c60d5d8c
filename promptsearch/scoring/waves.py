"""The work of a call, cut so that neither trunks nor rows fill the memory.

A wave is the work whose trunks are held in memory together; a group of its rows goes through the LM
as one tree, and passes take groups of similar length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.counts import RowCounts
from promptsearch.scoring.kinds import Sharing, Slots
from promptsearch.scoring.packing import pack
from promptsearch.scoring.tree import Path, common

#: The most tokens of a tree: attention compares all of them with each other, related or not.
TREE_TOKENS = 48
#: The most rows that are laid out at a time, and the most tokens of trunks that are held at a time:
#: memory does not grow with the work.
WAVE_ROWS, WAVE_TOKENS = 32_768, 32_768


@dataclass(frozen=True)
class Group:
    """A group of rows that go through the LM as one tree.

    The rows are those of each of its prompts with each of its examples.

    Args:
        trunk: The place of the group's trunk in the wave; -1 for none.
        prompts: Indices of prompts, in sorted order of their ids.
        examples: Ids of examples.
        tokens: The approximate number of tokens, for filling passes.
    """

    trunk: int
    prompts: Sequence[int]
    examples: Sequence[int]
    tokens: int


@dataclass(frozen=True)
class Wave:
    """A part of a call's work, whose trunks are held in memory together.

    Args:
        sharing: What is shared, which is what the trunks hold.
        trunks: The trunks' ids; there are none where nothing, or layers, are shared.
        groups: The groups, the longest first; below prompts, trunk by trunk.
    """

    sharing: Sharing
    trunks: list[Path]
    groups: list[Group]


class Waves:
    """The waves of calls on one split.

    Args:
        counts: The numbers of tokens in the split's rows.
        shares: Whether the LM's rows can share what they begin with.
        wave: The most tokens of trunks that may be held at a time.
    """

    def __init__(self, counts: RowCounts, *, shares: bool, wave: int) -> None:
        self._counts = counts
        self._shares = shares
        self._wave = wave

    def cut(self, sharing: Sharing, slots: Sequence[Slots], examples: ExampleIds) -> Iterator[Wave]:
        """The work of a call, cut so that neither trunks nor rows fill the memory.

        Args:
            sharing: What is shared.
            slots: The ids that each prompt puts into the slots.
            examples: Ids, shape `(examples,)`.
        """
        counts = self._counts
        order = sorted(range(len(slots)), key=slots.__getitem__)
        if sharing == "input":
            # A row that has no token of its own below the input cannot share the whole input.
            bare = [i for i in order if counts.tail[examples].min() + sum(map(len, slots[i])) < 1]
            order = [i for i in order if i not in bare]
            if bare:
                yield from self._apart(bare, slots, examples)
            if order:
                yield from self._below_inputs(order, slots, examples)
        elif sharing == "prompt":
            yield from self._below_prompts(order, slots, examples)
        elif sharing == "layers":
            yield from self._above_layers(order, examples)
        else:
            yield from self._apart(order, slots, examples)

    def pairs(
        self, sharing: Sharing, order: Sequence[int], slots: Sequence[Slots], examples: ExampleIds
    ) -> Iterator[Wave]:
        """The work of prompts that stand before one example each, each row a tree of its own.

        Args:
            sharing: What is shared: the input before the prompts, or nothing.
            order: The places of those prompts that share it.
            slots: The ids that each prompt puts into the slots.
            examples: The ids of their examples, shape `(prompts,)`.
        """
        counts, shared = self._counts, sharing == "input"
        times = 1 if self._shares else counts.answers[examples]
        lead = counts.lead[examples]
        rows = np.array([sum(map(len, s)) for s in slots]) + counts.tail[examples]
        sizes = (rows + (0 if shared else lead)) * times + counts.read[examples]
        for some in self._cut(np.array(order), (lead * shared)[order], 1):
            above = [counts.layouts[examples[i]].segments[0] for i in some if shared]
            place = {ids: i for i, ids in enumerate(dict.fromkeys(above))}
            at = [place[ids] for ids in above] if shared else [-1] * len(some)
            groups = [
                Group(trunk, [i], [int(examples[i])], int(sizes[i]))
                for i, trunk in zip(some, at, strict=True)
            ]
            yield Wave(sharing, list(place), _longest_first(groups))

    def _apart(
        self, order: Sequence[int], slots: Sequence[Slots], examples: ExampleIds
    ) -> Iterator[Wave]:
        counts = self._counts
        times = 1 if self._shares else counts.answers[examples]
        tokens = (counts.lead + counts.tail)[examples] * times + counts.read[examples]
        for some in self._cut(np.array(order), np.zeros(len(order), dtype=np.int64), len(examples)):
            for begin in range(0, len(examples), WAVE_ROWS):
                here = slice(begin, begin + WAVE_ROWS)
                sizes = (
                    tokens[None, here]
                    + np.outer(
                        [sum(map(len, slots[i])) for i in some], np.ones_like(tokens) * times
                    )[:, here]
                )
                groups = [
                    Group(-1, [i], [int(e)], int(size))
                    for i, row in zip(some, sizes, strict=True)
                    for e, size in zip(examples[here], row, strict=True)
                ]
                yield Wave("nothing", [], _longest_first(groups))

    def _below_inputs(
        self, order: Sequence[int], slots: Sequence[Slots], examples: ExampleIds
    ) -> Iterator[Wave]:
        counts = self._counts
        below = counts.tail + counts.read
        parts = tree_parts([slots[i] for i in order], int(below[examples].max()))
        named = [[order[i] for i in part] for part in parts]
        tokens = [part_tokens(slots, part) for part in named]
        for some in self._cut(examples, counts.lead[examples], len(order)):
            trunks = list(dict.fromkeys(counts.layouts[e].segments[0] for e in some))
            place = {ids: i for i, ids in enumerate(trunks)}
            groups = [
                Group(
                    place[counts.layouts[e].segments[0]],
                    part,
                    [e],
                    count + len(part) * int(below[e]),
                )
                for e in some
                for part, count in zip(named, tokens, strict=True)
            ]
            yield Wave("input", trunks, _longest_first(groups))

    def _below_prompts(
        self, order: Sequence[int], slots: Sequence[Slots], examples: ExampleIds
    ) -> Iterator[Wave]:
        counts = self._counts
        times = 1 if self._shares else counts.answers[examples]
        below = counts.tail[examples] * times + counts.read[examples] - counts.fixed
        later = {i: sum(map(len, slots[i][counts.same :])) for i in order}
        parts = {more: list(_similar(below + more, TREE_TOKENS)) for more in set(later.values())}
        above = (
            np.array([sum(map(len, slots[i][: counts.same])) for i in order])
            + int(counts.lead[0])
            + counts.fixed
        )
        for some in self._cut(np.array(order), above, len(examples)):
            trunks = [counts.beginning(slots[i]) for i in some]
            groups = [
                Group(t, [i], [int(examples[j]) for j in part], int((below[part] + later[i]).sum()))
                for t, i in enumerate(some)
                for part in parts[later[i]]
            ]
            # Trunk by trunk: a pass whose trees have the same trunk reads it without copies.
            yield Wave(
                "prompt",
                trunks,
                sorted(groups, key=lambda g: (-len(trunks[g.trunk]), g.trunk, -g.tokens)),
            )

    def _above_layers(self, order: Sequence[int], examples: ExampleIds) -> Iterator[Wave]:
        counts = self._counts
        rows = counts.tail + counts.read
        for some in self._cut(examples, rows[examples], len(order)):
            yield Wave(
                "layers",
                [],
                _longest_first([Group(-1, [i], [e], int(rows[e])) for i in order for e in some]),
            )

    def _cut(self, items: ExampleIds, tokens: ExampleIds, rows: int) -> Iterator[list[int]]:
        """Items in order, as many at a time as trunks and rows allow.

        Args:
            items: Prompts or examples.
            tokens: The number of tokens of each item that are held.
            rows: The number of rows that each item has.
        """
        some: list[int] = []
        held = 0
        for item, count in zip(items.tolist(), tokens.tolist(), strict=True):
            if some and (held + count > self._wave or (len(some) + 1) * rows > WAVE_ROWS):
                yield some
                some, held = [], 0
            some.append(item)
            held += count
        yield some


def tree_parts(slots: Sequence[Slots], tail: int) -> list[list[int]]:
    """Prompts, in order, cut into trees of at most `TREE_TOKENS` tokens.

    A prompt counts with the tokens that it does not share with the prompt before it.

    Args:
        slots: The ids that each prompt puts into the slots.
        tail: The number of tokens that each row has besides.
    """
    parts: list[list[int]] = []
    tokens = 0
    for i, prompt in enumerate(slots):
        own = sum(map(len, prompt)) + tail
        shared = common(slots[i - 1][0], prompt[0]) if i else 0
        if parts and tokens + own - shared <= TREE_TOKENS:
            parts[-1].append(i)
            tokens += own - shared
        else:
            parts.append([i])
            tokens = own
    return parts


def part_tokens(slots: Sequence[Slots], part: Sequence[int]) -> int:
    """The number of the prompts' tokens in one tree, with shared ones counted once."""
    shared = [common(slots[a][0], slots[b][0]) for a, b in zip(part, part[1:], strict=False)]
    return sum(sum(map(len, slots[i])) for i in part) - sum(shared)


def _similar(sizes: NDArray[np.int64], limit: int) -> Iterator[list[int]]:
    """The places of sizes, similar sizes together, as many at a time as stay within the limit."""
    return pack(np.argsort(-sizes, kind="stable").tolist(), lambda i: int(sizes[i]), lambda: limit)


def _longest_first(groups: list[Group]) -> list[Group]:
    # The sort is stable: the same work makes the same passes.
    return sorted(groups, key=lambda group: -group.tokens)


def passes(wave: Wave, limit: Callable[[], int]) -> Iterator[list[Group]]:
    """The passes of a wave: groups of similar length together, the longest first.

    If memory runs out, it then does so early. Groups below a prompt share a pass only with other
    groups below this prompt. Groups below inputs get copies of these, padded to the longest, with
    at most eight times the limit's tokens in all.

    Args:
        wave: The wave, its groups sorted.
        limit: Gives the most tokens of a pass at this moment; a longer group goes alone.
    """
    if wave.sharing == "input":
        yield from pack(wave.groups, lambda g: g.tokens, limit, lambda g: len(wave.trunks[g.trunk]))
        return
    for _, groups in groupby(wave.groups, key=lambda g: g.trunk):
        yield from pack(groups, lambda g: g.tokens, limit)
