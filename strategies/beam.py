"""Beam search: build the prompt from left to right, and go on from the best few beginnings.

H. Zhou et al. 2023, "Survival of the Most Influential Prompts: Efficient Black-Box Prompt Search
via Clustering and Pruning" (ClaPS), arXiv:2310.12774, searches greedily over a pruned pool, which
is a beam of width 1.

Differs from the paper: several beginnings are kept; a beginning is scored as the prompt that it is,
so a shorter prompt may win; and the budget decides how many tokens are tried. Each depth gets an
equal share of what is left. With a small pool all tokens are tried behind each beginning. Where the
share is too small for that, the best beginning gets half of it, the next one half of the rest, and
so on, in tokens drawn without replacement (on planted objectives of 100 tokens and 300 evaluations
this ends nearer to the optimum than equal parts). Where budget is left after the last depth, the
search starts again with twice the width and with tokens that were not tried before; a small space
is scored as a whole in this way.

Beats random on the planted objectives `separable`, `pairwise` and `plateau`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promptsearch import Evaluation, HardPrompt, Objective, Prompt, Strategy, TextPrompt
from promptsearch.records.run import Paper
from promptsearch.search.options import Count

Ids = tuple[int, ...]  # tokens of the pool that make a prompt or its beginning


class Beam(Strategy):
    """Add token after token to the best few beginnings of a prompt; a shorter prompt may win.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draw of tokens.
        width: Beginnings that are kept at each depth; 1 is greedy search.
        batch: Prompts in each ask; what is learned within a depth is used at the next, so large
            ones only score faster.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({HardPrompt, TextPrompt})
    paper: Paper | None = Paper(1_000, "prompts", "5 tokens, each the best of 200, in ClaPS' code")

    def __init__(
        self, objective: Objective, *, seed: int, width: Count = 4, batch: Count = 16
    ) -> None:
        super().__init__(objective, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._width, self._batch = width, batch
        self.values: dict[Ids, float] = {}  # loss of all that was scored, nats
        self._complete = 0  # how many of these are prompts of full length
        self.beams: list[Ids] = [()]
        self._queue: list[Ids] = self._children()
        self._asked: list[Ids] = []

    def ask(self) -> Sequence[Prompt]:
        """`batch` beginnings, one token longer; none when the whole space has been scored."""
        space = self.objective.space
        while not self._queue:
            if self._complete == space.size:
                return []
            self._deepen()
        self._asked, self._queue = self._queue[: self._batch], self._queue[self._batch :]
        return [space.beginning(ids) for ids in self._asked]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Remember what each beginning is worth."""
        self.values.update(zip(self._asked, evaluation.values.tolist(), strict=True))
        self._complete += sum(len(ids) == self.objective.space.length for ids in self._asked)

    def _deepen(self) -> None:
        """Keep the best of this depth and go on to the next; after the last, search more widely."""
        depth = len(self.beams[0]) + 1
        if depth == self.objective.space.length:
            self.beams, self._width = [()], 2 * self._width
        else:
            parents = set(self.beams)
            scored = [ids for ids in self.values if len(ids) == depth and ids[:-1] in parents]
            # Failures come last, and a tie goes to the earlier one.
            self.beams = sorted(scored, key=self.values.__getitem__)[: self._width]
        self._queue = self._children()

    def _children(self) -> list[Ids]:
        """The beams, best first, each with untried tokens behind it.

        Together they are as many as this depth may score.
        """
        space = self.objective.space
        left = space.length - len(self.beams[0])
        share = max(1, self.objective.affordable(space.length) // left)
        found: list[Ids] = []
        for beam in self.beams:
            fresh = [token for token in space.pool.tolist() if (*beam, token) not in self.values]
            part = share - len(found)
            count = min(len(fresh), part if beam is self.beams[-1] else -(-part // 2))
            chosen = self._rng.choice(fresh, count, replace=False).tolist() if count else []
            # In the order of the token ids, for the engine computes shared beginnings once.
            found += [(*beam, token) for token in sorted(chosen)]
        return found
