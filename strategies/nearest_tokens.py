"""Nearest tokens: a trained soft prompt in words, and what is lost on the way.

Lester, Al-Rfou and Constant 2021, arXiv:2104.08691, section 7, read a soft prompt by the tokens
with the highest cosine. Khashabi et al. 2022, "Prompt Waywardness", arXiv:2112.08348, show that the
nearest tokens of a prompt that works can be any text at all, so what the words are worth has to be
measured. They are scored as any prompt is, and the report shows them beside the vectors.

Differs from the papers: the nearest tokens are those of the pool, not of the whole vocabulary. The
strategy tries those by cosine, by Euclidean distance and by dot product, then combinations of each
position's nearest few, in the order of the sum of their cosines.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from promptsearch import HardPrompt, Objective, Prompt, SoftPrompt, Strategy
from promptsearch.errors import StrategyError
from promptsearch.search.options import Count


class NearestTokens(Strategy):
    """Project the soft prompt of another run to words of the pool.

    The run is the one that `start: {run: LABEL}` names.

    Args:
        objective: Scores prompts on the search split.
        seed: Makes no difference: the prompt that it starts from is that of the run with the same
            seed.
        nearest: Tokens of each position that are combined.
        tries: Prompts to score, at most.

    Raises:
        StrategyError: An option is below 1, or there is no soft prompt to start from.
    """

    searches: ClassVar[bool] = False
    starts_from: ClassVar[frozenset[type]] = frozenset({SoftPrompt})

    def __init__(
        self, objective: Objective, *, seed: int, nearest: Count = 3, tries: Count = 24
    ) -> None:
        super().__init__(objective, seed=seed)
        vectors = None if objective.start is None else objective.start.parts.vectors
        if vectors is None:
            raise StrategyError(
                "nearest_tokens puts another run's soft prompt into words: name the run, "
                "start: {run: LABEL}"
            )
        # The vectors have the shape (length, width); the embeddings of the pool, (pool, width).
        words = objective.embeddings[torch.from_numpy(objective.space.pool.copy())].float().cpu()
        # Section 7: the tokens with the highest cosine, (length, pool).
        cosines = normalize(vectors, dim=-1) @ normalize(words, dim=-1).T
        single = [
            cosines.argmax(-1),
            torch.cdist(vectors, words).argmin(-1),
            (vectors @ words.T).argmax(-1),
        ]
        values, places = cosines.topk(min(nearest, len(words)), dim=-1)  # (length, nearest) each
        combined = (
            places.gather(1, choice[:, None])[:, 0]
            for choice in map(torch.tensor, combinations(values.double().numpy()))
        )
        # The three projections come first; each prompt comes once, and at most `tries` in all.
        prompts = (
            objective.space.prompt(row.numpy()) for some in (single, combined) for row in some
        )
        self._waiting = list(islice(_different(prompts), tries))

    def ask(self) -> Sequence[Prompt]:
        """All prompts, once."""
        asked, self._waiting = self._waiting, []
        return asked


def combinations(values: NDArray[np.float64]) -> Iterator[list[int]]:
    """All choices of one column a row, in the order of their sums, the largest first.

    Args:
        values: The values to sum, falling within each row, shape `(rows, columns)`.

    Yields:
        The column that is chosen in each row.
    """
    rows, columns = values.shape
    first = (0,) * rows
    waiting, seen = [(0.0, first)], {first}
    while waiting:
        lost, choice = heapq.heappop(waiting)
        yield list(choice)
        for row in range(rows):
            if choice[row] + 1 < columns:
                further = (*choice[:row], choice[row] + 1, *choice[row + 1 :])
                if further not in seen:
                    seen.add(further)
                    step = float(values[row, choice[row]] - values[row, choice[row] + 1])
                    heapq.heappush(waiting, (lost + step, further))


def _different(prompts: Iterator[HardPrompt]) -> Iterator[HardPrompt]:
    seen: set[HardPrompt] = set()
    for prompt in prompts:
        if prompt not in seen:
            seen.add(prompt)
            yield prompt
