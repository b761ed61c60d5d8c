"""Confidence intervals, paired tests, and who may be called the winner.

A strategy's test scores are a matrix: its runs (seeds) by the test examples, which are the same for
all strategies. A score is the sum of a common value, the luck of the seed, the difficulty of the
example, and noise. Both the seeds and the examples are samples, so both count in every interval and
in every test. With S seeds and E examples, the variance of the grand mean has two parts:

    s2(examples) / E    the sample variance of the examples' means over seeds
    s2(seeds) / S       that of the runs' means over examples, less the noise, which the first has

An interval reaches from the mean as far as both parts together,

    half^2 = t(E - 1)^2 s2(examples) / E + t(S - 1)^2 s2(seeds) / S,

each with Student's quantile for its own degrees of freedom (Howe 1974, doi:10.2307/2286019; as
"MOVER" in Zou and Donner 2008, doi:10.1002/sim.3095). It takes few seeds for as little as they
are, where the pooled degrees of freedom of Welch and Satterthwaite take the many examples for them.
A test of two strategies has three parts: the examples' differences and each one's own seeds. No
luck is taken to be equal (for seeds alone, this is the test of Cochran and Cox, 1950).

The leader is the winner where it is ahead of each other row by such a test at 5 % with two sides,
not corrected: of all rows one leads, and to be called the winner by mistake it has to be ahead of
the best of the others too, so rows that are further behind add nothing (Gutmann and Maymin 1987,
doi:10.1214/aos/1176350283; Hung and Fithian 2019, arXiv:1610.03944; for unequal variances
Goldwasser, Fithian and Hooker 2025, arXiv:2501.14142). `python -m benchmarks power` simulates all
of this.

Where examples come in groups, such as the texts of one passage, s2(examples) / E is the clustered
variance: residuals are added up within groups, whose sums are independent (Liang and Zeger 1986,
doi:10.1093/biomet/73.1.13), times G / (G - 1) for G groups, with G - 1 degrees of freedom.

Higher scores are better, except in `interval`, which also serves losses.
"""

from __future__ import annotations

from promptsearch.statistics.jackknife import Score, jackknife
from promptsearch.statistics.paired import Comparison, paired_test
from promptsearch.statistics.samples import Interval, Sample, cannot_exclude, interval
from promptsearch.statistics.together import (
    compare_all,
    compare_leader,
    compare_with,
    holm,
    rank,
)
from promptsearch.statistics.variance import ALPHA, Floats, Part

__all__ = [
    "ALPHA",
    "Comparison",
    "Floats",
    "Interval",
    "Part",
    "Sample",
    "Score",
    "cannot_exclude",
    "compare_all",
    "compare_leader",
    "compare_with",
    "holm",
    "interval",
    "jackknife",
    "paired_test",
    "rank",
]
