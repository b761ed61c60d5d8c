"""What tests search: a planted objective without an LM, a tiny LM, or an arena."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.search import loop
from promptsearch.search.objective import FINALISTS, Objective
from promptsearch.search.strategy import Strategy
from promptsearch.study.arena import Arena


class Searched(Protocol):
    """What gives out objectives, such as `promptsearch.testing.planted.PlantedScorer`."""

    @property
    def space(self) -> PromptSpace:
        """Pool and length of hard prompts."""

    @property
    def embeddings(self) -> Tensor:
        """The embeddings of all tokens, shape `(vocabulary, width)`."""

    def budget(self, evaluations: int) -> int:
        """The budget that buys this many evaluations of hard prompts on all of `score_on`."""

    def objective(
        self,
        budget: int | None = None,
        *,
        log: RunLog | None = None,
        reserve: Callable[[Sequence[int]], int] = lambda lengths: 0,
        finalists: int = FINALISTS,
        white_box: bool = True,
    ) -> Objective:
        """A fresh objective.

        Args:
            budget: LM tokens; None for no limit.
            log: Where evaluations are written and read back; None keeps them in memory.
            reserve: Lengths of prompts -> tokens set aside to select among them.
            finalists: How many of the best prompts are kept.
            white_box: Whether the strategy is handed the white box.
        """


def objective_on(arena: Arena, budget: int | None = 100_000, **given: Any) -> Objective:
    """A fresh objective on an arena, which trains on all that it does not score on.

    Args:
        arena: The arena.
        budget: LM tokens; None for no limit.
        given: What else `Objective` takes.
    """
    training = np.arange(arena.score_on, len(arena.task.splits["search"]))
    scorer, ledger = arena.searching, Ledger(budget)
    return Objective(scorer, arena.space, ledger, scored=arena.scored, training=training, **given)


def random_search(searched: Searched, evaluations: int, seed: int) -> float:
    """The loss that random search reaches, in nats: the floor of all searches.

    Args:
        searched: What is searched.
        evaluations: The evaluations of hard prompts that its budget buys.
        seed: Its seed.
    """
    objective = searched.objective(searched.budget(evaluations))
    loop.search(_Random(objective, seed=seed))
    return objective.ranking[0].value


class _Random(Strategy):
    """Draws uniformly from the space."""

    def __init__(self, objective: Objective, *, seed: int) -> None:
        super().__init__(objective, seed=seed)
        # Not the stream of a strategy with the same seed.
        self._rng = np.random.default_rng([seed, 2])

    def ask(self) -> Sequence[Prompt]:
        return self.objective.space.sample(self._rng, 16)
