"""Which run a free worker is given: held against the best order, found by trying all of them."""

from __future__ import annotations

import heapq
from itertools import product
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from promptsearch.study.execution.hand_out import next_of


class Run(NamedTuple):
    name: str
    source: str | None = None


def end_of(runs, seconds, workers, expected):
    """When the last run ends if workers are given runs as soon as they are free."""
    free, left, ends = [0.0] * workers, list(runs), {}
    while left:
        now = heapq.heappop(free)
        unmade = {run.name for run in runs if ends.get(run.name, now + 1) > now}
        run = next_of(left, unmade, expected)
        if run is None:
            heapq.heappush(free, min(end for end in ends.values() if end > now))
            continue
        assert run.source not in unmade
        left.remove(run)
        ends[run.name] = now + seconds[run.name]
        heapq.heappush(free, ends[run.name])
    return max(ends.values())


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(2, 3))
def test_it_ends_at_most_a_third_after_the_best_order(seconds, workers):
    """Graham 1969, theorem 3: 4/3 - 1/(3m) times the best, with m workers."""
    took = {str(at): each for at, each in enumerate(seconds)}
    shares = product(range(workers), repeat=len(seconds))
    best = min(
        max(sum(s for s, w in zip(seconds, share, strict=True) if w == one) for one in share)
        for share in shares
    )
    end = end_of([Run(name) for name in took], took, workers, took.get)
    assert best <= end <= best * (4 / 3 - 1 / (3 * workers)) + 1e-9


def test_what_others_start_from_and_what_nobody_knows_come_first():
    runs = [Run("short"), Run("long"), Run("first"), Run("second", "first"), Run("new")]
    seconds = {"short": 1.0, "long": 9.0, "first": 3.0, "second": 7.0}
    order = []
    while runs:
        run = next_of(runs, {each.name for each in runs}, seconds.get)
        order.append(run.name)
        runs.remove(run)
    assert order == ["new", "first", "long", "second", "short"]
    waiting = [Run("second", "first")]
    assert next_of(waiting, {"first", "second"}, seconds.get) is None
    alike = [Run("a"), Run("b")]
    assert next_of(alike, {"a", "b"}, lambda name: None) == Run("a")
