"""The paired test of two strategies on the same examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from promptsearch.statistics.samples import Sample
from promptsearch.statistics.variance import (
    ALPHA,
    Floats,
    Part,
    level_of,
    reach,
    sums_within,
    variance_of_mean,
)


@dataclass(frozen=True)
class Comparison:
    """A paired test of two strategies on the same examples.

    Args:
        first: The strategy with the higher mean.
        second: The other one.
        difference: Mean of the first minus mean of the second.
        parts: The parts of its variance.
        differing: The number of examples, or groups of them, whose scores differ, or whose answers
            where one moves the scores of all.
        largest: The largest difference of one of these, as a share of the whole.
        p: The two-sided p-value.
        covers_seeds: False where one of them has one seed only, so that the test covers the choice
            of examples only.
        adjusted: `p` after the correction for the other tests that it is read with.
        detectable: The smallest difference that would have been significant, the other tests being
            as they are; inf where none that there can be would have been.
    """

    first: str
    second: str
    difference: float
    parts: tuple[Part, ...]
    differing: int
    largest: float
    p: float
    covers_seeds: bool
    adjusted: float = np.nan
    detectable: float = np.nan

    @property
    def significant(self) -> bool:
        """Whether the corrected test tells the two apart."""
        return self.adjusted <= ALPHA

    @property
    def too_few(self) -> bool:
        """Whether too few examples differ for any difference to be significant."""
        return by_signs(self.differing) > ALPHA

    @property
    def half(self) -> float:
        """How far the 95 % interval of the difference reaches from it."""
        return reach(self.parts, ALPHA)


def paired_test(first: str, a: Sample, second: str, b: Sample) -> Comparison:
    """Test whether two strategies differ, over the same examples and each one's own seeds.

    Pairing removes the examples' difficulty, which both share. However little the differences vary,
    the test is no surer than their signs: were the two alike, n examples that differ would all
    speak for the same one with a chance of 2 / 2**n (the sign test). So examples of which fewer
    than six differ are never a proof at 5 %, and a variance of 0 is none of itself.

    Args:
        first: The name of the strategy of `a`.
        a: The first strategy's scores.
        second: The name of the strategy of `b`.
        b: The second strategy's scores, on the same examples.

    Returns:
        The test, turned so that `difference` is not negative, and not yet corrected for other
        pairs. p is 1 for identical scores, and for a single example, which tells nothing.

    Raises:
        ValueError: The numbers of examples, or their groups, differ, or a score is no number.
    """
    for name, sample in ((first, a), (second, b)):
        if not np.isfinite(sample.scores).all():
            raise ValueError(f"expected finite scores of {name}")
    if a.scores.shape[1] != b.scores.shape[1]:
        sizes = f"{a.scores.shape[1]} of {first} and {b.scores.shape[1]} of {second}"
        raise ValueError(f"expected the same test examples, got {sizes}")
    if a.groups != b.groups:
        raise ValueError(f"expected the same groups of examples of {first} and {second}")
    if a.mean < b.mean:
        return paired_test(second, b, first, a)
    differences = a.scores.mean(axis=0) - b.scores.mean(axis=0)  # (examples,)
    parts = (variance_of_mean(differences, a.groups), a.seed_part, b.seed_part)
    shares = sums_within(differences, a.groups) / len(
        differences
    )  # (units,); their sum is the mean
    differing, largest = _differing(a, b, shares), float(np.abs(shares).max())
    difference = a.mean - b.mean
    p = max(level_of(difference, parts), by_signs(differing))
    covers_seeds = a.covers_seeds and b.covers_seeds
    return Comparison(first, second, difference, parts, differing, largest, p, covers_seeds)


def _differing(a: Sample, b: Sample, shares: Floats) -> int:
    """The number of examples, or groups, that differ: by their shares, or else by their answers."""
    if a.answers is None or b.answers is None:
        return int(np.count_nonzero(shares))
    gaps = a.answers.mean(axis=0) - b.answers.mean(axis=0)  # (examples, numbers)
    units = np.array([sums_within(gap, a.groups) for gap in gaps.T])
    return int(np.count_nonzero(units.any(axis=0)))


def by_signs(differing: int) -> float:
    """The least p-value that so many differing examples can have, by the sign test."""
    return min(1.0, 2.0 ** (1 - differing))
