"""Exhaustive search: every prompt of the space, in lexicographic order.

It is the yardstick for small spaces: it says what the best hard prompt is, so that another search
can say by how much it missed. Neighbours in this order share their beginnings, which the engine
computes once.

No part of the space is left out by a bound. For a beginning there is no bound: whatever its tokens
are, the next one can raise or lower the loss to anything above 0, so the loss of a beginning says
nothing about the prompts that go on from it. For examples there is one, since no loss is below
0: a prompt whose losses on some examples sum to more than the best prompt's losses on all of them
cannot win. But every prompt that is left has to be paid for again on all examples, and ten
finalists have to be told apart, so the bound saves too little. With eight blocks of examples and
the ten best kept exact, the 256 prompts of `results/exhaustive-capitals` would have cost about 0.96
of the full price.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import ClassVar

from promptsearch import HardPrompt, Objective, Prompt, Strategy
from promptsearch.errors import StrategyError
from promptsearch.search.options import Count

_log = logging.getLogger(__name__)


class Exhaustive(Strategy):
    """Score every prompt of the space, in the order of the pool.

    Args:
        objective: Scores prompts on the search split.
        seed: Makes no difference.
        batch: Prompts in each ask.
        partial: Whether to start although the budget does not reach to the end of the space.

    Raises:
        StrategyError: The budget does not reach to the end of the space and `partial` is false, or
            `batch` is below 1.
    """

    deterministic: ClassVar[bool] = True
    reference: ClassVar[bool] = True

    def __init__(
        self, objective: Objective, *, seed: int, batch: Count = 64, partial: bool = False
    ) -> None:
        super().__init__(objective, seed=seed)
        space = objective.space
        first = HardPrompt(space.pool[[0] * space.length])
        once, twice = objective.price([first]), objective.price([first, first])
        # The text before the first slot is paid once.
        cost = once + (space.size - 1) * (twice - once)
        size = (
            f"{len(space.pool):,} tokens at {space.length} positions make {space.size:,} prompts; "
            f"they cost {cost:,} LM tokens"
        )
        _log.info("exhaustive: %s", size)
        affordable = objective.affordable(space.length)
        if affordable < space.size and not partial:
            raise StrategyError(
                f"exhaustive: {size}, and the {objective.ledger.left:,} that may be spent reach "
                f"for {affordable:,} of them. Use a smaller pool, a shorter prompt or a larger "
                "budget, or set 'partial' to true to score as many as that."
            )
        self._batch = batch
        self._rows = itertools.product(range(len(space.pool)), repeat=space.length)

    def ask(self) -> Sequence[Prompt]:
        """The next `batch` prompts."""
        return [
            self.objective.space.prompt(row) for row in itertools.islice(self._rows, self._batch)
        ]
