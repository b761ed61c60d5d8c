"""What is computed once: which tokens of a row belong to what, and which of them rows share.

A row is, from left to right: text before the first slot, prompt and input in the template's order, answer. Rows share
what they begin with, so placement decides:

* input before prompt: the *input* is a trunk, computed once for all prompts and kept for the next ones; prompts that
  share their first tokens share these too (a trie);
* prompt before input: the *prompt* is a trunk, computed once for all examples. This pays for long prompts: a trunk costs
  a pass of its own, and its keys are read by every token below it;
* prefix: a trunk whose keys and values are the prompt itself;
* gated prompt: the *layers* below those that attend to it do not depend on it, so an example goes through them once for all
  prompts, and is kept for the next ones;
* one row alone: its answers share all that stands before them.
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

#: Tokens of a pass. On a CPU the activations of a small pass stay in the caches; a GPU wants to be filled.
PASS_TOKENS = {"cpu": 512, "cuda": 16_384}
#: Tokens of a tree: its tokens are compared with each other, related or not.
TREE_TOKENS = 48
#: What reading one key costs a token, in tokens: measured on a CPU, a thousand keys take as long as all the rest.
KEY_COST = 1 / 1000
#: Rows that are laid out at a time, and tokens of trunks that are held at a time: memory does not grow with the work.
WAVE_ROWS, WAVE_TOKENS = 32_768, 32_768


@dataclass(frozen=True)
class Group:
    """Rows that go through the LM as one tree: each of its prompts with each of its examples.

    Args:
        trunk: Place of the trunk in the wave; -1 for none.
        prompts: Indices of prompts, in sorted order of their ids.
        examples: Ids.
        tokens: About so many, for filling passes.
    """

    trunk: int
    prompts: Sequence[int]
    examples: Sequence[int]
    tokens: int


@dataclass(frozen=True)
class Wave:
    """Work that is done together.

    Args:
        sharing: What the trunks are.
        trunks: Their ids; none where nothing, or layers, are shared.
        groups: The longest first.
    """

    sharing: Sharing
    trunks: list[Path]
    groups: list[Group]


@dataclass(frozen=True)
class Prediction:
    """What a call will cost.

    Args:
        sharing: What is shared.
        tokens: Through the LM.
        cost: The same, with the reading of keys counted in tokens; infinite where nothing can be shared so.
        requests: To a server; its cost are these, by those that it answers at a time.
    """

    sharing: Sharing
    tokens: int
    cost: float
    requests: int = 0


class Plan:
    """How the rows of one split under one template are computed.

    Args:
        layouts: Of all examples.
        trees: Whether the LM can share what rows begin with.
        one_token: Whether each answer is one token, whose logits are read from one row.
        kept: The first so many examples have their trunks kept from call to call.
        wave: Tokens of trunks that may be held at a time.
        kind: Of the prompts: prefixes are trunks that need no computing, others apart from the text neither trunks nor rows.
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
        # Tokens that stand below the first slot, the prompt's left out, and those of the answers that are read.
        self.tail = np.array([sum(map(len, layout.segments[1:])) for layout in layouts])
        self.read = np.array(
            [0 if one_token else sum(len(a) - 1 for a in layout.answers) for layout in layouts]
        )
        self._answers = np.array([1 if one_token else len(layout.answers) for layout in layouts])
        self._kind = kind
        # Below a prefix, each row computes all that it has: a gradient of the prefix crosses it.
        self._same, self._part = self._static() if kind in ("slots", "weights") else (1, 0)

    def _static(self) -> tuple[int, int]:
        """How many segments all examples have in common, and with how many tokens the next one begins alike."""
        first = self._layouts[0].segments
        same = 0
        while same < len(first) and all(
            layout.segments[same] == first[same] for layout in self._layouts
        ):
            same += 1
        if same == len(first):  # the examples differ in nothing: leave the last token for the rows
            same -= 1
        part = min(common(layout.segments[same], first[same]) for layout in self._layouts)
        below = min(sum(map(len, layout.segments[same:])) for layout in self._layouts)
        return same, max(0, min(part, below - 1))

    def choose(self, slots: Sequence[Slots], examples: NDArray[np.int64]) -> Sharing:
        """What to share in a call, by the predicted cost."""
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
        """What a call costs, inputs that are kept from call to call left out.

        Args:
            sharing: What is shared.
            slots: Of each prompt.
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
        if (
            self._same == 0 or self.tail[examples].min() - self._fixed() < 1
        ):  # each row keeps a token of its own to read
            return Prediction(sharing, 0, float("inf"))
        later = np.array(
            [sum(map(len, s[self._same :])) for s in slots]
        )  # slots that stand behind the first input
        trunk = lengths - later + int(self.lead[0]) + self._fixed()
        below = later[:, None] + (tail - self._fixed())[None]
        inside = np.maximum(below, TREE_TOKENS)
        made = np.zeros_like(trunk) if self._kind == "prefix" else trunk
        cost = (made * (1 + made * KEY_COST / 2)).sum() + (
            below * (1 + (trunk[:, None] + inside) * KEY_COST)
        ).sum()
        return Prediction(sharing, int(made.sum() + below.sum()), float(cost))

    def predict_layers(self, prompts: int, examples: NDArray[np.int64], share: float) -> Prediction:
        """What a call costs whose prompts are gated, examples that are kept from call to call left out.

        Args:
            prompts: How many.
            examples: Ids, shape `(examples,)`.
            share: Of the layers, that attend to the prompts.
        """
        rows = self.tail[examples] + self.read[examples]
        times = prompts * share + (examples >= self.kept) * (
            1 - share
        )  # that an example goes through all layers
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
            slots: Of each prompt.
            examples: Ids, shape `(examples,)`.
        """
        order = sorted(range(len(slots)), key=slots.__getitem__)
        if sharing == "input":
            # Without a token of its own below the input, a row cannot share the whole of it.
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
            # One trunk after the other: a pass whose trees have the same one reads it without copies.
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
        """All ids of a row down to where the examples begin to differ."""
        segments = self._layouts[0].segments
        parts = list(segments[0])
        for i in range(self._same):
            parts += slots[i]
            parts += segments[i + 1] if i + 1 < self._same else segments[i + 1][: self._part]
        return tuple(parts)

    def _fixed(self) -> int:
        """Tokens of the trunk below the first slot that are no prompt's."""
        segments = self._layouts[0].segments
        return sum(len(s) for s in segments[1 : self._same]) + (self._part if self._same else 0)

    def _cut(
        self, items: NDArray[np.int64], tokens: NDArray[np.int64], rows: int
    ) -> Iterator[list[int]]:
        """Items in order, as many at a time as trunks and rows allow."""
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
        """Prompts, in order, cut into trees: of each, what it does not share with the one before it, and a tail."""
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
        """The prompts' own tokens in one tree."""
        shared = [common(slots[a][0], slots[b][0]) for a, b in zip(part, part[1:], strict=False)]
        return sum(sum(map(len, slots[i])) for i in part) - sum(shared)


def _fill(sizes: NDArray[np.int64], limit: int) -> Iterator[list[int]]:
    """Places, those of similar size together, as many at a time as stay within the limit."""
    return pack(np.argsort(-sizes, kind="stable").tolist(), lambda i: int(sizes[i]), lambda: limit)


def _longest_first(groups: list[Group]) -> list[Group]:
    return sorted(
        groups, key=lambda group: -group.tokens
    )  # stable: the same work makes the same passes


def passes(wave: Wave, limit: Callable[[], int]) -> Iterator[list[Group]]:
    """Groups of similar length together, the longest first (out of memory comes early, if it comes).

    Args:
        wave: With its groups sorted.
        limit: The most tokens of a pass at this moment; a longer group goes alone. Groups below a prompt share a pass with
            others of this prompt only. Groups below inputs get copies of these, as long as the longest: of eight times
            the limit's tokens at most.
    """
    if wave.sharing == "input":
        yield from pack(wave.groups, lambda g: g.tokens, limit, lambda g: len(wave.trunks[g.trunk]))
        return
    for _, groups in groupby(wave.groups, key=lambda g: g.trunk):
        yield from pack(groups, lambda g: g.tokens, limit)
