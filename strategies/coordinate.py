"""Coordinate descent over tokens: try tokens at one position, keep the best if the loss falls.

S. J. Wright 2015, "Coordinate descent algorithms", https://doi.org/10.1007/s10107-015-0892-3,
algorithm 1.

Differs from it: tokens stand in place of numbers, and nothing says where a better one lies; so
`tries` of them are scored, and the best one is taken where the loss falls. The positions come in
random order, each once a round. At a position those tokens come first that were tried there least
often: what a token is worth depends on the rest of the prompt, but not on the rest alone. A prompt
in which no single token can be changed for the better is a local optimum: the search then goes on
from a random prompt.

Beats random on the planted objectives `separable`, `pairwise` and `plateau`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promptsearch import Evaluation, HardPrompt, Objective, Prompt, Strategy, TextPrompt
from promptsearch.search.options import Count

Ids = tuple[int, ...]  # (length,) tokens of the pool


class Coordinate(Strategy):
    """Change one token at a time, and keep what is better.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the order of positions and tokens, and the random prompts.
        tries: Tokens that are scored at a position before the best of them is taken; left out: all
            of the pool.
        text: Words of the pool to begin with, repeated to the prompt's length; left out: words
            drawn from the pool.

    Raises:
        StrategyError: The text holds tokens outside the pool.
    """

    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, TextPrompt})

    def __init__(
        self, objective: Objective, *, seed: int, tries: Count | None = 8, text: str | None = None
    ) -> None:
        super().__init__(objective, seed=seed)
        space = objective.space
        self._rng = np.random.default_rng(seed)
        self._tries = len(space.pool) if tries is None else tries
        self._values: dict[Ids, float] = {}  # loss of all that was scored, nats
        # How often each token was tried at each position.
        self._times = np.zeros((space.length, len(space.pool)))
        self._start: Ids | None = self.first_words(text, self._rng).ids
        self.current: Ids | None = None  # None: a new descent begins
        self._round: list[int] = []  # positions that come next
        self._asked: list[Ids] = []

    def ask(self) -> Sequence[Prompt]:
        """Prompts with other tokens at the next position, or the one where a descent begins.

        No prompt is asked for when the whole space has been scored.
        """
        if len(self._values) == self.objective.space.size:
            return []
        self._asked = self._neighbours() or [self._restart()]
        return [HardPrompt(ids) for ids in self._asked]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Move to the best of the prompts if it is better than the current one."""
        values = evaluation.values.tolist()
        self._values.update(zip(self._asked, values, strict=True))
        best = self._asked[int(np.argmin(values))]
        if self.current is None or self._values[best] < self._values[self.current]:
            self.current = best  # Wright, algorithm 1

    def _neighbours(self) -> list[Ids]:
        """The current prompt with other tokens at the next position; empty at a local optimum.

        Prompts that were scored before are left out. One of an earlier descent leads to where that
        descent ended, and one of this descent is no better than the current prompt.
        """
        if self.current is None:
            return []
        space, current = self.objective.space, self.current
        for _ in range(2 * space.length):  # what is left of this round, and a whole one
            if not self._round:
                self._round = self._rng.permutation(space.length).tolist()
            at = self._round.pop()
            order = np.lexsort((self._rng.random(len(space.pool)), self._times[at]))
            changed = (
                (place, (*current[:at], int(space.pool[place]), *current[at + 1 :]))
                for place in order
            )
            found = [(place, ids) for place, ids in changed if ids not in self._values][
                : self._tries
            ]
            if found:
                self._times[at, [place for place, _ in found]] += 1
                return [ids for _, ids in found]
        return []

    def _restart(self) -> Ids:
        """The first prompt, or later on a random one that was not scored."""
        self.current, ids, self._start = None, self._start, None
        while ids is None or ids in self._values:
            ids = self.objective.space.sample(self._rng, 1)[0].ids
        return ids
