"""Bayesian optimisation: a Gaussian process guesses losses, and says how sure it is of them.

Jones, Schonlau and Welch 1998, "Efficient Global Optimization of Expensive Black-Box Functions",
J. Global Optimization 13: the prompt that is scored next is the one with the highest expected
improvement (their equation 15). The process's kernel adds up interactions of one position, of two,
and of all, as in Duvenaud, Nickisch and Rasmussen 2011, "Additive Gaussian Processes",
arXiv:1112.4394, equations 3 to 5. Below it lies a kernel of tokens: two tokens are alike where
their embeddings are; where a model shows no embeddings, they are either the same or not.

Differs from the papers: the process is fitted to the logarithm of the losses; its few
hyper-parameters are taken from a grid, by marginal likelihood; improvement is looked for among
changes of the best prompts and random ones; several prompts are asked for at once. The first
prompts are scored on all examples. From these losses the strategy picks the few examples whose mean
follows that of all examples most closely. The next prompts are scored on these few, and only the
best of them on all.

Beats random on the planted objectives `separable` and `pairwise`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.linalg import cho_solve, solve_triangular
from scipy.stats import norm

from promptsearch import Ask, Evaluation, Objective, Prompt, Strategy
from promptsearch.errors import StrategyError
from promptsearch.search.options import Count

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]  # (prompts, length) indices into the pool

#: The grid of the hyper-parameters: how much of two tokens' likeness comes from being the same, the
#: distance (1 - cosine) over which the rest fades, and how many times as much the last position
#: says as the first.
_SAME, _DISTANCES, _SLOPES = (1.0, 0.6, 0.2), (0.3, 1.0), (0.2, 1.0, 5.0)
#: The weights of interactions of one, of two and of all positions, also of the grid.
_WEIGHTS = ((0.6, 0.3, 0.1), (0.3, 0.5, 0.2), (0.2, 0.3, 0.5))
#: The noise, as a share of the losses' variance, also of the grid.
_NOISES = (0.01, 0.1)
#: The hyper-parameters are chosen anew when the prompts to learn from are this many times as many.
_GROWTH = 1.2
#: The most prompts that the process learns from, the best ones: its cost grows with their cube.
_MOST = 400


class Bayesian(Strategy):
    """Let a Gaussian process over the tokens say which prompts are worth scoring.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draws.
        first: Random prompts, which are scored on all examples.
        batch: Prompts in each ask.
        candidates: Prompts among which improvement is looked for, each time.
        examples: Share of `score_on` on which later prompts are scored first; 1 scores all prompts
            on all examples.
        full: Share of the tokens that goes into scoring on all examples.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        first: Count = 16,
        batch: Count = 8,
        candidates: Count = 3_000,
        examples: Annotated[float, Field(gt=0, le=1)] = 0.25,
        full: Annotated[float, Field(gt=0, le=1)] = 0.3,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._rng = np.random.default_rng(seed)
        self._first, self._batch, self._candidates, self._full = first, batch, candidates, full
        self._count = max(1, round(examples * len(objective.scored)))
        # Places in `score_on` of the few examples on which later prompts are scored first.
        self._few: NDArray[np.int64] | None = None
        self._vectors = _directions(objective)
        # Indices into the pool -> mean loss on the few examples; +inf where scoring failed.
        self._seen: dict[tuple[int, ...], float] = {}
        self._whole: set[tuple[int, ...]] = set()  # scored on all examples
        self._model: _Model | None = None
        self._spent, self._spent_whole = 0, 0

    def ask(self) -> Sequence[Prompt] | Ask:
        """Random prompts on all examples at first; then new ones on few examples.

        Whenever scoring on all examples has had no more than its share of the tokens, the best
        prompts that were scored on few examples are scored on all.
        """
        space, few = self.objective.space, self._few
        if few is None:
            return [space.prompt(row) for row in self._random(self._first)]
        waiting = sorted(
            (row for row in self._seen if row not in self._whole), key=self._seen.__getitem__
        )
        best = [row for row in waiting if np.isfinite(self._seen[row])][: max(1, self._batch // 4)]
        if best and self._spent_whole <= self._full * self._spent:
            return [space.prompt(row) for row in best]
        rows = self._fresh()
        if not rows:  # the whole space was seen
            return [space.prompt(row) for row in waiting[: self._batch]]
        prompts = [space.prompt(row) for row in rows]
        return (
            prompts
            if len(few) == len(self.objective.scored)
            else Ask(prompts, self.objective.scored[few])
        )

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Remember the losses on the few examples, from which the process learns."""
        whole = len(evaluation.examples) == len(self.objective.scored)
        self._spent += evaluation.price
        self._spent_whole += evaluation.price if whole else 0
        if self._few is None:
            self._few = _followers(evaluation.losses[np.isfinite(evaluation.values)], self._count)
        losses = evaluation.losses[:, self._few] if whole else evaluation.losses
        for prompt, loss in zip(prompts, losses.mean(1), strict=True):
            # Only hard prompts are asked for.
            row = tuple(self.objective.space.indices(prompt).tolist())  # type: ignore[arg-type]
            if whole:
                self._whole.add(row)
            self._seen.setdefault(row, float(loss) if np.isfinite(loss) else float("inf"))

    def _fresh(self) -> list[tuple[int, ...]]:
        """New prompts, those with the highest expected improvement."""
        known = [row for row, value in self._seen.items() if np.isfinite(value)]
        if len(known) < 2:
            return self._random(self._batch)
        best = sorted(known, key=self._seen.__getitem__)[:_MOST]
        rows, losses = np.array(best), np.log(np.maximum([self._seen[row] for row in best], 1e-6))
        if self._model is None or len(rows) > _GROWTH * self._model.size:
            self._model = _choose(rows, losses, self._vectors)
        among = np.array(self._among(best[: self._batch]))
        if not len(among):
            return []
        improvement = self._model.improvement(rows, losses, among, self._vectors)
        return _apart(among[np.argsort(-improvement, kind="stable")], self._batch)

    def _among(self, best: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Candidates: the best prompts with one or two tokens changed, and as many random prompts.

        Each stands there once, and none was seen before.
        """
        pool, length = len(self.objective.space.pool), self.objective.space.length
        found: dict[tuple[int, ...], None] = {}
        for _ in range(self._candidates // 2):
            row = list(best[int(self._rng.integers(len(best)))])
            for position in self._rng.choice(
                length, min(length, 1 + int(self._rng.random() < 0.5)), replace=False
            ):
                row[position] = int(self._rng.integers(pool))
            found[tuple(row)] = None
        found.update(
            dict.fromkeys(
                map(tuple, self._rng.integers(pool, size=(self._candidates // 2, length)).tolist())
            )
        )
        fresh = [row for row in found if row not in self._seen]
        return fresh or self._random(self._batch)

    def _random(self, count: int) -> list[tuple[int, ...]]:
        """Random prompts that were not seen, fewer at the end of a small space."""
        pool, length = len(self.objective.space.pool), self.objective.space.length
        count = min(count, self.objective.space.size - len(self._seen))
        found: dict[tuple[int, ...], None] = {}
        while len(found) < count:
            row = tuple(self._rng.integers(pool, size=length).tolist())
            if row not in self._seen:
                found[row] = None
        return list(found)


@dataclass(frozen=True)
class _Model:
    """A Gaussian process with chosen hyper-parameters.

    Args:
        same: How much of the likeness of two tokens comes from being the same.
        distance: The distance (1 - cosine) over which the rest of the likeness fades.
        slope: How many times as much the last position says as the first; those between follow
            geometrically.
        weights: The weights of interactions of one position, of two, and of all.
        noise: The variance of the noise, as a share of that of the losses.
        size: The number of prompts by which the hyper-parameters were chosen.
    """

    same: float
    distance: float
    slope: float
    weights: tuple[float, float, float]
    noise: float
    size: int

    def improvement(self, rows: Rows, losses: Floats, among: Rows, vectors: Floats) -> Floats:
        """Expected improvement on the least of `losses`.

        Args:
            rows: Prompts to learn from, shape `(rows, length)`.
            losses: The logarithms of their losses, shape `(rows,)`.
            among: Prompts to tell about, shape `(among, length)`.
            vectors: Directions of the pool's tokens, shape `(pool, width)`.

        Returns:
            The improvement in standard deviations of `losses`, shape `(among,)`.
        """
        mean, deviation = losses.mean(), max(losses.std(), 1e-9)
        scaled = (losses - mean) / deviation
        own = _mix(_parts(rows, rows, vectors, self.same, self.distance, self.slope), self.weights)
        factor = np.linalg.cholesky(own + self.noise * np.eye(len(rows)))
        weights = cho_solve((factor, True), scaled)
        # The variance of the process, by maximum likelihood.
        variance = max(float(scaled @ weights) / len(rows), 1e-9)
        cross = _mix(
            _parts(among, rows, vectors, self.same, self.distance, self.slope), self.weights
        )  # (among, rows)
        explained = (solve_triangular(factor, cross.T, lower=True) ** 2).sum(0)
        sure = np.sqrt(variance * np.maximum(1 - explained, 1e-9))
        better = (scaled.min() - cross @ weights) / sure
        # Equation 15 of Jones et al., for a minimum.
        found: Floats = sure * (better * norm.cdf(better) + norm.pdf(better))
        return found


def _directions(objective: Objective) -> Floats:
    """Embeddings of the pool's tokens, centred and of length 1, shape `(pool, width)`.

    The width is 0 where the LM shows no embeddings.
    """
    pool = objective.space.pool.tolist()
    try:
        embeddings = objective.embeddings
    except StrategyError:  # a model behind an endpoint
        return np.empty((len(pool), 0))
    vectors = embeddings[pool].double().cpu().numpy()
    # Embeddings share a direction, which would make all tokens alike.
    vectors = vectors - vectors.mean(0)
    found: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def _choose(rows: Rows, losses: Floats, vectors: Floats) -> _Model:
    """A model with the hyper-parameters of the grid that have the highest marginal likelihood.

    The variance of the process is maximised in closed form.
    """
    scaled = (losses - losses.mean()) / max(losses.std(), 1e-9)
    best, chosen = -np.inf, _Model(1.0, _DISTANCES[0], 1.0, _WEIGHTS[0], _NOISES[-1], len(rows))
    for same, distance, slope in itertools.product(
        _SAME if vectors.shape[1] else (1.0,), _DISTANCES, _SLOPES
    ):
        if same == 1 and distance != _DISTANCES[0]:
            continue  # nothing is left to fade
        parts = _parts(rows, rows, vectors, same, distance, slope)
        for weights, noise in itertools.product(_WEIGHTS, _NOISES):
            factor = np.linalg.cholesky(_mix(parts, weights) + noise * np.eye(len(rows)))
            fit = float(scaled @ cho_solve((factor, True), scaled)) / len(rows)
            likelihood = -0.5 * len(rows) * np.log(max(fit, 1e-12)) - np.log(np.diag(factor)).sum()
            if likelihood > best:
                best, chosen = likelihood, _Model(same, distance, slope, weights, noise, len(rows))
    return chosen


def _parts(
    a: Rows, b: Rows, vectors: Floats, same: float, distance: float, slope: float
) -> tuple[Floats, Floats, Floats]:
    """Weighted mean interactions of one position, of two, and of all; 1 for a prompt with itself.

    Args:
        a: Prompts, shape `(a, length)`.
        b: Prompts, shape `(b, length)`.
        vectors: Directions of the pool's tokens, shape `(pool, width)`.
        same: How much of the likeness of two tokens comes from being the same.
        distance: The distance (1 - cosine) over which the rest of the likeness fades.
        slope: How many times as much the last position says as the first.

    Returns:
        The three interactions, shape `(a, b)` each.
    """
    length = a.shape[1]
    shares = np.geomspace(1, slope, length) if length > 1 else np.ones(1)
    shares /= shares.sum()
    one, squares, product = (
        np.zeros((len(a), len(b))),
        np.zeros((len(a), len(b))),
        np.ones((len(a), len(b))),
    )
    for position, share in enumerate(shares):
        mine, at = np.unique(a[:, position], return_inverse=True)
        theirs, bt = np.unique(b[:, position], return_inverse=True)
        fading = np.exp((vectors[mine] @ vectors[theirs].T - 1) / distance)
        likeness = (same * (mine[:, None] == theirs) + (1 - same) * fading)[np.ix_(at, bt)]
        # Duvenaud et al., equations 3 to 5: orders one, two (below) and all, without their scales.
        one += share * likeness
        squares += (share * likeness) ** 2
        product *= likeness
    # The sum over pairs is half of the square of the sum, less the squares (Newton's identities).
    two = (one**2 - squares) / (1 - (shares**2).sum()) if length > 1 else product
    return one, two, product


def _mix(parts: tuple[Floats, Floats, Floats], weights: tuple[float, float, float]) -> Floats:
    return weights[0] * parts[0] + weights[1] * parts[1] + weights[2] * parts[2]


def _followers(losses: Floats, count: int) -> NDArray[np.int64]:
    """Examples whose mean loss goes up and down, from prompt to prompt, with that of all examples.

    They are added one by one, the best one first.

    Args:
        losses: Losses of prompts on all examples, shape `(prompts, examples)`.
        count: How many examples to choose.

    Returns:
        The places of the chosen examples, sorted, shape `(count,)`.
    """
    moves = losses - losses.mean(0) if len(losses) else losses.sum(0)[None]
    goal, total, chosen = moves.mean(1), np.zeros(len(moves)), list[int]()
    for _ in range(count):
        # The error of each example if it were added next, shape (examples,).
        error = (((total[:, None] + moves) / (len(chosen) + 1) - goal[:, None]) ** 2).sum(0)
        error[chosen] = np.inf
        chosen.append(int(error.argmin()))
        total = total + moves[:, chosen[-1]]
    return np.sort(np.array(chosen))


def _apart(ordered: Rows, count: int) -> list[tuple[int, ...]]:
    """The first `count` rows that differ from each other in more than one token, then others.

    Neighbours, which differ in one token only, would tell nearly the same.

    Args:
        ordered: Prompts, best first, shape `(prompts, length)`.
        count: How many to choose.
    """
    chosen: list[tuple[int, ...]] = []
    rest: list[tuple[int, ...]] = []
    for row in map(tuple, ordered.tolist()):
        if len(chosen) == count:
            break
        near = any(sum(x != y for x, y in zip(row, other, strict=True)) <= 1 for other in chosen)
        (rest if near else chosen).append(row)
    return [*chosen, *rest[: count - len(chosen)]]
