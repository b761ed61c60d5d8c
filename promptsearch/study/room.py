"""What a search can gain over the best control, estimated from a small table of scores.

The table holds the scores of random prompts and of controls on the same few examples. A score is
the sum of a common level, the prompt's worth, the example's difficulty, and noise; a two-way
analysis of variance without replication (Searle, Casella and McCulloch 1992, chapter 4) tells the
noise from the worth. Losses have a long tail of bad prompts, which says nothing of the best. So the
scatter s of the prompts' worth is that of the better half: the root of their mean squared distance
from the median, less what noise explains. Of K prompts the best would be worth

    median + s z(K),  z(K) = the normal quantile of (K - 0.375) / (K + 0.25)     (Blom 1958)

and, found by its scores on n examples with noise variance v, rho = s / sqrt(s^2 + v / n) times as
much above the median (regression to the mean). The best of several searches is taken to gain
between `REACH` times that, whose middle a random search gains, see `benchmarks/headroom.py`.

The interval holds, draw by draw, what is uncertain: examples and prompts (bootstrap), and the
reach. Controls are chosen on one half of the examples and counted on the other, so that none is
credited with its luck.

All scores are higher the better.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from promptsearch.records.headroom import GainRecord
from promptsearch.records.scores import Floats
from promptsearch.statistics.variance import sums_within

#: The least and the most that the best search gains, in shares of the above.
REACH = (0.5, 1.1)
#: Draws, and the level of the interval.
DRAWS, LEVEL = 1_000, 0.9


def noise_of(scores: Floats) -> float:
    """The variance of what is left of a score without its prompt's and its example's means.

    Args:
        scores: Shape `(prompts, examples)`, at least two of each.
    """
    prompts, examples = scores.shape
    rest = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    return float((rest**2).sum() / ((prompts - 1) * (examples - 1)))


def scatter_of(means: Floats, error: float) -> Floats:
    """The scatter of the better half of prompts, without what noise explains, shape `(...)`.

    Args:
        means: The mean scores of prompts, shape `(..., prompts)`.
        error: The variance of a mean by noise alone.
    """
    above = np.maximum(0.0, means - np.median(means, axis=-1, keepdims=True))
    found: Floats = np.sqrt(np.maximum(0.0, 2 * (above**2).mean(-1) - error))
    return found


def best_of(count: int) -> float:
    """How many standard deviations the best of so many normal numbers lies above their mean."""
    return float(stats.norm.ppf((max(1, count) - 0.375) / (max(1, count) + 0.25)))


def gain_of_words(
    random: Floats, controls: Floats, evaluations: int, score_on: int, rng: np.random.Generator
) -> Floats:
    """Draws of what the best search for words gains over the best control, shape `(DRAWS,)`.

    Args:
        random: Scores of random prompts, shape `(prompts, examples)`, at least four and two.
        controls: Scores of the controls on the same examples, shape `(controls, examples)`.
        evaluations: The prompts that a search tries.
        score_on: The examples on which it tries them.
        rng: Draws.
    """
    random = random[np.argsort(random.mean(1), kind="stable")]
    prompts, examples = random.shape
    means, noise = random.mean(1), noise_of(random[prompts // 2 :])  # bad prompts are noisier
    drawn = np.sort(rng.integers(prompts, size=(DRAWS, prompts)), axis=1)  # the worst ones first
    scatter = scatter_of(means[drawn], noise / examples)  # (draws,)
    # 1 where nothing is noisy; nothing is gained where prompts are worth the same.
    known = scatter / np.sqrt(np.maximum(scatter**2 + noise / score_on, 1e-300))
    above = rng.uniform(*REACH, DRAWS) * known * scatter * best_of(evaluations)
    middle = drawn[:, prompts // 4 : prompts - prompts // 4]  # their mean stands for the median
    return _over_control(random, middle, controls, rng) + above


def gain_of_vectors(
    trained: Floats, controls: Floats, choosing: Floats, rng: np.random.Generator
) -> Floats:
    """Draws of what a trained prompt gains over the best control, shape `(DRAWS,)`.

    Args:
        trained: Scores of the trained prompt on examples that neither it nor a control was chosen
            on, shape `(examples,)`.
        controls: Scores of the controls on these, shape `(controls, examples)`.
        choosing: Scores of the controls on others, shape `(controls, others)`.
        rng: Draws.
    """
    here = rng.integers(len(trained), size=(DRAWS, len(trained)))
    there = rng.integers(choosing.shape[1], size=(DRAWS, choosing.shape[1]))
    best = choosing[:, there].mean(2).argmax(0)  # (draws,)
    differences = (trained - controls)[:, here].mean(2)  # (controls, draws)
    found: Floats = differences[best, np.arange(DRAWS)]
    return found


def gain_record(draws: Sequence[Floats]) -> GainRecord:
    """The gain of the best of several kinds of searches, with its interval.

    The interval of each kind is wider by Bonferroni's correction, so that that of the greatest gain
    holds as often as that of one kind.

    Args:
        draws: The draws of each kind, at least one.
    """
    outside = (1 - LEVEL) / 2 / len(draws)  # of each, so that luck of one kind makes no room
    ends = np.quantile(np.stack(draws), [outside, 0.5, 1 - outside], axis=1)  # (3, kinds)
    low, middle, high = ends.max(axis=1)
    return GainRecord(float(middle), float(low), float(high))


def by_group(scores: Floats, groups: Sequence[Hashable] | None) -> Floats:
    """Scores of groups of examples in place of those of examples, with the same means.

    Examples of one group are no independent ones.

    Args:
        scores: Shape `(prompts, examples)`.
        groups: What each example belongs to, shape `(examples,)`; None where each stands for
            itself.

    Returns:
        Shape `(prompts, groups)`: the sums within groups, divided by the examples of a mean group.
    """
    if groups is None:
        return scores
    sums = np.stack([sums_within(row, groups) for row in scores])
    found: Floats = sums * (sums.shape[1] / scores.shape[1])
    return found


def _over_control(
    random: Floats, middle: np.ndarray, controls: Floats, rng: np.random.Generator
) -> Floats:
    """Draws of the level of random prompts above the best control, shape `(DRAWS,)`.

    Args:
        random: Scores of random prompts, shape `(prompts, examples)`.
        middle: The places of those that make the level in each draw, shape `(DRAWS, some)`.
        controls: Scores of the controls, shape `(controls, examples)`.
        rng: Draws.
    """
    order = rng.permuted(np.tile(np.arange(random.shape[1]), (DRAWS, 1)), axis=1)
    halves = [
        np.take_along_axis(half, rng.integers(half.shape[1], size=half.shape), axis=1)
        for half in np.array_split(order, 2, axis=1)
    ]
    draws = np.arange(DRAWS)
    levels = [_means(random, half)[middle, draws[:, None]].mean(1) for half in halves]
    first, second = (_means(controls, half) for half in halves)  # (controls, draws)
    found: Floats = (
        levels[0] - first[second.argmax(0), draws] + levels[1] - second[first.argmax(0), draws]
    ) / 2
    return found


def _means(scores: Floats, ids: np.ndarray) -> Floats:
    """The mean score of each row on each draw of examples, shape `(rows, draws)`."""
    found: Floats = np.stack([row[ids].mean(1) for row in scores])
    return found
