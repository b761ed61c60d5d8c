"""MoverScore (Zhao et al. 2019, arXiv:1909.02622) of single words, over any encoder.

As in the paper's second version of its code, a word is the state of its first piece, punctuation
does not count, and the score is 1 minus the least cost of moving one text's weight to the other's
over the Euclidean distance of states of length 1.
"""

from __future__ import annotations

import string

import numpy as np

from promptsearch.tasks.metrics.encoder import Encoded, OverEncoder, Weights
from promptsearch.tasks.metrics.metric import Floats


class MoverScore(OverEncoder):
    """The mean over rows of 1 minus the earth mover's distance of output and reference.

    The best of several references counts. `OverEncoder` has the options.
    """

    name = "moverscore"
    bounds = (-1.0, 1.0)
    mean = True

    def alike(self, given: Encoded, wanted: Encoded, weights: Weights) -> float:
        """1 minus the distance of equation 1 for n = 1."""
        one, mine = _words(given, weights)
        other, theirs = _words(wanted, weights)
        if not mine.sum() or not theirs.sum():
            return 0.0
        squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None, :] - 2 * one @ other.T
        distances = np.sqrt(np.maximum(squares, 0.0))
        return 1.0 - least_cost(mine / mine.sum(), theirs / theirs.sum(), distances)


def least_cost(supply: Floats, demand: Floats, distances: Floats) -> float:
    """The least cost of moving all supply to the demand.

    Args:
        supply: What stands at each place, in sum 1, shape `(places,)`.
        demand: What is wanted at each place, in sum 1, shape `(others,)`.
        distances: The cost of moving one from here to there, shape `(places, others)`.
    """
    from scipy.optimize import linprog
    from scipy.sparse import eye, kron, vstack

    here, there = distances.shape
    # Sparse, since of (places + others) * places * others entries all but two a column are 0.
    leaving = kron(eye(here), np.ones((1, there)))  # (places, places * others)
    arriving = kron(np.ones((1, here)), eye(there))  # (others, places * others)
    found = linprog(
        distances.ravel(),
        A_eq=vstack([leaving, arriving], format="csc"),
        b_eq=np.concatenate([supply, demand]),
        method="highs",
    )
    assert found.fun is not None  # as much is wanted as there is, so there is a way
    return float(found.fun)


def _words(text: Encoded, weights: Weights) -> tuple[Floats, Floats]:
    """The states of a text's words, of length 1, and the words' weights."""
    keep = [
        begins and not special and piece.strip("Ġ▁") not in string.punctuation
        for piece, begins, special in zip(
            text.pieces, text.begins.tolist(), text.special.tolist(), strict=True
        )
    ]
    states = text.states[keep].astype(np.float64)
    norms = np.linalg.norm(states, axis=1, keepdims=True)
    return states / np.maximum(norms, 1e-30), weights.of(text)[keep]
