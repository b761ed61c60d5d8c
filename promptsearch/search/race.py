"""Racing: a prompt that is probably worse than the best so far is scored no further.

Prompts are arms and examples are pulls. A prompt starts on a few examples and is widened to more as
long as it may be the best. After each block it is compared with the leader, which is the best of
the race or the run's best so far, on the examples that both have seen: all prompts of a run see the
same ones in the same order. The comparison is a one-sided paired t-test, as in F-Race (Birattari et
al. 2002, "A Racing Algorithm for Configuring Metaheuristics") with two contestants. Whoever is left
has seen all examples, as every leader has.

* Each block doubles the number of examples that were seen, as in Hyperband (Li et al. 2018): a look
  after every 8 of 128 examples would tell little that the one before did not.
* The question is who has the lower mean on these N examples, not on all that there could be. The
  mean over n of them, drawn without replacement, has the variance s^2 (1/n - 1/N) (Cochran 1977,
  "Sampling Techniques", theorem 2.2).
* The level is high, and is divided neither by the number of looks nor by that of contestants. It is
  the risk of losing a prompt that is as good as the best. A search can propose far more prompts
  than it can pay, so a lost one costs little, and a mediocre one that goes on costs several others.
  `docs/explanation/allocation.md` has the figures by which level and first block were chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy import stats

from promptsearch.records.scores import ExampleIds, Floats, Scores, clear_failed

#: The number of examples before the first look; each further look has twice as many as the one
#: before.
BLOCK = 8
#: The probability that a look drops a prompt which is as good as the leader.
LEVEL = 0.15


@dataclass
class Outcome:
    """What a race found.

    Args:
        scores: The scores of all contestants; NaN where they were not scored.
        values: The losses in nats to rank by, shape `(prompts,)`. A prompt that saw all examples
            has its mean loss. Any other has the leader's mean plus its own mean difference to the
            leader, but always more than the leader's mean. Failures and prompts that were scored on
            nothing have +inf, and so have all where nobody saw all examples.
        finished: False where the budget ended the race.
        seen: The number of examples, from the first one on, that any contestant was scored on.
    """

    scores: Scores
    values: Floats
    finished: bool = True
    seen: int = 0


@dataclass
class Table:
    """The scores of contestants that are known so far; NaN where one was not scored."""

    losses: Floats
    metric: Floats
    choices: Floats | None = None
    computed: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    generated: int = 0
    followed: str = ""

    @staticmethod
    def of(contestants: int, examples: int) -> Table:
        """A table in which nothing is known yet."""
        shape = (contestants, examples)
        return Table(np.full(shape, np.nan), np.full(shape, np.nan))

    def enter(self, who: Sequence[int], places: ExampleIds, scores: Scores) -> None:
        """Enter what some contestants scored on some examples.

        Args:
            who: The contestants.
            places: The places of the examples, shape `(examples,)`.
            scores: What was found.
        """
        where = np.ix_(np.asarray(who), places)
        self.losses[where] = scores.losses
        self.metric[where] = scores.metric
        if scores.choices is not None:
            if self.choices is None:
                self.choices = np.full((*self.losses.shape, scores.choices.shape[2]), np.nan)
            self.choices[where] = scores.choices
        self.computed += scores.computed
        self.generated += scores.generated
        self.followed = scores.followed
        self.failures |= {who[i]: reason for i, reason in scores.failures.items()}

    def scores(self) -> Scores:
        """All of them; a contestant that failed on some examples has none."""
        clear_failed(self.failures, self.losses, self.metric, self.choices)
        return Scores(**vars(self))


def race(
    count: int,
    examples: ExampleIds,
    incumbent: Floats | None,
    score: Callable[[Sequence[int], ExampleIds], Scores],
    payable: Callable[[Sequence[int], ExampleIds, ExampleIds], list[int]],
) -> Outcome:
    """Score contestants on all examples, or until they are probably worse than the leader.

    Args:
        count: The number of contestants.
        examples: Ids of all examples, shape `(examples,)`.
        incumbent: Losses of the run's best prompt so far, shape `(examples,)`; None at the start.
        score: Scores some contestants on some examples, and charges for that.
        payable: Takes some contestants, some examples, and further examples. Returns which of the
            contestants can be paid on the former so that afterwards any one of them can be paid on
            the latter; earlier ones come first, and what does not fit is left out.
    """
    table, blocks = Table.of(count, len(examples)), _blocks(len(examples))
    alive = list(range(count))
    finished, seen = True, 0
    for number, block in enumerate(blocks):
        if not alive:
            break
        if len(payable(alive, examples[block], examples[block[-1] + 1 :])) < len(alive):
            # The budget ends here. As many of the best as can be paid see all the rest.
            rest = np.arange(block[0], len(examples))
            if number:
                alive.sort(key=lambda i: float(np.nanmean(table.losses[i])))
            alive, finished = payable(alive, examples[rest], examples[:0]), False
            block = rest
        if not alive:
            break
        table.enter(alive, block, score(alive, examples[block]))
        seen = int(block[-1]) + 1
        alive = [i for i in alive if i not in table.failures]
        if not finished:
            break
        if number < len(blocks) - 1 and alive:
            alive = _survivors(alive, table.losses, seen, incumbent)
    scores = table.scores()
    return Outcome(scores, _values(scores.losses, incumbent), finished, seen)


def _blocks(examples: int) -> list[ExampleIds]:
    ends = [0]
    while ends[-1] < examples:
        ends.append(min(max(BLOCK, 2 * ends[-1]), examples))
    return [np.arange(begin, end) for begin, end in pairwise(ends)]


def _survivors(alive: list[int], losses: Floats, seen: int, incumbent: Floats | None) -> list[int]:
    """The contestants that are not worse than the leader at the level of a look.

    The leader is always among them, unless it is the incumbent.
    """
    everything = losses.shape[1]
    losses = losses[alive, :seen]
    leader = losses[losses.mean(1).argmin()]
    if incumbent is not None and incumbent[:seen].mean() <= leader.mean():
        leader = incumbent[:seen]
    differences = losses - leader
    error = differences.std(axis=1, ddof=1) * np.sqrt(1 / seen - 1 / everything)
    # Differences have no spread for the leader itself, or where a prompt is worse by the same loss
    # everywhere.
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(
            error > 0,
            differences.mean(1) / error,
            np.where(differences.mean(1) > 0, np.inf, -np.inf),
        )
    return [i for i, p in zip(alive, stats.t.sf(t, seen - 1), strict=True) if p >= LEVEL]


def _values(losses: Floats, incumbent: Floats | None) -> Floats:
    rows = losses if incumbent is None else np.vstack([losses, incumbent])
    means = np.where(np.isnan(rows).any(1), np.inf, rows.mean(1))
    values = means[: len(losses)].copy()
    leader = rows[int(means.argmin())]
    for i in np.flatnonzero(np.isinf(values)):
        seen = ~np.isnan(losses[i])
        if seen.any() and np.isfinite(means.min()):
            # The difference is a millionth at least: values are written with six decimals, and must
            # stay above the leader's.
            values[i] = means.min() + max(1e-6, float((losses[i] - leader)[seen].mean()))
    return values
