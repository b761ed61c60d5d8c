"""A Gaussian process over prompts of tokens: it guesses losses, and says how sure it is of them.

Its kernel adds up interactions of one position, of two, and of all, as in Duvenaud, Nickisch and
Rasmussen 2011, "Additive Gaussian Processes", arXiv:1112.4394, equations 3 to 5. Below it lies a
kernel of tokens: two tokens are alike where their embeddings are; where a model shows no
embeddings, they are either the same or not.

Differs from the paper: the few hyper-parameters are taken from a grid, by marginal likelihood, and
an interaction's scale is the same for all sets of positions of one size.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

from promptsearch.records.scores import Floats

Rows = NDArray[np.int64]  # (prompts, length) indices into the pool
Orders = tuple[Floats, Floats, Floats]  # interactions of one position, of two, and of all

#: The grid of the hyper-parameters: how much of two tokens' likeness comes from being the same, the
#: distance (1 - cosine) over which the rest fades, and how many times as much the last position
#: says as the first.
_SAME, _DISTANCES, _SLOPES = (1.0, 0.6, 0.2), (0.3, 1.0), (0.2, 1.0, 5.0)
#: The weights of interactions of one, of two and of all positions, also of the grid.
WEIGHTS = ((0.6, 0.3, 0.1), (0.3, 0.5, 0.2), (0.2, 0.3, 0.5))
#: The noise, as a share of the losses' variance, also of the grid.
_NOISES = (0.01, 0.1)


@dataclass(frozen=True)
class Kernel:
    """How alike two prompts are, by one position, by two, and by all; 1 for a prompt with itself.

    Args:
        same: How much of the likeness of two tokens comes from being the same.
        distance: The distance (1 - cosine) over which the rest of the likeness fades.
        slope: How many times as much the last position says as the first; those between follow
            geometrically.
    """

    same: float
    distance: float
    slope: float

    def orders(self, a: Rows, b: Rows, vectors: Floats) -> Orders:
        """The weighted mean interactions of one position, of two, and of all.

        Args:
            a: Prompts, shape `(a, length)`.
            b: Prompts, shape `(b, length)`.
            vectors: Directions of the pool's tokens, shape `(pool, width)`.

        Returns:
            The three interactions, shape `(a, b)` each.
        """
        length = a.shape[1]
        shares = np.geomspace(1, self.slope, length) if length > 1 else np.ones(1)
        shares /= shares.sum()
        shape = (len(a), len(b))
        one, squares, product = np.zeros(shape), np.zeros(shape), np.ones(shape)
        for position, share in enumerate(shares):
            likeness = self._likeness(a[:, position], b[:, position], vectors)
            one += share * likeness  # Duvenaud et al., equation 3, without its scale
            squares += (share * likeness) ** 2
            product *= likeness  # equation 5
        # Equation 4, the sum over pairs: half of the square of the sum, less the squares (Newton's
        # identities).
        two = (one**2 - squares) / (1 - (shares**2).sum()) if length > 1 else product
        return one, two, product

    def _likeness(self, a: NDArray[np.int64], b: NDArray[np.int64], vectors: Floats) -> Floats:
        """The kernel of tokens, of shape `(a, b)` for tokens of the shapes `(a,)` and `(b,)`."""
        mine, at = np.unique(a, return_inverse=True)
        theirs, bt = np.unique(b, return_inverse=True)
        fading = np.exp((vectors[mine] @ vectors[theirs].T - 1) / self.distance)
        same = mine[:, None] == theirs
        found: Floats = (self.same * same + (1 - self.same) * fading)[np.ix_(at, bt)]
        return found


@dataclass(frozen=True)
class Process:
    """A Gaussian process with chosen hyper-parameters.

    Args:
        kernel: How alike prompts are.
        weights: The weights of interactions of one position, of two, and of all.
        noise: The variance of the noise, as a share of that of the losses.
        size: The number of prompts by which the hyper-parameters were chosen.
    """

    kernel: Kernel
    weights: tuple[float, float, float]
    noise: float
    size: int

    def covariance(self, a: Rows, b: Rows, vectors: Floats) -> Floats:
        """The kernel of prompts, shape `(a, b)`, without noise; 1 for a prompt with itself."""
        return _mix(self.kernel.orders(a, b, vectors), self.weights)

    def predict(
        self, rows: Rows, losses: Floats, among: Rows, vectors: Floats
    ) -> tuple[Floats, Floats]:
        """What the process thinks of prompts, having seen others.

        Args:
            rows: Prompts to learn from, shape `(rows, length)`.
            losses: Their losses, or a function of these, shape `(rows,)`.
            among: Prompts to tell about, shape `(among, length)`.
            vectors: Directions of the pool's tokens, shape `(pool, width)`.

        Returns:
            The means and the standard deviations, in standard deviations of `losses` from their
            mean, shape `(among,)` each.
        """
        scaled = in_deviations(losses)
        own = self.covariance(rows, rows, vectors)
        factor = np.linalg.cholesky(own + self.noise * np.eye(len(rows)))
        weights = cho_solve((factor, True), scaled)
        # The variance of the process, by maximum likelihood.
        variance = max(float(scaled @ weights) / len(rows), 1e-9)
        cross = self.covariance(among, rows, vectors)  # (among, rows)
        explained = (solve_triangular(factor, cross.T, lower=True) ** 2).sum(0)
        return cross @ weights, np.sqrt(variance * np.maximum(1 - explained, 1e-9))


def fit(rows: Rows, losses: Floats, vectors: Floats) -> Process:
    """The process with the hyper-parameters of the grid that have the highest marginal likelihood.

    The variance of the process is maximised in closed form.
    """
    scaled, best = in_deviations(losses), -np.inf
    chosen = Process(Kernel(1.0, _DISTANCES[0], 1.0), WEIGHTS[0], _NOISES[-1], len(rows))
    for kernel in itertools.starmap(Kernel, itertools.product(_SAME, _DISTANCES, _SLOPES)):
        # Tokens without embeddings are the same or not; then nothing is left to fade.
        if kernel.same == 1 and kernel.distance != _DISTANCES[0]:
            continue
        if kernel.same != 1 and not vectors.shape[1]:
            continue
        orders = kernel.orders(rows, rows, vectors)
        for weights, noise in itertools.product(WEIGHTS, _NOISES):
            factor = np.linalg.cholesky(_mix(orders, weights) + noise * np.eye(len(rows)))
            fit = float(scaled @ cho_solve((factor, True), scaled)) / len(rows)
            likelihood = -0.5 * len(rows) * np.log(max(fit, 1e-12)) - np.log(np.diag(factor)).sum()
            if likelihood > best:
                best, chosen = likelihood, Process(kernel, weights, noise, len(rows))
    return chosen


def in_deviations(losses: Floats) -> Floats:
    """Losses in standard deviations from their mean, shape `(rows,)`."""
    found: Floats = (losses - losses.mean()) / max(losses.std(), 1e-9)
    return found


def _mix(orders: Orders, weights: tuple[float, float, float]) -> Floats:
    return weights[0] * orders[0] + weights[1] * orders[1] + weights[2] * orders[2]
