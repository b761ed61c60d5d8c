"""The time that a study still takes, from what its runs told so far.

Runs under one budget take alike only where they do alike. A run is therefore expected to take what
other seeds of its row took; else what each token of the budget took in runs that need the same of
the LM; else that of other searches, by what a training step costs beside a forward pass. Prompts
that are given and not searched spend next to no budget, and say nothing about searches but this.
"""

from __future__ import annotations

import heapq
from statistics import fmean

from promptsearch.records.ledger import MOST_CACHED
from promptsearch.study.events import Progress

#: How long a search takes under one budget beside one that needs scores only. Backward passes share
#: no keys and values between prompts. Measured on the reference studies, as is the next one.
_BESIDE_SCORES = {"scores": 1.0, "logits": 1.0, "gradients": 1.4, "weights": 1.8}
#: How long a search that needs scores takes beside a row of prompts that were given.
_BESIDE_GIVEN = 2.0
#: The share of its time that a run still takes at least which took longer than was expected.
_LEAST = 0.1


class TimeLeft:
    """An account of the runs of a study, and of what each of them took."""

    def __init__(self) -> None:
        self._waiting: dict[str, Progress] = {}  # all runs that were announced, by name
        self._going: dict[str, Progress] = {}
        self._took: dict[str, float] = {}  # seconds of those that are done
        self._over: set[str] = set()
        self._by_row: dict[str, float | None] = {}  # what a run of a row is expected to take
        self._total = 0

    def __call__(self, event: Progress) -> None:
        """Take note of an event."""
        if not event.run:
            return
        self._total = max(self._total, event.total)
        if event.stage == "waiting":
            self._waiting[event.run] = event
            self._by_row.clear()
        elif event.over:
            self._going.pop(event.run, None)
            self._over.add(event.run)
            # The time of an earlier call counts as well; a run that failed tells nothing, and so
            # does one that computed little.
            seconds = event.seconds or float(event.facts.get("seconds", 0.0))
            if event.stage == "done" and seconds and event.cached <= MOST_CACHED:
                self._took[event.run] = seconds
                self._by_row.clear()
        else:
            self._going[event.run] = event

    @property
    def over(self) -> int:
        """How many runs have ended."""
        return len(self._over)

    @property
    def total(self) -> int:
        """How many runs there are."""
        return self._total

    @property
    def going(self) -> tuple[Progress, ...]:
        """The last event of each run that goes on now."""
        return tuple(self._going.values())

    def expected(self, run: str) -> float | None:
        """The seconds that a run takes in all, by its name; None where nothing is known."""
        return self._expected(self._waiting.get(run))

    def seconds(self) -> float | None:
        """The seconds until the last run ends; None where nothing is known yet.

        As many runs as go on now are supposed to go on side by side, in their order.
        """
        ahead = [name for name in self._waiting if name not in self._over | self._going.keys()]
        rests = [self._rest(event) for event in self._going.values()]
        expected = [self._expected(self._waiting[name]) for name in ahead]
        wholes = [
            event.seconds + rest
            for event, rest in zip(self._going.values(), rests, strict=True)
            if rest is not None
        ]
        known = [*wholes, *(each for each in expected if each is not None), *self._took.values()]
        if not known:
            return None
        mean = fmean(known)
        # The runs of models that are loaded later were not announced yet.
        strange = max(0, self._total - len(self._over | self._going.keys()) - len(ahead))
        ends = [mean if rest is None else rest for rest in rests] or [0.0]
        heapq.heapify(ends)
        for each in [*(mean if one is None else one for one in expected), *[mean] * strange]:
            heapq.heappush(ends, heapq.heappop(ends) + each)
        return max(ends)

    def _rest(self, event: Progress) -> float | None:
        """The seconds that a run that goes on still takes; None where nothing is known."""
        expected = self._expected(self._waiting.get(event.run))
        share = min(1.0, event.spent / event.budget) if event.budget and event.spent else 0.0
        given = self._waiting.get(event.run)
        searches = given is None or given.facts["searches"]
        # Where a search spends its budget evenly, its share of it says when it will be spent.
        own = event.seconds / share if share and searches else None
        if expected is None:
            whole = own
        elif own is None or event.stage != "search":
            whole = expected
        else:
            whole = (1 - share) * expected + share * own
        return None if whole is None else max(_LEAST * whole, whole - event.seconds)

    def _expected(self, run: Progress | None) -> float | None:
        """The seconds that a run will take; None where nothing is known."""
        if run is None:
            return None
        row, searches = run.facts["row"], run.facts["searches"]
        if row not in self._by_row:
            self._by_row[row] = self._of_row(row, run.facts["access"], searches, run.budget or 1)
        return self._by_row[row]

    def _of_row(self, row: str, access: str, searches: bool, budget: int) -> float | None:
        same, given = list[float](), list[float]()
        alike, others = list[float](), list[float]()  # seconds a token and what it costs beside
        for name, seconds in self._took.items():
            other = self._waiting.get(name)
            if other is None:
                continue
            if other.facts["row"] == row:
                same.append(seconds)
            elif not other.facts["searches"]:
                given.append(seconds)
            elif other.budget:
                rate = seconds / (other.budget * _BESIDE_SCORES[other.facts["access"]])
                (alike if other.facts["access"] == access else others).append(rate)
        if same or (given and not searches):
            return fmean(same or given)
        beside = _BESIDE_SCORES[access]
        if rates := alike or others:
            return fmean(rates) * budget * beside / (1.0 if searches else _BESIDE_GIVEN)
        return fmean(given) * beside * _BESIDE_GIVEN if given else None
