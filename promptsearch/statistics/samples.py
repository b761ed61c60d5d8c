"""The test scores of a strategy, and the interval of their mean."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from promptsearch.statistics.variance import ALPHA, Floats, Part, reach, variance_of_mean


@dataclass(frozen=True)
class Sample:
    """The test scores of one strategy.

    Args:
        scores: Scores, shape `(seeds, examples)`: nats, 0 and 1, or what `jackknife` returns.
        deterministic: Whether the strategy has no seed, so that its one run stands for all.
        groups: What each example belongs to, shape `(examples,)`; None where each stands for
            itself.
        answers: What tells the answers to an example apart, shape `(seeds, examples, numbers)`,
            where one answer moves the scores of all examples, as in what `jackknife` returns; None
            where a score is that of its example alone.
    """

    scores: Floats
    deterministic: bool = False
    groups: tuple[Hashable, ...] | None = None
    answers: Floats | None = None

    @property
    def mean(self) -> float:
        """The mean over seeds and examples."""
        return float(self.scores.mean())

    @property
    def units(self) -> int:
        """The number of groups, or else of examples: what is independent of one another."""
        return self.scores.shape[1] if self.groups is None else len(set(self.groups))

    @property
    def covers_seeds(self) -> bool:
        """Whether the luck of the seed is known; one run of a strategy that draws tells nothing."""
        return self.deterministic or len(self.scores) > 1

    @property
    def seed_part(self) -> Part:
        """What the seeds add to the variance of the mean, beside the noise of their examples."""
        count = len(self.scores)
        if self.deterministic or count < 2:
            return Part(0.0, 0)
        means = self.scores.mean(axis=1)  # (seeds,)
        rest = self.scores - means[:, None] - self.scores.mean(axis=0) + self.mean
        noise = sum(variance_of_mean(run, self.groups).variance for run in rest)
        # What is left beside a mean over `count` runs is (count - 1) / count of a run's noise.
        net = float(means.var(ddof=1)) / count - noise / (count * (count - 1))
        return Part(max(net, 0.0), count - 1)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval.

    Args:
        mean: The mean over seeds and examples.
        low: The lower end.
        high: The upper end.
        covers_seeds: False where there is one seed of a strategy that draws, so that the interval
            covers the choice of examples only.
    """

    mean: float
    low: float
    high: float
    covers_seeds: bool = True

    @property
    def half(self) -> float:
        """The larger distance from the mean to an end."""
        return max(self.mean - self.low, self.high - self.mean)


def interval(sample: Sample, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """The confidence interval of a strategy's mean.

    Where all scores are the same bound, as when every answer is right, the variance is 0 and would
    promise too much. The interval then ends at the mean for which so clean a result still has a
    chance of 2.5 % (Clopper and Pearson). Where there is no other bound, nothing says how far that
    is, and the interval is that bound alone.

    Args:
        sample: The strategy's scores.
        bounds: The least and the greatest possible score.

    Returns:
        The interval; its ends are infinite, or the bounds, where a single example tells nothing.
    """
    examples = variance_of_mean(sample.scores.mean(axis=0), sample.groups)
    half = reach([examples, sample.seed_part], ALPHA)
    low, high = max(sample.mean - half, bounds[0]), min(sample.mean + half, bounds[1])
    if np.isfinite(bounds).all():
        room = (bounds[1] - bounds[0]) * (1 - (ALPHA / 2) ** (1 / sample.units))
        low = bounds[1] - room if (sample.scores == bounds[1]).all() else low
        high = bounds[0] + room if (sample.scores == bounds[0]).all() else high
    return Interval(sample.mean, low, high, sample.covers_seeds)


def cannot_exclude(seeds: int) -> float:
    """The share of runs that may show what none of so many seeds has shown, such as a failure.

    It is the largest share with which so many runs would all miss it in 5 % of cases: the upper
    limit of Clopper and Pearson (1934), near 3 / n for many (the rule of three).

    Args:
        seeds: The number of runs.
    """
    return float(1 - ALPHA ** (1 / seeds))
