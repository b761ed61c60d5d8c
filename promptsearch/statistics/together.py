"""Several strategies: all pairs, one against others, and the leader against each other one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from promptsearch.statistics.paired import Comparison, by_signs, paired_test
from promptsearch.statistics.samples import Sample
from promptsearch.statistics.variance import ALPHA, Floats, reach


def holm(p_values: ArrayLike) -> Floats:
    """Holm's adjusted p-values (1979), to be compared with 0.05, whatever their number.

    Args:
        p_values: The p-values, shape `(tests,)`.

    Returns:
        The adjusted p-values, shape `(tests,)`, in the same order.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def compare_all(samples: Mapping[str, Sample], widest: float = np.inf) -> list[Comparison]:
    """All pairs of strategies, tested and corrected together (Holm).

    Args:
        samples: Strategy -> its scores, all on the same examples.
        widest: The largest difference that there can be.

    Returns:
        One comparison for each pair, in the order of the strategies' means, best first.
    """
    ranked = rank(samples)
    return _together(
        [paired_test(a, samples[a], b, samples[b]) for a, b in itertools.combinations(ranked, 2)],
        widest,
    )


def compare_with(
    one: str, others: Sequence[str], samples: Mapping[str, Sample], widest: float = np.inf
) -> list[Comparison]:
    """One strategy, named beforehand, against some others, tested and corrected together (Holm).

    Args:
        one: The strategy.
        others: Those that it is tested against.
        samples: Strategy -> its scores, all on the same examples.
        widest: The largest difference that there can be.

    Returns:
        One comparison for each of the others, in their order.
    """
    return _together([paired_test(one, samples[one], o, samples[o]) for o in others], widest)


def compare_leader(samples: Mapping[str, Sample], widest: float = np.inf) -> list[Comparison]:
    """The strategy with the highest mean against each other one.

    It is the winner where all of these are significant. They need no correction, see the head of
    this package: of two that are equally good, either is called the winner in at most 5 % of cases.

    Args:
        samples: Strategy -> its scores, all on the same examples.
        widest: The largest difference that there can be.

    Returns:
        One comparison for each other strategy, in the order of their means.
    """
    leader, *others = rank(samples)
    tests = [paired_test(leader, samples[leader], name, samples[name]) for name in others]
    return [_read(test, test.p, ALPHA, widest) for test in tests]


def rank(samples: Mapping[str, Sample]) -> list[str]:
    """The strategies by their means, best first; equal ones in the order of their naming."""
    return sorted(samples, key=lambda name: -samples[name].mean)


def _together(tests: Sequence[Comparison], widest: float) -> list[Comparison]:
    """The tests, corrected for their number by Holm's method."""
    adjusted = holm([test.p for test in tests])
    # Holm rejects a pair exactly if its p is at most ALPHA / (n + 1), where n is the number of
    # other pairs that are not rejected.
    kept = int((adjusted > ALPHA).sum())
    return [
        _read(test, float(p), ALPHA / (kept + (p <= ALPHA)), widest)
        for test, p in zip(tests, adjusted, strict=True)
    ]


def _read(test: Comparison, adjusted: float, level: float, widest: float) -> Comparison:
    """The test with its corrected p, where its own p is compared with `level`."""
    detectable = reach(test.parts, level)
    if by_signs(test.differing) > level:
        needed = int(np.ceil(1 - np.log2(level)))  # so many examples have to differ
        detectable = max(detectable, needed * test.largest)
    if not test.differing or detectable > widest:
        detectable = np.inf  # where nothing differs, nothing says how large it would have to be
    return replace(test, adjusted=adjusted, detectable=detectable)
