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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.counts import RowCounts
from promptsearch.scoring.kinds import Placing, Sharing, Slots
from promptsearch.scoring.reading import Layout
from promptsearch.scoring.waves import TREE_TOKENS, Wave, Waves, part_tokens, tree_parts

#: The most tokens of a pass, by device. On a CPU the activations of a small pass stay in the
#: caches; a GPU wants to be filled.
PASS_TOKENS = {"cpu": 512, "cuda": 16_384}
#: The cost for a token to read one key, in tokens: measured on a CPU, a thousand keys take as long
#: as all the rest.
KEY_COST = 1 / 1000


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
        shares: Whether the LM's rows can share what they begin with.
        one_token: Whether each answer is one token, whose logits are read from one row.
        kept: The number of examples, from the first, whose trunks are kept from call to call.
        wave: The most tokens of trunks that may be held at a time.
        placing: The way in which the template's prompts go through the LM.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        *,
        shares: bool,
        one_token: bool,
        kept: int,
        wave: int,
        placing: Placing,
    ) -> None:
        self.kept = kept
        self.wave = wave
        self._shares = shares
        self._placing = placing
        self._counts = RowCounts(layouts, one_token=one_token, share=placing.common)
        self._waves = Waves(self._counts, shares=shares, wave=wave)

    def choose(self, slots: Sequence[Slots], examples: ExampleIds) -> Sharing:
        """The sharing with the lowest predicted cost for a call.

        Args:
            slots: The ids that each prompt puts into the slots.
            examples: Ids, shape `(examples,)`.
        """
        if self._placing.only is not None:
            return self._placing.only
        if not self._shares:
            return "nothing"
        ways: tuple[Sharing, ...] = ("nothing", "input", "prompt")
        costs = {way: self.predict(way, slots, examples).cost for way in ways}
        return min(costs, key=lambda way: costs[way])

    def predict(self, sharing: Sharing, slots: Sequence[Slots], examples: ExampleIds) -> Prediction:
        """The cost of a call, without inputs that are kept from call to call.

        Args:
            sharing: What is shared.
            slots: The ids that each prompt puts into the slots.
            examples: Ids, shape `(examples,)`.
        """
        counts = self._counts
        slots = sorted(slots)
        lengths = np.array([sum(map(len, s)) for s in slots])
        tail, lead = counts.tail[examples] + counts.read[examples], counts.lead[examples]
        if sharing == "nothing":
            times = 1 if self._shares else counts.answers[examples]
            whole = (
                lengths[:, None] * times
                + ((lead + counts.tail[examples]) * times + counts.read[examples])[None]
            )
            return Prediction(
                sharing, int(whole.sum()), float((whole * (1 + whole * KEY_COST / 2)).sum())
            )
        if sharing == "input":
            if not lead.any():
                return Prediction(sharing, 0, float("inf"))
            known = {counts.layouts[e].segments[0] for e in examples if e < self.kept}
            trunks = [len(ids) for ids in {counts.layouts[e].segments[0] for e in examples} - known]
            below = (
                sum(part_tokens(slots, part) for part in tree_parts(slots, int(tail.max())))
                + len(slots) * tail
            )
            cost = (
                sum(t * (1 + t * KEY_COST / 2) for t in trunks)
                + (below * (1 + (lead + TREE_TOKENS) * KEY_COST)).sum()
            )
            return Prediction(sharing, sum(trunks) + int(below.sum()), float(cost))
        # Each row needs a token of its own, from which its answer is predicted.
        if counts.same == 0 or counts.tail[examples].min() - counts.fixed < 1:
            return Prediction(sharing, 0, float("inf"))
        # The prompt's tokens in slots behind the first input: these are in no trunk.
        later = np.array([sum(map(len, s[counts.same :])) for s in slots])
        trunk = lengths - later + int(counts.lead[0]) + counts.fixed
        below = later[:, None] + (tail - counts.fixed)[None]
        inside = np.maximum(below, TREE_TOKENS)
        made = np.zeros_like(trunk) if self._placing.given else trunk
        cost = (made * (1 + made * KEY_COST / 2)).sum() + (
            below * (1 + (trunk[:, None] + inside) * KEY_COST)
        ).sum()
        return Prediction(sharing, int(made.sum() + below.sum()), float(cost))

    def predict_alone(self, lengths: ExampleIds, examples: ExampleIds) -> Prediction:
        """The cost of a call with prompts that differ from row to row, so that each goes alone.

        Args:
            lengths: The numbers of their tokens, shape `(prompts, examples)`.
            examples: Ids, shape `(examples,)`.
        """
        counts = self._counts
        times = 1 if self._shares else counts.answers[examples]
        rows = lengths + counts.lead[examples] + counts.tail[examples]
        rows = rows * times + counts.read[examples]
        return Prediction(
            "nothing", int(rows.sum()), float((rows * (1 + rows * KEY_COST / 2)).sum())
        )

    def predict_layers(self, prompts: int, examples: ExampleIds, share: float) -> Prediction:
        """The cost of a call with gated prompts.

        Examples that are kept from call to call go only through the layers that attend to prompts.

        Args:
            prompts: The number of prompts.
            examples: Ids, shape `(examples,)`.
            share: The share of the layers that attend to the prompts.
        """
        counts = self._counts
        rows = counts.tail[examples] + counts.read[examples]
        # The number of times that an example goes through all layers.
        times = prompts * share + (examples >= self.kept) * (1 - share)
        return Prediction(
            "layers",
            round(float((rows * times).sum())),
            float((rows * (1 + rows * KEY_COST / 2) * times).sum()),
        )

    def waves(
        self, sharing: Sharing, slots: Sequence[Slots], examples: ExampleIds
    ) -> Iterator[Wave]:
        """The work of a call, cut into waves, see `promptsearch.scoring.waves`."""
        return self._waves.cut(sharing, slots, examples)

    def pairs(self, slots: Sequence[Slots], examples: ExampleIds) -> Iterator[Wave]:
        """The work of prompts that stand before one example each, cut into waves.

        Rows with a kept input go below it, and all others whole, as each would alone.

        Args:
            slots: The ids that each prompt puts into the slots.
            examples: The ids of their examples, shape `(prompts,)`.
        """
        below: dict[Sharing, list[int]] = {}
        for i, own in enumerate(slots):
            way = self.choose([own], examples[i : i + 1])
            # From a row's own last token its answer is predicted.
            bare = self._counts.tail[examples[i]] + sum(map(len, own)) < 1
            below.setdefault("input" if way == "input" and not bare else "nothing", []).append(i)
        for way, some in below.items():
            yield from self._waves.pairs(way, some, slots, examples)
