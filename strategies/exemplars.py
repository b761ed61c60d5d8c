"""Exemplars: solved examples in the prompt, in-context learning, the baseline that needs no search.

Brown et al. 2020, "Language Models are Few-Shot Learners", arXiv:2005.14165: k examples with their
answers stand before the input. It matters which ones (Zhao et al. 2021, "Calibrate Before Use",
arXiv:2102.09690); so sets of examples may also be drawn until the budget is spent, and the one with
the lowest loss is kept.

Differs from the paper: the examples fill the template's first slot, wherever that stands; none of
them is scored on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from promptsearch import Objective, Prompt, Strategy, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.search.options import Count


class Exemplars(Strategy):
    """Put solved examples into the prompt.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draws.
        shots: Examples in a prompt.
        choose: `loss` draws sets until the budget is spent, and the best one wins; `random` takes
            the first set.
        batch: Sets in each ask.
        separator: Stands behind each example.

    Raises:
        StrategyError: There are fewer than `shots` examples that are not scored on.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    searches: ClassVar[bool] = False
    control: ClassVar[bool] = True

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        shots: Count = 4,
        choose: Literal["loss", "random"] = "loss",
        batch: Count = 4,
        separator: str = "\n",
    ) -> None:
        super().__init__(objective, seed=seed)
        if shots > len(objective.training):
            raise StrategyError(
                f"{shots} shots were asked for, but only {len(objective.training)} examples "
                "are not scored on"
            )
        self._rng, self._shots, self._separator = np.random.default_rng(seed), shots, separator
        self._once, self._batch = choose == "random", batch
        self._asked = False

    def ask(self) -> Sequence[Prompt]:
        """Sets of examples, drawn from those that are not scored on."""
        if self._once and self._asked:
            return []
        self._asked = True
        return [self._draw() for _ in range(1 if self._once else self._batch)]

    def _draw(self) -> TextPrompt:
        ids = self._rng.choice(self.objective.training, self._shots, replace=False)
        return TextPrompt(
            "".join(text + self._separator for text in self.objective.demonstrations(ids))
        )
