"""GCG: exchange one token at any position for one that the gradient promises to be better.

Zou, Wang, Carlini, Nasr, Kolter and Fredrikson 2023, "Universal and Transferable Adversarial
Attacks on Aligned Language Models", arXiv:2307.15043. Algorithm 1: for each position, take the k
tokens with the largest negative gradient with respect to its one-hot vector; make `width` prompts
that differ from the present one in one token, with position and token drawn uniformly; score all of
them; the best one is the next. The buffer of several prompts, of which the best is changed and the
worst replaced, is that of Hayase, Borevkovic, Carlini, Tramer and Nasr 2024, "Query-Based
Adversarial Prompt Generation", arXiv:2402.12329, Algorithm 1.

Differs from the paper: the loss is that of the task, over minibatches, instead of that of one
target string; the present prompt stays where no candidate is better (in Algorithm 1 it is always
replaced); there are some candidates instead of 512. Losses on different examples do not compare, so
the prompts of the buffer are scored again with the candidates of each step.

Beats random on the planted objectives `separable` and `pairwise`.
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
from promptsearch.search.options import Count


class GCG(Strategy):
    """Greedy coordinate gradient: exchange any one token for one of the best by gradient.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the first tokens, the draw of candidates and the minibatches.
        width: Candidates in each step, B in the paper.
        top: Tokens of each position from which the candidates are drawn, k in the paper; at most
            half of the pool.
        batch: Examples of a step, the same ones for the gradient, the buffer and the candidates.
        buffer: Prompts that are kept; the best one is changed. 1 keeps the best one only.
        text: Words of the pool to begin with, repeated to the prompt's length; left out: words
            drawn from the pool.

    Raises:
        StrategyError: An option is out of its range, or the text holds tokens outside the pool.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        width: Count = 12,
        top: Count = 32,
        batch: Count = 16,
        buffer: Count = 1,
        text: str | None = None,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._width, self._batch, self._size = width, batch, buffer
        self.top = min(top, max(1, len(objective.space.pool) // 2))
        self._rng = np.random.default_rng(seed)
        self.buffer = [self.first_words(text, self._rng)]  # the best one first
        self._scored = False  # whether that one was scored on all of `score_on`

    def ask(self) -> Sequence[Prompt] | Ask:
        """The best prompt alone when it is new; else the buffer and candidates on a minibatch."""
        if not self._scored:
            return self.buffer[:1]
        objective = self.objective
        if len(objective.space.pool) == 1:
            return []
        examples = objective.minibatch(self._rng, self._batch)
        gradient = objective.token_gradient(self.buffer[0], examples).numpy()
        return Ask([*self.buffer, *self._changed(gradient)], examples)

    def _changed(
        self, gradient: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    ) -> list[HardPrompt]:
        """New prompts, each with one token exchanged; fewer than `width` where there are fewer.

        Args:
            gradient: The loss's gradient at the best prompt, shape `(length, pool)`.
        """
        space = self.objective.space
        own = space.indices(self.buffer[0])
        # Algorithm 1: at each position the k tokens with the largest negative gradient. The present
        # token is no exchange, so it is left out: (length, top) others.
        best = np.argsort(gradient, axis=1, kind="stable")
        others = np.stack(
            [row[row != token][: self.top] for row, token in zip(best, own, strict=True)]
        )
        # Algorithm 1: position and token are drawn uniformly, here each pair at most once.
        draw = self._rng.choice(others.size, size=min(self._width, others.size), replace=False)
        places, ranks = np.divmod(draw, others.shape[1])
        rows = np.repeat(own[None], len(draw), axis=0)
        rows[np.arange(len(draw)), places] = others[places, ranks]
        kept = set(self.buffer)
        return [prompt for prompt in map(space.prompt, rows) if prompt not in kept]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Keep the best prompts, all of them on the same examples."""
        if not self._scored:
            self._scored = True
            return
        # Algorithm 1 of Hayase et al.; what is in the buffer stands first, so it wins a tie.
        order = np.argsort(evaluation.values, kind="stable")
        before = self.buffer[0]
        self.buffer = HardPrompt.among(prompts[i] for i in order[: self._size])
        self._scored = self.buffer[0] == before

    def state(self) -> State:
        """The buffer and the generator."""
        buffer = [list(prompt.ids) for prompt in self.buffer]
        return State(
            data={"buffer": buffer, "scored": self._scored, "rng": self._rng.bit_generator.state}
        )

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        self.buffer = [HardPrompt(ids) for ids in state.data["buffer"]]
        self._scored = state.data["scored"]
        self._rng.bit_generator.state = state.data["rng"]
