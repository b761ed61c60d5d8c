"""Racing: examples are scored block by block, and a prompt that is clearly worse than the leader is scored no further.

After each block every prompt is compared with the leader, the best of the race or the run's best so far, on the examples
that both have seen: a one-sided paired t-test, as in F-Race (Birattari et al. 2002, "A Racing Algorithm for Configuring
Metaheuristics") with two contestants. Whoever is left has seen all examples.

* Blocks double what was seen, as in Hyperband, and the level is divided by the number of looks (Bonferroni): a look at every
  16th of 256 examples would cost each of them three quarters of its level, and tell little that the one before did not.
* What is asked is who has the lower mean on these N examples, not on all that there could be. The mean over n of them, drawn
  without replacement, has the variance s^2 (1/n - 1/N) (Cochran 1977, "Sampling Techniques", theorem 2.2).

The level is not divided by the number of contestants, though the leader is the best of them by the same losses: where many
are about equally good, one that would have come out ahead may be dropped, for one that is no worse as far as these examples
can tell. Divided by both, races of 64 random prompts cost twice as much and end with the same winners, or equally good ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy import stats

from promptsearch.records.scores import Floats, Ids, Scores

#: Examples before the first look; each further look has twice as many as the one before.
BLOCK = 16
#: The probability that a prompt which is as good as the leaders it meets is dropped in a race, at most.
LEVEL = 0.1


@dataclass
class Outcome:
    """What a race found.

    Args:
        scores: Of all contestants; NaN where they were not scored.
        values: To rank by: the mean loss of those that saw all examples; of the others, the leader's mean plus their mean
            difference to it, always above it; +inf for failures and for those that were cut off. Shape `(prompts,)`.
        finished: False where the budget ended the race.
        seen: Examples that any contestant was scored on, the first ones.
    """

    scores: Scores
    values: Floats
    finished: bool = True
    seen: int = 0


@dataclass
class _Table:
    """What is known so far."""

    losses: Floats
    metric: Floats
    choices: Floats | None = None
    computed: int = 0
    failures: dict[int, str] = field(default_factory=dict)

    def enter(self, who: Sequence[int], places: Ids, scores: Scores) -> None:
        where = np.ix_(np.asarray(who), places)
        self.losses[where] = scores.losses
        self.metric[where] = scores.metric
        if scores.choices is not None:
            if self.choices is None:
                self.choices = np.full((*self.losses.shape, scores.choices.shape[2]), np.nan)
            self.choices[where] = scores.choices
        self.computed += scores.computed
        self.failures |= {who[i]: reason for i, reason in scores.failures.items()}


def race(
    count: int,
    examples: Ids,
    incumbent: Floats | None,
    score: Callable[[Sequence[int], Ids], Scores],
    payable: Callable[[Sequence[int], Ids, Ids], int],
) -> Outcome:
    """Score contestants on all examples, or until they are clearly worse than the leader.

    Args:
        count: Contestants.
        examples: Ids of all examples, shape `(examples,)`.
        incumbent: Losses of the run's best prompt so far, shape `(examples,)`; None at the start.
        score: Scores some contestants on some examples, and charges for that.
        payable: How many of some contestants, from the first on, can be paid on some examples, so that afterwards any one of
            them can be paid on further examples.
    """
    shape = (count, len(examples))
    table = _Table(np.full(shape, np.nan), np.full(shape, np.nan))
    blocks = _blocks(shape[1])
    level = LEVEL / max(1, len(blocks) - 1)
    alive = list(range(count))
    finished, seen = True, 0
    for number, block in enumerate(blocks):
        if not alive:
            break
        if payable(alive, examples[block], examples[block[-1] + 1 :]) < len(alive):
            # The budget ends here: the leaders see all the rest, as many of them as can be paid.
            rest = np.arange(block[0], shape[1])
            if number:
                alive.sort(key=lambda i: float(np.nanmean(table.losses[i])))
            alive, finished = alive[: payable(alive, examples[rest], examples[:0])], False
            block = rest
        if not alive:
            break
        table.enter(alive, block, score(alive, examples[block]))
        seen = int(block[-1]) + 1
        alive = [i for i in alive if i not in table.failures]
        if not finished:
            break
        if number < len(blocks) - 1 and alive:
            alive = _survivors(alive, table.losses, seen, incumbent, level)
    for i in table.failures:
        table.losses[i] = table.metric[i] = np.nan
        if table.choices is not None:
            table.choices[i] = np.nan
    scores = Scores(table.losses, table.metric, table.choices, table.computed, table.failures)
    return Outcome(scores, _values(table.losses, incumbent), finished, seen)


def _blocks(examples: int) -> list[Ids]:
    ends = [0]
    while ends[-1] < examples:
        ends.append(min(max(BLOCK, 2 * ends[-1]), examples))
    return [np.arange(begin, end) for begin, end in pairwise(ends)]


def _survivors(
    alive: list[int], losses: Floats, seen: int, incumbent: Floats | None, level: float
) -> list[int]:
    """Those that are not worse than the leader at this level; the leader is always among them, or is the incumbent."""
    everything = losses.shape[1]
    losses = losses[alive, :seen]
    leader = losses[losses.mean(1).argmin()]
    if incumbent is not None and incumbent[:seen].mean() <= leader.mean():
        leader = incumbent[:seen]
    differences = losses - leader
    error = differences.std(axis=1, ddof=1) * np.sqrt(1 / seen - 1 / everything)
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # no spread: the leader itself, or worse by the same everywhere
        t = np.where(
            error > 0,
            differences.mean(1) / error,
            np.where(differences.mean(1) > 0, np.inf, -np.inf),
        )
    return [i for i, p in zip(alive, stats.t.sf(t, seen - 1), strict=True) if p >= level]


def _values(losses: Floats, incumbent: Floats | None) -> Floats:
    rows = losses if incumbent is None else np.vstack([losses, incumbent])
    means = np.where(np.isnan(rows).any(1), np.inf, rows.mean(1))
    values = means[: len(losses)].copy()
    leader = rows[int(means.argmin())]
    for i in np.flatnonzero(np.isinf(values)):
        seen = ~np.isnan(losses[i])
        if seen.any() and np.isfinite(means.min()):
            # A millionth at least: values are written with six decimals, and must not fall below the leader's.
            values[i] = means.min() + max(1e-6, float((losses[i] - leader)[seen].mean()))
    return values
