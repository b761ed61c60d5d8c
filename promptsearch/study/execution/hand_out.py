"""Which run a free worker is given: the one with the longest way to the end of the study.

A run's way is what it takes, and what the longest chain of runs takes that start from one another
behind it. To give the longest first ends a study at most a third later than the best order could
(Graham 1969, https://doi.org/10.1137/0117039, for runs that start from none). What a run takes is
learned from those that have ended: one of which nothing is known comes first, since it may be the
longest, and tells of its row. No number depends on the order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar


class Waiting(Protocol):
    """A run that is to be made."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def source(self) -> str | None:
        """The name of the run that it starts from; None where it starts from none."""


W = TypeVar("W", bound=Waiting)


def next_of(
    left: Sequence[W], unmade: Collection[str], expected: Callable[[str], float | None]
) -> W | None:
    """The run that comes next; None where all of them wait for others.

    Args:
        left: The runs that nobody makes yet, each after the one that it starts from. Of runs that
            are alike, the first one comes first.
        unmade: The names of these, and of the runs that are being made.
        expected: The seconds that a run will take, by its name; None where nothing is known.
    """
    ways: dict[str, float] = {}
    behind: dict[str, float] = {}
    for run in reversed(left):
        seconds = expected(run.name)
        ways[run.name] = behind.get(run.name, 0.0) + (math.inf if seconds is None else seconds)
        if run.source is not None:
            behind[run.source] = max(behind.get(run.source, 0.0), ways[run.name])
    free = (run for run in left if run.source not in unmade)
    return max(free, key=lambda run: ways[run.name], default=None)
