"""A proposer without an LM, for tests of strategies that ask one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from promptsearch.models.endpoint import Completion
from promptsearch.prompts.space import PromptSpace


class PlantedProposing:
    """Mixes and mutates the planted words that it finds in a request.

    A line of the request with words such as `w17` is an instruction to it. What it writes takes
    each word from the same place of one of them, of the last line half of the time, of the one
    before it a quarter, and so on; one word on average is drawn from the pool instead. Where it
    finds none, all are.

    Args:
        space: Whose pool and length it knows.
        failing: Share of its answers, at random, in which there is nothing to use.
    """

    def __init__(self, space: PromptSpace, failing: float = 0.0) -> None:
        self._space, self._failing = space, failing

    def most(self, request: str) -> int:
        """A token a word."""
        return len(request.split())

    def complete(
        self,
        requests: Sequence[str],
        *,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        stop: Sequence[str],
    ) -> list[Completion]:
        """See `promptsearch.search.proposer.Proposing`; the temperature makes no difference."""
        found = []
        for request, seed in zip(requests, seeds, strict=True):
            words = self._words(request, np.random.default_rng(seed))[:max_tokens]
            found.append(Completion(" ".join(words), self.most(request), len(words)))
        return found

    def _words(self, request: str, rng: np.random.Generator) -> list[str]:
        if rng.random() < self._failing:
            return ["..."]
        lines = [words for line in request.splitlines() if (words := re.findall(r"\bw\d+\b", line))]
        written = []
        for place in range(self._space.length):
            line = lines[-min(int(rng.geometric(0.5)), len(lines))] if lines else []
            drawn = self._space.decode([int(rng.choice(self._space.pool))])
            mutated = rng.random() < 1 / self._space.length
            written.append(drawn if mutated or place >= len(line) else line[place])
        return written
