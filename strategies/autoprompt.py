"""AutoPrompt: exchange one token at a time for one that the gradient promises to be better.

Shin, Razeghi, Logan, Wallace and Singh 2020, "AutoPrompt: Eliciting Knowledge from Language Models
with Automatically Generated Prompts", arXiv:2010.15980. Section 2.2: at one position the candidates
are the k tokens w with the largest w^T grad log p(y | prompt). The gradient is taken with respect
to the embedding of the token at that position and summed over a batch, as in HotFlip (Ebrahimi
et al. 2018, "HotFlip", arXiv:1712.06751). All candidates are scored by forward passes, and the best
one is kept if it is better.

Differs from the paper: tokens come from the pool, and the first ones are drawn from it instead of
being masks; label words are the task's own, and not looked for (section 2.3); minibatches are some
examples instead of hundreds; the loss decides, not the accuracy. As in the authors' code,
candidates are scored on other examples than those that gave the gradient (where there are too few
for both, each minibatch is drawn by itself, and they may share some), and the present prompt is
scored on the same examples as its candidates.

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promptsearch import (
    Access,
    Ask,
    Evaluation,
    HardPrompt,
    Objective,
    Prompt,
    State,
    Strategy,
    TextPrompt,
)
from promptsearch.records.run import Paper
from promptsearch.records.scores import ExampleIds
from promptsearch.search.asked import in_one_order
from promptsearch.search.options import Count


class AutoPrompt(Strategy):
    """Exchange the token at a random position for the best of those that the gradient names.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the first tokens, positions and minibatches.
        candidates: Tokens tried at a position, k in the paper.
        batch: Examples that give the gradient, and as many others that decide; where fewer are not
            scored on, all of these do both.
        text: Words of the pool to begin with, repeated to the prompt's length; left out: words
            drawn from the pool.

    Raises:
        StrategyError: The text holds tokens outside the pool.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, TextPrompt})
    paper: Paper | None = Paper(
        18_000, "prompts", "180 steps of 100 for sentiment, in its authors' README"
    )

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        candidates: Count = 8,
        batch: Count = 16,
        text: str | None = None,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._candidates, self._batch = candidates, min(batch, len(objective.training))
        self._rng = np.random.default_rng(seed)
        self.present = self.first_words(text, self._rng)
        self._scored = False  # whether the present prompt was scored on all of `score_on`

    def ask(self) -> Sequence[Prompt] | Ask:
        """The present prompt alone when it is new; else it and its candidates on a minibatch."""
        if not self._scored:
            return [self.present]
        space, objective = self.objective.space, self.objective
        if len(space.pool) == 1:
            return []
        leading, deciding = self._minibatches()
        gradient = objective.token_gradient(self.present, leading).numpy()
        place = int(self._rng.integers(space.length))
        # Section 2.2: the linear part of the loss at w is (w - w_present)^T gradient, in which
        # w_present is the same for all, so w^T gradient alone gives the order.
        order = np.argsort(gradient[place], kind="stable")
        own = space.indices(self.present)
        tokens = order[order != own[place]][: self._candidates]
        rows = np.repeat(own[None], len(tokens), axis=0)  # (candidates, length)
        rows[:, place] = tokens
        return Ask([self.present, *map(space.prompt, rows)], deciding)

    def _minibatches(self) -> tuple[ExampleIds, ExampleIds]:
        """Examples that give the gradient, and those that decide, each of shape `(batch,)`."""
        objective, size = self.objective, self._batch
        if 2 * size > len(objective.training):
            leading, deciding = (objective.minibatch(self._rng, size) for _ in range(2))
            return leading, in_one_order(deciding, objective.training)
        both = objective.minibatch(self._rng, 2 * size)
        return both[:size], both[size:]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Keep the best candidate if it is better than the present prompt on the same examples."""
        if not self._scored:
            self._scored = True
            return
        # The present prompt stands first, so it wins a tie.
        best = HardPrompt.among(prompts)[int(np.argmin(evaluation.values))]
        self._scored = best == self.present
        self.present = best

    def state(self) -> State:
        """The present prompt and the generator."""
        data = {
            "ids": list(self.present.ids),
            "scored": self._scored,
            "rng": self._rng.bit_generator.state,
        }
        return State(data=data)

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        self.present, self._scored = HardPrompt(state.data["ids"]), state.data["scored"]
        self._rng.bit_generator.state = state.data["rng"]
