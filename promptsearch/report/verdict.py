"""The sentences that say whether searching paid, and who won, or that the data cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from promptsearch.report.best_control import Against
from promptsearch.report.measured import Scale
from promptsearch.report.notation import number, p_value, percent
from promptsearch.statistics import (
    Comparison,
    Sample,
    cannot_exclude,
    compare_leader,
    interval,
    rank,
)

#: The most ties, and rows of one seed, that are named; the others stand in the tables.
_NAMED = 8


def verdict(
    samples: Mapping[str, Sample],
    scale: Scale,
    *,
    against: Against | None = None,
    floor: float | None = None,
    failed: Mapping[str, int] | None = None,
    unfinished: int = 0,
    unit: str = "test example",
    where: str = "",
) -> str:
    """What the best searches make of the best control, then who won, or that the data cannot tell.

    Short sentences follow where there is a catch.

    Args:
        samples: Strategy -> its scores, all on the same examples and turned so that a higher one is
            better; references left out.
        scale: The metric, and how its scores are read.
        against: The rows against the best control; None where there is none.
        floor: The score of always giving the most frequent answer; None where it is not known.
        failed: Strategy -> the number of its runs that failed, those without any left out.
        unfinished: The number of runs that were not made yet.
        unit: What the scores are independent in.
        where: The words that say where a strategy has to have finished to be among the samples.

    Returns:
        Plain text.
    """
    failed = failed or {}
    notes = [f"{_count(sum(failed.values()), 'run')} failed"] if failed else []
    notes += [f"{_count(unfinished, 'run')} not made yet"] if unfinished else []
    missing = f" Not counted: {', '.join(notes)}." if notes else ""
    if not samples:
        who = f"strategy has finished{where}" if where else "run has finished"
        return f"No {who}: there is nothing to compare.{missing}"
    leader, *others = rank(samples)
    score = f"{scale.name} {scale.sign * samples[leader].mean:.3f}"
    tests = compare_leader(samples, scale.widest)
    ties = [test for test in tests if not test.significant]
    if not others:
        sentence = (
            f"{leader} reaches {score}; no other strategy has finished{where}, "
            "so there is nothing to compare it with."
        )
    elif ties:
        sentence = (
            f"The data cannot tell who wins: {leader} leads with {score}, but cannot be told from "
            f"{_enumerate([t.second for t in ties], most=_NAMED)} "
            f"({_what_would_have_shown(ties, unit)})."
        )
    else:
        sentence = (
            f"{leader} wins with {score}, {tests[0].difference:.3f} ahead of {tests[0].second} "
            f"({p_value(max(test.p for test in tests))}{_at_most(len(tests))})."
        )
    if floor is not None:
        sentence += _beside_floor(samples[leader], floor)
    alone = [name for name in samples if not samples[name].covers_seeds]
    luck = f" {_one_seed(alone, where)}: the luck of the seed is not in this." if alone else ""
    named = [leader] if tests and not ties else []
    named += [name for name in (against.won() if against else []) if name not in named]
    unseen = _unseen({name: samples[name] for name in named}, failed)
    return f"{against.sentence if against else ''}{sentence}{unseen}{luck}{missing}"


def _beside_floor(leader: Sample, floor: float) -> str:
    """What a leader makes of the most frequent answer, where it is not above it."""
    found = interval(leader, (0, 1))
    if found.low > floor:
        return ""
    told = "is behind" if found.high < floor else "cannot be told from"
    return f" Even the leader {told} always giving the most frequent answer ({floor:.3f})."


def _one_seed(alone: Sequence[str], where: str) -> str:
    """Whose seeds are too few to tell their luck; seeds count that have finished everywhere."""
    names = _enumerate(alone, most=_NAMED)
    if where:
        return f"Fewer than two seeds of {names} finished{where}"
    return f"One seed only of {names}"


def _at_most(tests: int) -> str:
    return f" at most, each of the {tests} others tested by itself" if tests > 1 else ""


def _unseen(ahead: Mapping[str, Sample], failed: Mapping[str, int]) -> str:
    """What the seeds of the rows that are said to be ahead do not show.

    That is which of their runs failed, or else what may still come.

    Args:
        ahead: Strategy -> its scores.
        failed: Strategy -> the number of its runs that failed.
    """
    if lost := [name for name in ahead if failed.get(name)]:
        told = [f"{failed[n]} of {failed[n] + len(ahead[n].scores)} runs of {n}" for n in lost]
        return f" {_enumerate(told)} failed, and may do so again: scores are of the others."
    seeds = [len(sample.scores) for sample in ahead.values() if not sample.deterministic]
    if not seeds or min(seeds) < 2:
        return ""
    share = percent(cannot_exclude(min(seeds)))
    return (
        f" With {min(seeds)} seeds, up to {share} of further runs may still do what none of these "
        "did, such as fail."
    )


def _what_would_have_shown(ties: Sequence[Comparison], unit: str) -> str:
    if any(np.isinf(test.half) for test in ties):
        return f"a single {unit} tells nothing"
    if not any(test.differing for test in ties):
        return "their scores are the same"
    ties = [test for test in ties if not test.too_few]
    if not ties:
        return "too few of their scores differ to tell"
    least, most = min(ties, key=lambda t: t.detectable), max(ties, key=lambda t: t.detectable)
    if np.isinf(least.detectable):
        return "they scatter too much for any difference to show"
    low, high = number(least.detectable), number(most.detectable)
    if low == high:
        return f"a difference of {high} would have shown"
    nearest = f"a difference of {low} from {least.second}"
    if np.isinf(most.detectable):
        return f"{nearest} would have shown, none from {most.second}, which scatters too much"
    return f"{nearest}, and of {high} from {most.second}, would have shown"


def _count(many: int, noun: str) -> str:
    return f"{many} {noun}" if many == 1 else f"{many} {noun}s"


def _enumerate(names: Sequence[str], most: int | None = None) -> str:
    """The names in a sentence; where there are more than `most`, the others are counted."""
    if most is not None and len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
