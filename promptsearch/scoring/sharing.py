"""The plan of a call: which tokens rows share, so that these are computed once.

A row is, from left to right: text before the first slot (its lead), prompt and input in the
template's order, answer. A trunk is the tokens that rows begin with alike and that are computed
once, in a pass before them; the other tokens of these rows stand below it. What is kept stays from
call to call. Rows share what they begin with, so placement decides:

* input before prompt: the *input* is a trunk, computed once for all prompts and kept for the next
  ones; prompts that share their first tokens share these too (a trie);
* prompt before input: the *prompt* is a trunk, computed once for all examples. This pays for long
  prompts only: a trunk costs a pass of its own, and its keys are read by every token below it;
* prefix: a trunk whose keys and values are the prompt itself;
* gated prompt: the *layers* below those that attend to it do not depend on it, so an example goes
  through these once for all prompts, and the states that come out are kept for the next ones;
* one row alone, apart from all others: its answers share all that stands before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from promptsearch.scoring.layout import Layout
from promptsearch.scoring.packing import pack
from promptsearch.scoring.tree import Path, common
from promptsearch.tasks.template import Kind

Sharing = Literal["nothing", "input", "prompt", "layers"]
Slots = tuple[Path, ...]

#: The most tokens of a pass, by device. On a CPU the activations of a small pass stay in the
#: caches; a GPU wants to be filled.
PASS_TOKENS = {"cpu": 512, "cuda": 16_384}
#: The most tokens of a tree: attention compares all of them with each other, related or not.
TREE_TOKENS = 48
#: The cost for a token to read one key, in tokens: measured on a CPU, a thousand keys take as long
#: as all the rest.
KEY_COST = 1 / 1000
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


@dataclass(frozen=True)
class Prediction:
    """The predicted cost of a call.

    Args:
        sharing: What is shared.
        tokens: The number of tokens that go through the LM.
        cost: The same, with the reading of keys counted in tokens; infinite where nothing can be
            shared this way. With a server, the number of requests, divided by the number that it
            answers at a time.
        requests: The number of requests to a server.
    """

    sharing: Sharing
    tokens: int
    cost: float
    requests: int = 0


class Plan:
    """The plan by which the rows of one split under one template are computed.

    Args:
        layouts: The layouts of all examples.
        trees: Whether the LM can share what rows begin with.
        one_token: Whether each answer is one token, whose logits are read from one row.
        kept: The number of examples, from the first, whose trunks are kept from call to call.
        wave: The most tokens of trunks that may be held at a time.
        kind: The kind of the prompts. Prefixes are trunks that need no computing; other prompts
            that stand apart from the text are neither in trunks nor in rows.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        *,
        trees: bool,
        one_token: bool,
        kept: int,
        wave: int,
        kind: Kind,
    ) -> None:
        self.trees = trees
        self.kept = kept
        self._layouts = layouts
        self._one_token = one_token
        self.wave = wave
        self.lead = np.array([layout.lead for layout in layouts])
        # The numbers of tokens behind the lead without the prompt's own, and of answer tokens that
        # are read.
        self.tail = np.array([sum(map(len, layout.segments[1:])) for layout in layouts])
        self.read = np.array(
            [0 if one_token else sum(len(a) - 1 for a in layout.answers) for layout in layouts]
        )
        self._answers = np.array([1 if one_token else len(layout.answers) for layout in layouts])
        self._kind = kind
        # Below a prefix, each row computes all that it has: a gradient of the prefix crosses it.
        self._same, self._part = self._static() if kind in ("slots", "weights") else (1, 0)

    def _static(self) -> tuple[int, int]:
        """The number of segments that all examples have in common.

        Returns:
            That number, and the number of tokens with which the next segment begins alike.
        """
        first = self._layouts[0].segments
        same = 0
        while same < len(first) and all(
            layout.segments[same] == first[same] for layout in self._layouts
        ):
            same += 1
        if same == len(first):  # no example differs: leave the last token to the rows
            same -= 1
        part = min(common(layout.segments[same], first[same]) for layout in self._layouts)
        below = min(sum(map(len, layout.segments[same:])) for layout in self._layouts)
        return same, max(0, min(part, below - 1))

    def choose(self, slots: Sequence[Slots], examples: NDArray[np.int64]) -> Sharing:
        """The sharing with the lowest predicted cost for a call.

        Args:
            slots: The ids that each prompt puts into the slots.
            examples: Ids, shape `(examples,)`.
        """
        if self._kind == "prefix":
            return "prompt"
        if self._kind == "gated":
            return "layers"
        if not self.trees:
            return "nothing"
        ways: tuple[Sharing, ...] = ("nothing", "input", "prompt")
        costs = {way: self.predict(way, slots, examples).cost for way in ways}
        return min(costs, key=lambda way: costs[way])

    def predict(
        self, sharing: Sharing, slots: Sequence[Slots], examples: NDArray[np.int64]
    ) -> Prediction:
        """The cost of a call, without inputs that are kept from call to call.

        Args:
            sharing: What is shared.
            slots: The ids that each prompt puts into the slots.
            examples: Ids, shape `(examples,)`.
        """
        slots = sorted(slots)
        lengths = np.array([sum(map(len, s)) for s in slots])
        tail, lead = self.tail[examples] + self.read[examples], self.lead[examples]
        if sharing == "nothing":
            times = 1 if self.trees else self._answers[examples]
            whole = (
                lengths[:, None] * times
                + ((lead + self.tail[examples]) * times + self.read[examples])[None]
            )
            return Prediction(
                sharing, int(whole.sum()), float((whole * (1 + whole * KEY_COST / 2)).sum())
            )
        if sharing == "input":
            if not lead.any():
                return Prediction(sharing, 0, float("inf"))
            known = {self._layouts[e].segments[0] for e in examples if e < self.kept}
            trunks = [len(ids) for ids in {self._layouts[e].segments[0] for e in examples} - known]
            below = (
                sum(self._part_tokens(slots, part) for part in self._parts(slots, int(tail.max())))
                + len(slots) * tail
            )
            cost = (
                sum(t * (1 + t * KEY_COST / 2) for t in trunks)
                + (below * (1 + (lead + TREE_TOKENS) * KEY_COST)).sum()
            )
            return Prediction(sharing, sum(trunks) + int(below.sum()), float(cost))
        # Each row needs a token of its own, from which its answer is predicted.
        if self._same == 0 or self.tail[examples].min() - self._fixed() < 1:
            return Prediction(sharing, 0, float("inf"))
        # The prompt's tokens in slots behind the first input: these are in no trunk.
        later = np.array([sum(map(len, s[self._same :])) for s in slots])
        trunk = lengths - later + int(self.lead[0]) + self._fixed()
        below = later[:, None] + (tail - self._fixed())[None]
        inside = np.maximum(below, TREE_TOKENS)
        made = np.zeros_like(trunk) if self._kind == "prefix" else trunk
        cost = (made * (1 + made * KEY_COST / 2)).sum() + (
            below * (1 + (trunk[:, None] + inside) * KEY_COST)
        ).sum()
        return Prediction(sharing, int(made.sum() + below.sum()), float(cost))

    def predict_layers(self, prompts: int, examples: NDArray[np.int64], share: float) -> Prediction:
        """The cost of a call with gated prompts.

        Examples that are kept from call to call go only through the layers that attend to prompts.

        Args:
            prompts: The number of prompts.
            examples: Ids, shape `(examples,)`.
            share: The share of the layers that attend to the prompts.
        """
        rows = self.tail[examples] + self.read[examples]
        # The number of times that an example goes through all layers.
        times = prompts * share + (examples >= self.kept) * (1 - share)
        return Prediction(
            "layers",
            round(float((rows * times).sum())),
            float((rows * (1 + rows * KEY_COST / 2) * times).sum()),
        )

    def waves(
        self, sharing: Sharing, slots: Sequence[Slots], examples: NDArray[np.int64]
    ) -> Iterator[Wave]:
        """The work of a call, cut so that neither trunks nor rows fill the memory.

        Args:
            sharing: What is shared.
            slots: The ids that each prompt puts into the slots.
            examples: Ids, shape `(examples,)`.
        """
        order = sorted(range(len(slots)), key=slots.__getitem__)
        if sharing == "input":
            # A row that has no token of its own below the input cannot share the whole input.
            bare = [i for i in order if self.tail[examples].min() + sum(map(len, slots[i])) < 1]
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

    # Private.

    def _apart(
        self, order: Sequence[int], slots: Sequence[Slots], examples: NDArray[np.int64]
    ) -> Iterator[Wave]:
        times = 1 if self.trees else self._answers[examples]
        tokens = (self.lead + self.tail)[examples] * times + self.read[examples]
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
        self, order: Sequence[int], slots: Sequence[Slots], examples: NDArray[np.int64]
    ) -> Iterator[Wave]:
        below = self.tail + self.read
        parts = self._parts([slots[i] for i in order], int(below[examples].max()))
        named = [[order[i] for i in part] for part in parts]
        tokens = [self._part_tokens(slots, part) for part in named]
        for some in self._cut(examples, self.lead[examples], len(order)):
            trunks = list(dict.fromkeys(self._layouts[e].segments[0] for e in some))
            place = {ids: i for i, ids in enumerate(trunks)}
            groups = [
                Group(
                    place[self._layouts[e].segments[0]],
                    part,
                    [e],
                    count + len(part) * int(below[e]),
                )
                for e in some
                for part, count in zip(named, tokens, strict=True)
            ]
            yield Wave("input", trunks, _longest_first(groups))

    def _below_prompts(
        self, order: Sequence[int], slots: Sequence[Slots], examples: NDArray[np.int64]
    ) -> Iterator[Wave]:
        below = (self.tail + self.read)[examples] - self._fixed()
        later = {i: sum(map(len, slots[i][self._same :])) for i in order}
        parts = {more: list(_fill(below + more, TREE_TOKENS)) for more in set(later.values())}
        above = (
            np.array([sum(map(len, slots[i][: self._same])) for i in order])
            + int(self.lead[0])
            + self._fixed()
        )
        for some in self._cut(np.array(order), above, len(examples)):
            trunks = [self._prompt_trunk(slots[i]) for i in some]
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

    def _above_layers(self, order: Sequence[int], examples: NDArray[np.int64]) -> Iterator[Wave]:
        rows = self.tail + self.read
        for some in self._cut(examples, rows[examples], len(order)):
            yield Wave(
                "layers",
                [],
                _longest_first([Group(-1, [i], [e], int(rows[e])) for i in order for e in some]),
            )

    def _prompt_trunk(self, slots: Slots) -> Path:
        """The ids of a row from its beginning to where the examples begin to differ."""
        segments = self._layouts[0].segments
        parts = list(segments[0])
        for i in range(self._same):
            parts += slots[i]
            parts += segments[i + 1] if i + 1 < self._same else segments[i + 1][: self._part]
        return tuple(parts)

    def _fixed(self) -> int:
        """The number of the trunk's tokens behind the first slot that belong to no prompt."""
        segments = self._layouts[0].segments
        return sum(len(s) for s in segments[1 : self._same]) + (self._part if self._same else 0)

    def _cut(
        self, items: NDArray[np.int64], tokens: NDArray[np.int64], rows: int
    ) -> Iterator[list[int]]:
        """Items in order, as many at a time as trunks and rows allow.

        Args:
            items: Prompts or examples.
            tokens: The number of tokens of each item that are held.
            rows: The number of rows that each item has.
        """
        some: list[int] = []
        held = 0
        for item, count in zip(items.tolist(), tokens.tolist(), strict=True):
            if some and (held + count > self.wave or (len(some) + 1) * rows > WAVE_ROWS):
                yield some
                some, held = [], 0
            some.append(item)
            held += count
        yield some

    def _parts(self, slots: Sequence[Slots], tail: int) -> list[list[int]]:
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

    @staticmethod
    def _part_tokens(slots: Sequence[Slots], part: Sequence[int]) -> int:
        """The number of the prompts' tokens in one tree, with shared ones counted once."""
        shared = [common(slots[a][0], slots[b][0]) for a, b in zip(part, part[1:], strict=False)]
        return sum(sum(map(len, slots[i])) for i in part) - sum(shared)


def _fill(sizes: NDArray[np.int64], limit: int) -> Iterator[list[int]]:
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
