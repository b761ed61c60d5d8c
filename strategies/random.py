"""Random search: the floor that every other search must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch import HardPrompt, Objective, Prompt, Strategy
from promptsearch.search.options import Count


class Random(Strategy):
    """Propose prompts drawn uniformly from the space, each at most once.

    In a small space the search ends when all prompts have been proposed.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draw.
        batch: Prompts in each ask.
    """

    def __init__(self, objective: Objective, *, seed: int, batch: Count = 16) -> None:
        super().__init__(objective, seed=seed)
        self._batch = batch
        self._rng = np.random.default_rng(seed)
        self._proposed: set[HardPrompt] = set()

    def ask(self) -> Sequence[Prompt]:
        """The next `batch` prompts, fewer at the end of a small space."""
        space = self.objective.space
        fresh: dict[HardPrompt, None] = {}
        while len(fresh) < min(self._batch, space.size - len(self._proposed)):
            (prompt,) = space.sample(self._rng, 1)
            if prompt not in self._proposed:
                fresh[prompt] = None
        self._proposed.update(fresh)
        return list(fresh)
