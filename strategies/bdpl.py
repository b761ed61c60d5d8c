"""BDPL: one distribution over tokens for each position, learned from scores by policy gradient.

    >>> from promptsearch.search.loop import search
    >>> from promptsearch.testing.planted import planted_objective
    >>> objective = planted_objective("separable")
    >>> search(Bdpl(objective, seed=0))
    '14 prompts were asked for and 3 could be paid'
    >>> round(objective.ranking[0].value, 1)  # nats
    0.5

Diao, Huang, Xu, Li, Lin, Zhou and Zhang 2023, "Black-box Prompt Learning for Pre-trained Language
Models", arXiv:2201.08531. The paper's variance-reduced policy gradient: a step draws I prompts P_k
from independent categorical distributions, and with their losses L(P_k) and the mean loss of the
step, L_mean, the gradient is

    g = 1 / (I - 1) * sum_k (L(P_k) - L_mean) * gradient of log p(P_k)

Differs from the paper: the distributions are softmaxes, which need no projection onto the simplex
and whose gradient does not divide by p; losses are also divided by their deviation within the step;
the rate is thousands of times the paper's, because a run here draws hundreds of prompts; a share of
the tokens is drawn uniformly, so that nothing is lost for good; the candidates are drawn from the
pool, others at each position, instead of being mined from training text; and the most probable
prompt is scored after every step, since it is seldom drawn.

Beats random on the planted objectives `separable`, `pairwise` and `plateau`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from promptsearch import Evaluation, Objective, Prompt, Strategy
from promptsearch.records.scores import Floats
from promptsearch.search.options import Count, Positive, Share

#: Draws for each prompt of a step, at most, to find some that were not scored before.
_TRIES = 20

Row = tuple[int, ...]  # (length,) indices into the pool


class Bdpl(Strategy):
    """Learn which token is good at which position, by policy gradient.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds candidates and draws.
        candidates: Tokens of the pool, drawn at random, that each position chooses among; the whole
            pool where it has no more.
        batch: Prompts in each ask, a step of the policy gradient.
        rate: Learning rate. In a step a token's logit gains this rate, divided by the step's size
            less one, for every deviation of the losses by which the token's prompts, in sum, are
            better than the mean.
        explore: Share of tokens that are drawn uniformly from the candidates.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        candidates: Count = 100,
        batch: Annotated[Count, Field(ge=2)] = 14,
        rate: Positive = 15.0,
        explore: Share = 0.05,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._batch, self._rate, self._explore = batch, rate, explore
        self._rng = np.random.default_rng(seed)
        length, pool = objective.space.length, len(objective.space.pool)
        chosen = [self._rng.permutation(pool)[:candidates] for _ in range(length)]
        #: The logit of each position and token, shape `(length, pool)`: minus infinity, for good,
        #: where the token is no candidate.
        self._logits: Floats = np.full((length, pool), -np.inf)
        self._logits[np.arange(length)[:, None], chosen] = 0.0
        self._scored: set[Row] = set()
        self._rows: list[Row] = []

    def ask(self) -> Sequence[Prompt]:
        """The most probable prompt and draws, `batch` in all that were not scored before.

        No prompt is asked for when the whole space has been scored.
        """
        space = self.objective.space
        if len(self._scored) == space.size:
            return []
        # Before the first step all prompts are equally probable.
        best = [_row(self._logits.argmax(1))] if self._scored else []
        fresh = dict.fromkeys(row for row in best if row not in self._scored)
        for _ in range(_TRIES):
            drawn = (row for row in self._draw(self._batch) if row not in self._scored)
            fresh.update(dict.fromkeys(drawn))
            if len(fresh) >= self._batch:
                break
        # The distributions hardly ever give another prompt, or the candidates have no other left.
        while not fresh:
            row = _row(self._rng.integers(len(space.pool), size=space.length))
            fresh.update({} if row in self._scored else {row: None})
        self._rows = list(fresh)[: self._batch]
        return [space.prompt(row) for row in self._rows]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Make one step of the policy gradient.

        A failed prompt is taken to be as bad as the worst one that did not fail.
        """
        self._scored.update(self._rows)
        values = evaluation.values
        good = values[np.isfinite(values)]
        if not len(good):
            return
        losses = np.minimum(values, good.max())
        deviation = losses.std()
        if deviation > 0:  # at least two prompts, and not all alike
            worse = (losses - losses.mean()) / deviation
            descend(self._logits, self._rows, worse, self._rate)

    def _draw(self, count: int) -> list[Row]:
        chances = probabilities(self._logits, self._explore)
        tokens = [self._rng.choice(len(p), size=count, p=p) for p in chances]
        return [_row(row) for row in np.transpose(tokens)]


def descend(logits: Floats, rows: Sequence[Row], worse: Floats, rate: float) -> None:
    """Move logits against the gradient g of the module's docstring, in place.

    The gradient of log p with respect to a softmax's logits is 1 at the token that was drawn, minus
    p at every token. Since `worse` has the mean 0, the second part cancels out, and so does every
    division by a small p.

    Args:
        logits: The logits, shape `(length, pool)`.
        rows: Drawn prompts, I of them.
        worse: Their losses above the mean, in deviations, shape `(I,)`.
        rate: The learning rate.
    """
    steps = -rate * worse / (len(rows) - 1)
    np.add.at(logits, (np.arange(len(logits)), np.array(rows)), steps[:, None])


def probabilities(logits: Floats, explore: float) -> Floats:
    """Softmax of the logits, with a share that is uniform over candidates, shape `(length, pool)`.

    Args:
        logits: The logits, shape `(length, pool)`; minus infinity where a token is no candidate.
        explore: The uniform share.
    """
    powers = np.exp(logits - logits.max(1, keepdims=True))
    candidates = np.isfinite(logits)
    uniform = candidates / candidates.sum(1, keepdims=True)
    total = powers.sum(1, keepdims=True)
    found: Floats = (1 - explore) * powers / total + explore * uniform
    return found


def _row(indices: NDArray[np.int64]) -> Row:
    return tuple(int(index) for index in indices)
