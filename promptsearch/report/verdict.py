"""The one sentence that says who won, or that the data cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from promptsearch.report.measured import Scale
from promptsearch.statistics import Comparison, Sample, compare_all, interval, rank

#: The most ties that the sentence names; the others are in the table of pairs.
_NAMED = 8


def verdict(
    samples: Mapping[str, Sample],
    scale: Scale,
    *,
    floor: float | None = None,
    failed: int = 0,
    unfinished: int = 0,
) -> str:
    """The sentence that names the winner, or says that the data cannot tell.

    Short sentences follow where there is a catch.

    Args:
        samples: Strategy -> its scores, all on the same examples and turned so that a higher one is
            better; references left out.
        scale: The metric, and how its scores are read.
        floor: The score of always giving the most frequent answer; None where it is not known.
        failed: The number of runs that failed.
        unfinished: The number of runs that were not made yet.

    Returns:
        Plain text.
    """
    notes = [f"{_count(failed, 'run')} failed"] if failed else []
    notes += [f"{_count(unfinished, 'run')} not made yet"] if unfinished else []
    missing = f" Not counted: {', '.join(notes)}." if notes else ""
    if not samples:
        return f"No run has finished: there is nothing to compare.{missing}"
    leader, *others = rank(samples)
    score = f"{scale.name} {scale.sign * samples[leader].mean:.3f}"
    tests = compare_all(samples)
    against = tests[: len(others)]  # the leader's pairs come first
    ties = [t for t in against if not t.significant]
    corrected = f"corrected for {_count(len(tests), 'comparison')}"
    if not others:
        sentence = (
            f"{leader} reaches {score}; no other strategy has finished, "
            "so there is nothing to compare it with."
        )
    elif ties:
        sentence = (
            f"The data cannot tell who wins: {leader} leads with {score}, but cannot be told from "
            f"{_enumerate([t.second for t in ties], most=_NAMED)} "
            f"({_what_would_have_shown(ties, scale)}, {corrected})."
        )
    else:
        sentence = (
            f"{leader} wins with {score}, {against[0].difference:.3f} ahead of {against[0].second} "
            f"(p = {max(t.adjusted for t in against):.2g}, {corrected})."
        )
    if floor is not None and interval(samples[leader], (0, 1)).low <= floor:
        sentence += (
            " Even the leader cannot be told from always giving the most frequent answer "
            f"({floor:.3f})."
        )
    alone = [name for name in samples if not samples[name].covers_seeds]
    luck = (
        f" One seed only of {_enumerate(alone)}: the luck of the seed is not in this."
        if alone
        else ""
    )
    return sentence + luck + missing


def _what_would_have_shown(ties: Sequence[Comparison], scale: Scale) -> str:
    widest = scale.bounds[1] - scale.bounds[0]
    least, most = min(ties, key=lambda t: t.detectable), max(ties, key=lambda t: t.detectable)
    if np.isinf(most.detectable):
        return "a single test example tells nothing"
    if most.detectable == 0:
        return "their scores are the same"
    if least.detectable > widest:
        return "they scatter too much for any difference to show"
    if len(ties) == 1:
        return f"a difference of {most.detectable:.3f} would have shown"
    nearest = f"a difference of {least.detectable:.3f} from {least.second}"
    if most.detectable > widest:
        return f"{nearest} would have shown, none from {most.second}, which scatters too much"
    return f"{nearest}, and of {most.detectable:.3f} from {most.second}, would have shown"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _enumerate(names: Sequence[str], most: int | None = None) -> str:
    """The names in a sentence; where there are more than `most`, the others are counted."""
    if most is not None and len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
