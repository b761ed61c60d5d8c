"""A genetic algorithm over tokens: cross and mutate good prompts, keep the best of old and new.

    >>> from promptsearch.search.loop import search
    >>> from promptsearch.testing.planted import planted_objective
    >>> objective = planted_objective("separable")
    >>> search(Genetic(objective, seed=0))
    '8 prompts were asked for and 5 could be paid'
    >>> round(objective.ranking[0].value, 1)  # nats
    0.5

J. H. Holland 1975, "Adaptation in Natural and Artificial Systems"; as prompt search, H. Zhou
et al. 2023, "Survival of the Most Influential Prompts" (ClaPS), arXiv:2310.12774. Each generation
has parents chosen by tournament, uniform crossover (G. Syswerda 1989, "Uniform Crossover in Genetic
Algorithms"), mutation at a rate of 1 over the length (H. Muehlenbein 1992, "How Genetic Algorithms
Really Work: Mutation and Hillclimbing"), and some random immigrants. The best of old and new
survive, (mu + lambda): all survivors are the elite.

Differs from ClaPS' program: prompts are token ids from birth to death, so that none changes its
length and each position mutates; a child of two parents that differ has tokens of both; no prompt
is scored twice; tournaments only ask who is better, so losses may have any sign.

Beats random on the planted objectives `separable`, `pairwise` and `plateau`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from promptsearch import Evaluation, HardPrompt, Objective, Prompt, Strategy, TextPrompt
from promptsearch.records.run import Paper
from promptsearch.search.options import Count, Share

#: Children that are bred until one is new, before a random prompt takes its place.
_TRIES = 20

Ids = tuple[int, ...]  # (length,) tokens of the pool


@dataclass(frozen=True)
class Member:
    """A prompt and its own loss, held together so that no re-ordering can part them."""

    value: float  # nats
    ids: Ids


class Genetic(Strategy):
    """Cross and mutate the best prompts.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds all draws.
        population: Prompts that survive a generation; the first generation is this many random
            ones.
        children: Prompts of each further generation.
        tournament: Members that compete to be a parent: more of them press harder.
        immigrants: Share of each generation that is random.
        neighbours: A mutated token becomes one of this many nearest tokens of the pool, by the LM's
            embeddings; 0: any token.

    Raises:
        StrategyError: An option is out of its range.
    """

    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, TextPrompt})
    paper: Paper | None = Paper(3_840, "prompts", "30 generations of 128, in ClaPS' code")

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        population: Annotated[Count, Field(ge=2)] = 16,
        children: Count = 8,
        tournament: Count = 3,
        immigrants: Share = 0.05,
        neighbours: Annotated[int, Field(ge=0, le=100_000)] = 0,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._size, self._children = population, children
        self._tournament, self._immigrants, self._near = tournament, immigrants, neighbours
        if neighbours:
            objective.space.neighbours([], neighbours)  # a model without embeddings says so now
        # One member of the first generation, where the run starts from another one.
        self._start = None if objective.start is None else self.first_words(None, self._rng).ids
        self.members: list[Member] = []  # best first
        self._scored: set[Ids] = set()
        self._asked: list[Ids] = []

    def ask(self) -> Sequence[Prompt]:
        """A generation of prompts, none of which was scored before.

        It is empty when the whole space has been scored.
        """
        first = len(self._scored) == 0
        new: dict[Ids, None] = {self._start: None} if first and self._start else {}
        left = self.objective.space.size - len(self._scored)
        for _ in range(min(self._size if first else self._children, left) - len(new)):
            new[self._new(new)] = None
        self._asked = list(new)
        return [HardPrompt(ids) for ids in self._asked]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Let the best of old and new survive."""
        born = list(map(Member, evaluation.values.tolist(), self._asked))
        self.members = survivors(born, self.members, self._size)
        self._scored.update(self._asked)

    def _new(self, siblings: dict[Ids, None]) -> Ids:
        """A prompt that was not scored and is not among its siblings of the same generation."""
        if len(self.members) >= 2 and self._rng.random() >= self._immigrants:
            for _ in range(_TRIES):
                crossed = uniform_crossover(*self.parents(), self._rng)
                child = mutation(crossed, self.other, self._rng)
                if child not in self._scored and child not in siblings:
                    return child
        while True:
            (prompt,) = self.objective.space.sample(self._rng, 1)
            if prompt.ids not in self._scored and prompt.ids not in siblings:
                return prompt.ids

    def parents(self) -> tuple[Ids, Ids]:
        """The winners of two tournaments, never the same member twice."""
        mother = tournament(self.members, self._tournament, self._rng)
        others = [member for member in self.members if member is not mother]
        return mother.ids, tournament(others, self._tournament, self._rng).ids

    def other(self, token: int) -> int:
        """Any token of the pool, or one of the nearest."""
        pool = self.objective.space.pool
        if self._near and len(pool) > 1:
            pool = self.objective.space.neighbours([token], self._near)[0]
        return int(self._rng.choice(pool))


def tournament(members: Sequence[Member], size: int, rng: np.random.Generator) -> Member:
    """The best of `size` members drawn with replacement; `members` has the best one first."""
    return members[int(rng.integers(len(members), size=size).min())]


def uniform_crossover(mother: Ids, father: Ids, rng: np.random.Generator) -> Ids:
    """The mother with some of the father's tokens, but not all in which the two differ."""
    differ = [i for i, (a, b) in enumerate(zip(mother, father, strict=True)) if a != b]
    child = list(mother)
    if len(differ) >= 2:
        count = int(rng.integers(1, len(differ)))
        for i in rng.choice(differ, count, replace=False):
            child[i] = father[i]
    return tuple(child)


def mutation(ids: Ids, other: Callable[[int], int], rng: np.random.Generator) -> Ids:
    """Each token changed with a probability of 1 over the length (Muehlenbein 1992).

    Args:
        ids: The prompt.
        other: Returns the token in whose favour one is given up.
        rng: Says which tokens change.
    """
    return tuple(other(token) if rng.random() < 1 / len(ids) else token for token in ids)


def survivors(born: Sequence[Member], old: Sequence[Member], size: int) -> list[Member]:
    """(mu + lambda) selection: the `size` best of old and new, the best one first.

    Failed prompts die. At equal losses the new ones survive, so that plateaus are crossed.
    """
    alive = [member for member in (*born, *old) if np.isfinite(member.value)]
    return sorted(alive, key=lambda member: member.value)[:size]
