"""The parts of a variance, and how far they let a mean be off."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]

#: The level of the tests; intervals hold the truth in 1 - ALPHA of all cases.
ALPHA = 0.05


@dataclass(frozen=True)
class Part:
    """What examples or seeds add to the variance of a mean, and with how much evidence.

    Args:
        variance: The part of the variance.
        freedom: Its degrees of freedom; 0 where there is nothing to estimate it from.
    """

    variance: float
    freedom: int


def sums_within(values: Floats, groups: Sequence[Hashable] | None) -> Floats:
    """The sums of values within groups; without groups, the values themselves."""
    if groups is None:
        return values
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return np.bincount([places[group] for group in groups], values).astype(np.float64)


def variance_of_mean(values: Floats, groups: Sequence[Hashable] | None = None) -> Part:
    """The variance of the mean of values.

    The values, or else the groups they belong to, are independent of one another. A single one
    tells nothing: its variance is infinite.
    """
    sums = sums_within(values - values.mean(), groups)
    count = len(sums)
    if count < 2:
        return Part(np.inf, 0)
    return Part(float((sums**2).sum()) / len(values) ** 2 * count / (count - 1), count - 1)


def reach(parts: Sequence[Part], level: float) -> float:
    """How far a mean may be from the truth, with a chance of `level` to be further."""
    squares = [
        np.inf if not part.freedom else part.variance * _quantile(level, part.freedom) ** 2
        for part in parts
        if part.variance > 0
    ]
    return float(np.sqrt(sum(squares)))


def level_of(difference: float, parts: Sequence[Part]) -> float:
    """The level at which the parts reach as far as a difference: its two-sided p-value."""
    if difference <= 0:
        return 1.0
    least = -230.0  # the logarithm of the least level that is told from 0
    if reach(parts, np.exp(least)) <= difference:
        return 0.0
    if np.isinf(reach(parts, ALPHA)):
        return 1.0
    root = optimize.brentq(lambda log: reach(parts, np.exp(log)) - difference, least, 0.0)
    return float(np.exp(root))


def _quantile(level: float, freedom: int) -> float:
    """The t that is exceeded on either side with a chance of `level`."""
    return float(-special.stdtrit(freedom, level / 2))
