"""Rows drawn again: intervals and paired tests of metrics that are functions of sums over rows.

A corpus metric such as BLEU has no value a row, but its statistics add up: the sums over rows drawn
again give the score that these rows would have, exactly (Koehn 2004, aclanthology.org/W04-3250).
Rows that belong together, such as all texts of one meaning representation, are drawn together.

A system is the statistics of its runs, shape `(runs, rows, statistics)`, or `(rows, statistics)` of
one; its score is the mean of its runs' scores, all of them on the same rows. What is drawn is the
rows and not the runs, so the luck of seeds is not in these intervals; `statistics` has it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptsearch.statistics import ALPHA, Floats, Interval, Score


@dataclass(frozen=True)
class Resampled:
    """Two systems on the same rows, drawn again.

    Args:
        difference: The score of the first minus that of the second.
        draws: The same of each draw, shape `(draws,)`.
        p: The two-sided p-value.
    """

    difference: float
    draws: Floats
    p: float

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the middle 95 % of the draws."""
        return _ends(self.draws)


def bootstrap(
    score: Score,
    system: Floats,
    *,
    groups: Sequence[Hashable] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """The score of a system with the middle 95 % of its scores on rows drawn with replacement.

    Args:
        score: From sums and their number of rows to a score.
        system: The statistics, see above.
        groups: What each row belongs to, shape `(rows,)`; None where each stands for itself.
        draws: How often rows are drawn.
        seed: Seeds the draws.
    """
    runs = _runs(system)
    counts = drawn_rows(runs.shape[1], groups, draws, seed)
    low, high = _ends(_scores(score, runs, counts))
    return Interval(_whole(score, runs), low, high, covers_seeds=False)


def paired_bootstrap(
    score: Score,
    first: Floats,
    second: Floats,
    *,
    groups: Sequence[Hashable] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Whether two systems differ, both scored on the same rows drawn with replacement.

    p is the share of draws that are as far from their own mean as the difference is from 0 (the
    shift of Riezler and Maxwell 2005, aclanthology.org/W05-0908, section 4). It has two sides.
    sacrebleu subtracts the mean of absolute differences, which has one side where a difference is
    clear: there its p is half of this one.

    Args:
        score: From sums and their number of rows to a score.
        first: The statistics of one system, see above.
        second: Those of the other one, on the same rows; it may have another number of runs.
        groups: What each row belongs to, shape `(rows,)`; None where each stands for itself.
        draws: How often rows are drawn.
        seed: Seeds the draws.

    Raises:
        ValueError: The rows or statistics differ in number.
    """
    one, other = _alike(first, second)
    counts = drawn_rows(one.shape[1], groups, draws, seed)
    found = _scores(score, one, counts) - _scores(score, other, counts)
    difference = _whole(score, one) - _whole(score, other)
    return Resampled(difference, found, _p(found - found.mean(), difference))


def approximate_randomisation(
    score: Score,
    first: Floats,
    second: Floats,
    *,
    groups: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Resampled:
    """Whether two systems differ, by exchanging their answers to rows drawn by a coin.

    p is the share of exchanges whose difference is at least as large as the real one (Noreen 1989;
    Riezler and Maxwell 2005, section 4).

    Args:
        score: From sums and their number of rows to a score.
        first: The statistics of one system, see above.
        second: Those of the other one, on the same rows, with as many runs.
        groups: What each row belongs to, shape `(rows,)`: its rows are exchanged together; None
            where each stands for itself.
        draws: How often they are exchanged.
        seed: Seeds the draws.

    Raises:
        ValueError: The runs, rows or statistics differ in number.
    """
    one, other = _alike(first, second)
    if len(one) != len(other):
        raise ValueError(f"expected as many runs of both, got {len(one)} and {len(other)}")
    size, which = _grouped(one.shape[1], groups)
    coins = np.random.default_rng(seed).integers(2, size=(draws, size), dtype=np.int8)
    kept = coins[:, which].astype(np.float64)  # (draws, rows): 1 where a row is not exchanged
    rows = one.shape[1]
    found = np.zeros(draws)
    for mine, theirs in zip(one, other, strict=True):
        a = kept @ mine + (1 - kept) @ theirs  # (draws, statistics)
        b = mine.sum(0) + theirs.sum(0) - a
        found += [score(x, rows) - score(y, rows) for x, y in zip(a, b, strict=True)]
    found /= len(one)
    difference = _whole(score, one) - _whole(score, other)
    return Resampled(difference, found, _p(found, difference))


def drawn_rows(
    rows: int, groups: Sequence[Hashable] | None, draws: int, seed: int
) -> NDArray[np.int64]:
    """How often each row is drawn, shape `(draws, rows)`; as many groups as there are, each time.

    Args:
        rows: The number of rows.
        groups: What each row belongs to; None where each stands for itself.
        draws: How often rows are drawn.
        seed: Seeds the draws.
    """
    size, which = _grouped(rows, groups)
    taken = np.random.default_rng(seed).integers(size, size=(draws, size))
    places = taken + size * np.arange(draws)[:, None]
    counts = np.bincount(places.ravel(), minlength=draws * size).reshape(draws, size)
    return counts[:, which]


def _grouped(rows: int, groups: Sequence[Hashable] | None) -> tuple[int, NDArray[np.int64]]:
    """The number of groups, and the place of each row's among them, in order of appearance."""
    if groups is None:
        return rows, np.arange(rows)
    if len(groups) != rows:
        raise ValueError(f"expected a group for each of {rows} rows, got {len(groups)}")
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return len(places), np.array([places[group] for group in groups])


def _scores(score: Score, runs: Floats, counts: NDArray[np.int64]) -> Floats:
    """The system's score on each draw, shape `(draws,)`."""
    sizes, weights = counts.sum(1).tolist(), counts.astype(np.float64)
    found = np.zeros(len(counts))
    for statistics in runs:
        sums = weights @ statistics  # (draws, statistics)
        found += [score(each, size) for each, size in zip(sums, sizes, strict=True)]
    return found / len(runs)


def _whole(score: Score, runs: Floats) -> float:
    return float(np.mean([score(statistics.sum(0), runs.shape[1]) for statistics in runs]))


def _p(centred: Floats, difference: float) -> float:
    """The share of draws at least as far out, the real one counted among them."""
    # Sums in another order differ in their last digits, so equal ones may seem a little smaller.
    far = np.abs(centred) >= abs(difference) - 1e-12 * max(1.0, abs(difference))
    return float((far.sum() + 1) / (len(centred) + 1))


def _ends(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _runs(system: Floats) -> Floats:
    runs = np.asarray(system, dtype=np.float64)
    runs = runs[None] if runs.ndim == 2 else runs
    if runs.ndim != 3 or not all(runs.shape):
        raise ValueError(f"expected shape (runs, rows, statistics), got {runs.shape}")
    return runs


def _alike(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    one, other = _runs(first), _runs(second)
    if one.shape[1:] != other.shape[1:]:
        raise ValueError(
            f"expected the same rows and statistics, got {one.shape[1:]} and {other.shape[1:]}"
        )
    return one, other
