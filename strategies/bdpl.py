"""BDPL: one distribution over tokens for each position, learned from scores by policy gradient.

    >>> from promptsearch.search.loop import search
    >>> from promptsearch.testing.planted import planted_objective
    >>> objective = planted_objective("separable")
    >>> search(Bdpl(objective, seed=0))
    '11 prompts were asked for and 3 could be paid'
    >>> round(objective.ranking[0].value, 1)  # nats
    0.5

Diao, Huang, Xu, Li, Lin, Zhou and Zhang 2023, "Black-box Prompt Learning for Pre-trained Language
Models", arXiv:2201.08531. The paper's variance-reduced policy gradient: a step draws I prompts P_k
from independent categorical distributions, and with their losses L(P_k) and the mean loss of the
step, L_mean, the gradient is

    g = 1 / (I - 1) * sum_k (L(P_k) - L_mean) * gradient of log q(P_k)

whose expectation is the gradient of the expected loss, as long as the P_k are draws of q and no
others: draws that were scored before count again, with the loss that is known, and the most
probable prompt, which is scored after every step since it is seldom drawn, does not count.

Differs from the paper: with an exploring share e over N candidates the distribution at a position
is q = (1 - e) * softmax(logits) + e / N, and it is log q that is differentiated; softmaxes need no
projection onto the simplex, and no gradient divides by a small p. Losses are divided by their usual
deviation in the steps before; the rate is thousands of times the paper's, because a run here draws
hundreds of prompts; and the candidates are drawn from the pool, others at each position, instead of
being mined from training text.

The authors' code gives every token that was not drawn the derivative -1 / p of its own, where that
of log p(P_k) is 0 (or, with the drawn token's p as 1 minus all others, -1 / p of the drawn one).

Beats random on the planted objectives `separable` and `plateau`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from promptsearch import Evaluation, Objective, Prompt, Strategy
from promptsearch.records.run import Paper
from promptsearch.records.scores import Floats
from promptsearch.search.options import Count, Positive, Share

#: Steps without a prompt that was not scored before, at most, until one is drawn uniformly.
_TRIES = 20
#: The share of the last step in the usual deviation of losses.
_RENEWAL = 0.5

Row = tuple[int, ...]  # (length,) indices into the pool


class Bdpl(Strategy):
    """Learn which token is good at which position, by policy gradient.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds candidates and draws.
        candidates: Tokens of the pool, drawn at random, that each position chooses among; the whole
            pool where it has no more.
        batch: Prompts in each ask, a step of the policy gradient.
        rate: Learning rate. In a step a token's logit gains about this rate, divided by the step's
            size less one, for every deviation of the losses by which the token's prompts, in sum,
            are better than the mean.
        explore: Share of tokens that are drawn uniformly from the candidates.
    """

    paper: Paper | None = Paper(8_000, "prompts", "calls of the model, in its authors' script")

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        candidates: Count = 100,
        batch: Annotated[Count, Field(ge=2)] = 14,
        rate: Positive = 8.0,
        explore: Share = 0.1,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._batch, self._rate, self._explore = batch, rate, explore
        self._rng = np.random.default_rng(seed)
        length, pool = objective.space.length, len(objective.space.pool)
        chosen = [self._rng.permutation(pool)[:candidates] for _ in range(length)]
        #: The logit of each position and token, shape `(length, pool)`: minus infinity, for good,
        #: where the token is no candidate.
        self.logits: Floats = np.full((length, pool), -np.inf)
        self.logits[np.arange(length)[:, None], chosen] = 0.0
        self._values: dict[Row, float] = {}  # what was scored, in nats
        self._scale: float | None = None  # the usual deviation of a step's losses, in nats
        self.rows: list[Row] = []
        #: The draws of the present step, some of them maybe scored before.
        self.drawn: list[Row] = []

    def ask(self) -> Sequence[Prompt]:
        """The most probable prompt and `batch` draws, but for those that were scored before.

        Steps of which nothing is left are made at once, with the losses that are known. No prompt
        is asked for when the whole space has been scored.
        """
        space = self.objective.space
        if len(self._values) == space.size:
            return []
        fresh: list[Row] = []
        for _ in range(_TRIES):
            self.drawn = self._draw(self._batch)
            # Before the first step all prompts are equally probable.
            best = [_row(self.logits.argmax(1))] if self._values else []
            fresh = [row for row in dict.fromkeys(best + self.drawn) if row not in self._values]
            if fresh:
                break
            self._step()
        else:  # the distributions hardly ever give another prompt, or candidates have none left
            self.drawn = []
        while not fresh:
            row = _row(self._rng.integers(len(space.pool), size=space.length))
            fresh = [] if row in self._values else [row]
        self.rows = fresh
        return [space.prompt(row) for row in fresh]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Make one step of the policy gradient."""
        self._values.update(zip(self.rows, evaluation.values.tolist(), strict=True))
        self._step()

    def _step(self) -> None:
        """Move the logits against the gradient g of the present draws.

        A failed prompt is taken to be as bad as the worst draw that did not fail.
        """
        values = np.array([self._values[row] for row in self.drawn])
        good = values[np.isfinite(values)]
        if not len(good):
            return
        losses = np.minimum(values, good.max())
        deviation = float(losses.std()) if np.ptp(losses) else 0.0
        # A scale that depended on these draws would bend the expectation of g; the first step,
        # before which there is nothing to go by, has its own.
        scale = self._scale or deviation
        if deviation > 0:  # equal losses have no gradient, nor do they tell of the usual spread
            found = gradient(self.logits, self.drawn, losses, self._explore)
            self.logits -= self._rate / scale * found
            self._scale = float(np.sqrt((1 - _RENEWAL) * scale**2 + _RENEWAL * deviation**2))

    def _draw(self, count: int) -> list[Row]:
        below = probabilities(self.logits, self._explore).cumsum(1)  # (length, pool)
        drawn = self._rng.random((count, len(below), 1)) * below[:, -1:]
        return [_row(row) for row in (below <= drawn).sum(-1)]


def gradient(logits: Floats, rows: Sequence[Row], losses: Floats, explore: float) -> Floats:
    """The gradient g of the module's docstring, in the losses' unit, shape `(length, pool)`.

    With p the softmax, the derivative of log q at the drawn token t with respect to the logit of
    token s is (1 - explore) * p_t / q_t * ([s = t] - p_s).

    Args:
        logits: The logits, shape `(length, pool)`; minus infinity where a token is no candidate.
        rows: The draws, at least two.
        losses: Their losses, shape `(draws,)`.
        explore: The uniform share.
    """
    worse = (losses - losses.mean()) / (len(rows) - 1)
    places, drawn = np.arange(len(logits)), np.array(rows)
    softmax = probabilities(logits, 0.0)
    # (draws, length): how much of log q moves with the softmax.
    share = (1 - explore) * (softmax / probabilities(logits, explore).clip(1e-300))[places, drawn]
    weights = worse[:, None] * share
    found: Floats = -weights.sum(0)[:, None] * softmax
    np.add.at(found, (places, drawn), weights)
    return found


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
