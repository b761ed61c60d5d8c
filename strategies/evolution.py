"""Evolution by nevergrad: mutate the best prompt so far, keep what is better.

J. Rapin and O. Teytaud, "Nevergrad", https://github.com/facebookresearch/nevergrad. The default
optimizer is the classical (1+1) evolution strategy for discrete variables: each token is redrawn
with a probability of one over the prompt's length, at least one token is, and the child replaces
its parent where it is not worse. The search starts from the best of some random prompts. Nevergrad
itself starts from the middle of the pool, with one word at all positions, and a run has only some
hundred evaluations to get away from there.

Each position is an integer, an index into the pool. Nevergrad sees it as a bounded real number
whose bounds are Gaussian: a normal draw then becomes a uniform token. Nevergrad's own choice
parameters copy all tokens for every candidate (seconds each for a whole vocabulary), and plain
bounds hardly visit the pool's ends.

Beats random on the planted objectives `separable`, `pairwise` and `plateau`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from promptsearch import (
    Evaluation,
    HardPrompt,
    Objective,
    Prompt,
    Strategy,
    TextPrompt,
    UnknownName,
)
from promptsearch.search.options import Count

with warnings.catch_warnings():
    # nevergrad imports cma, which warns where it finds no matplotlib: it could not plot, and nobody
    # asks it to plot here.
    warnings.filterwarnings("ignore", module="cma")
    import nevergrad as ng

#: The optimizers of nevergrad that work on integers, in batches and deterministically from a seed.
#: Left out are those that need other packages, those that cannot work in batches, and those for
#: noise, which score the same prompt again and again.
OPTIMIZERS = (
    "PortfolioDiscreteOnePlusOne",
    "DiscreteOnePlusOne",
    "DoubleFastGADiscreteOnePlusOne",
    "DiscreteLenglerOnePlusOne",
    "RecombiningPortfolioDiscreteOnePlusOne",
    "TwoPointsDE",
    "NGOpt",
)
#: The loss that nevergrad is told of a failed prompt: worse than any other, and still a number that
#: it does not complain about.
_FAILED = 1e9
#: The most evaluations that nevergrad is told of, also where there is no budget: it plans its steps
#: by the number of evaluations to come.
_UNLIMITED = 1_000_000


class Evolution(Strategy):
    """Mutate the best prompt so far and keep what is better.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the optimizer.
        optimizer: A name of nevergrad's registry, one of `OPTIMIZERS` in this file.
        batch: Prompts in each ask: small ones learn faster, large ones score faster.
        first: Random prompts before the first mutation; 0 starts from the middle of the pool.

    Raises:
        UnknownName: The optimizer is not in the list.
    """

    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        optimizer: str = "DiscreteOnePlusOne",
        batch: Count = 8,
        first: Annotated[int, Field(ge=0, le=100_000)] = 16,
    ) -> None:
        super().__init__(objective, seed=seed)
        length, pool = objective.space.length, len(objective.space.pool)
        tokens = ng.p.Array(init=np.full(length, pool / 2))
        tokens.set_bounds(0, pool, method="gaussian")
        tokens = tokens - 0.5  # rounding then gives each index the same share
        tokens.set_integer_casting()
        # Nevergrad takes the legacy generator only.
        tokens.random_state = np.random.RandomState(seed)
        budget = max(1, min(objective.affordable(length), _UNLIMITED))
        self._optimizer = ng.optimizers.registry[optimizer](
            tokens, budget=budget, num_workers=batch
        )
        for row in np.random.default_rng(seed).integers(pool, size=(first, length)):
            self._optimizer.suggest(row)
        if objective.start is not None:  # what is suggested last is asked first
            start = self.first_words(None, np.random.default_rng(seed))
            self._optimizer.suggest(objective.space.indices(start))
        self._batch = batch
        self._candidates: list[ng.p.Array] = []
        self._scored: set[Prompt] = set()

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that the optimizer is in the list."""
        if options["optimizer"] not in OPTIMIZERS:
            raise UnknownName("optimizer", options["optimizer"], OPTIMIZERS)

    def ask(self) -> Sequence[Prompt]:
        """`batch` mutations of the best prompt; none when the whole space has been scored."""
        space = self.objective.space
        if len(self._scored) == space.size:
            return []
        self._candidates = [self._optimizer.ask() for _ in range(self._batch)]
        return [
            space.prompt(np.clip(candidate.value, 0, len(space.pool) - 1))
            for candidate in self._candidates
        ]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Hand the losses to the optimizer."""
        self._scored.update(prompts)
        for candidate, value in zip(self._candidates, evaluation.values, strict=True):
            self._optimizer.tell(candidate, min(float(value), _FAILED))
