"""A run rehearsed: it searches as it will, with its whole budget, but a stand-in answers.

The stand-in's losses vary as those of a few measured prompts do, so that races drop as many prompts
as they will. A strategy's own time is its own.

Training is the same work again and again. Where it has many weights of its own, as fine-tuning has,
it is rehearsed for some scorings only, and the rest is taken to go on like them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

from promptsearch.errors import BudgetExhausted, PromptSearchError
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.ledger import Ledger, total
from promptsearch.records.log import RunLog
from promptsearch.scoring.protocol import price_of, price_of_generation
from promptsearch.search.books import books_of
from promptsearch.search.loop import search
from promptsearch.search.options import deciding
from promptsearch.search.plugins import make_strategy
from promptsearch.search.training import TrainedStrategy
from promptsearch.study.anytime import incumbents
from promptsearch.study.arena import Arena
from promptsearch.study.calibration import Calibration, Speed
from promptsearch.study.ending import rounds_of
from promptsearch.study.run import Run
from promptsearch.study.stand_in import StandInProposing, StandInScorer

#: Weights of a strategy times steps that are rehearsed; these take seconds on a CPU.
REHEARSED = 100_000_000


@dataclass(frozen=True)
class RunForecast:
    """What the runs of one strategy will take.

    Args:
        task: Its name.
        label: The strategy's.
        runs: Seeds.
        proposals: Prompts scored in a run's search.
        price: LM tokens charged to a run, with those of the run that it starts from.
        computed: LM tokens that go through the model in a run, those of training counted twice.
        seconds: A run's seconds, without those of a model behind an endpoint.
        requests: To endpoints, in a run.
        error: Why the runs will fail; empty where they will not.
    """

    task: str
    label: str
    runs: int
    proposals: int = 0
    price: int = 0
    computed: int = 0
    seconds: float = 0.0
    requests: int = 0
    error: str = ""


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal told.

    Args:
        forecast: What the runs will take.
        winner: The prompt that runs which start from this one are rehearsed with; None where the
            rehearsal failed.
    """

    forecast: RunForecast
    winner: Prompt | None = None


def rehearse(
    run: Run,
    runs: int,
    calibration: Calibration,
    seen: set[tuple[int, ...]],
    start: Rehearsal | None,
) -> Rehearsal:
    """Rehearse one run of a strategy.

    Args:
        run: The run; nothing is written into its folder.
        runs: How many runs of other seeds will take the same.
        calibration: The speeds and losses of its arena.
        seen: What stands before the prompt of examples that were met in earlier rehearsals; grows.
        start: The rehearsal of the run that it starts from.
    """
    failing = partial(RunForecast, run.arena.task.name, run.label, runs)
    if start and start.winner is None:
        reason = f"the run that it starts from, '{start.forecast.label}', would fail"
        return Rehearsal(failing(error=reason))
    arena, scorer = run.arena, StandInScorer(run, calibration, seen)
    # Training is as fast on other tasks, a token as a token.
    others = {
        name: StandInScorer(replace(run, arena=other), calibration, seen)
        for name, other in run.others.items()
    }
    ledger = run.ledger(start.forecast.price if start else 0)
    log = _Log([scorer, *others.values()])
    proposing = run.proposing and StandInProposing(scorer, run.fare, run.proposing, arena.space)
    objective = run.objective(
        scorer, ledger, others, log=log, proposing=proposing, start=start.winner if start else None
    )
    options = deciding(run.strategy, run.options)
    try:
        strategy = make_strategy(run.name, run.strategy, objective, run.seed, options)
        if isinstance(strategy, TrainedStrategy):
            log.most = _scorings(strategy)
        search(strategy)
    except PromptSearchError as error:
        return Rehearsal(failing(error=str(error)))
    finalists = [item.prompt for item in objective.finalists()]
    if not finalists:
        reason = "no prompt could be scored: give it a larger budget, or shorter prompts"
        return Rehearsal(failing(error=reason))
    rest = _NO_REST
    if isinstance(strategy, TrainedStrategy) and log.ended:
        left = objective.left(max(map(objective.length, finalists)), strategy.finalists)
        rest = log.rest(strategy, left, run.seconds)
        scored = len(log.lines) + rest.scorings
        finalists = list(islice(cycle(finalists), min(strategy.finalists, scored)))
    seconds = log.seconds + rest.seconds
    seconds += _end(arena, finalists, calibration.exact, scorer, ledger)
    if shown := [prompt for _, prompt in incumbents(arena, books_of(objective))]:
        once = arena.exact["select"].predict(shown, arena.ids("select"))  # for the anytime curve
        seconds += calibration.exact.seconds(once.cost)
    if strategy.training is not None:  # what it is compared with
        empty = arena.bare.predict([TextPrompt("")], arena.ids("select"))
        seconds += calibration.exact.seconds(empty.cost)
    forecast = RunForecast(
        arena.task.name,
        run.label,
        runs,
        proposals=sum(len(line["prompts"]) for line in log.lines) + rest.scorings,
        price=ledger.spent + rest.price,
        computed=ledger.computed + rest.computed,
        seconds=seconds,
        requests=scorer.requests,
    )
    return Rehearsal(forecast, finalists[0])


def _scorings(strategy: TrainedStrategy) -> int:
    """The scorings of a rehearsal, that of the start included: two at least."""
    steps = REHEARSED // max(1, strategy.trainable)
    return 1 + max(1, steps // strategy.options.interval)


def _end(
    arena: Arena,
    finalists: Sequence[Prompt],
    exact: Speed,
    scorer: StandInScorer,
    ledger: Ledger,
) -> float:
    """The seconds of a run's end, whose tokens are charged and whose requests are counted.

    The best are scored again in float32, some of them selected among, and one tested; where text is
    generated, as long answers as there can be.
    """
    seconds = 0.0
    for split, count, ids in (*rounds_of(arena, len(finalists)), ("test", 1, arena.ids("test"))):
        engine, some = arena.exact[split], finalists[:count]
        prediction = engine.predict(some, ids)
        price = sum(price_of(engine, engine.length(p), ids) for p in some)
        cost, computed, requests = prediction.cost, prediction.tokens, prediction.requests
        if arena.writes(split):  # a token that is generated costs as much as one that is read
            most = arena.task.decoding.most
            more = sum(price_of_generation(engine, engine.length(p), ids, most) for p in some)
            price, cost, computed = price + more, cost + more, computed + more
            requests += requests and len(some) * len(ids) * arena.task.decoding.samples
        if split != "test":
            lead = int(engine.lead(ids).sum()) if split == "select" else 0
            ledger.forward += lead + price
            ledger.computed += computed
        scorer.requests += requests
        seconds += exact.seconds(cost)
    return seconds


@dataclass(frozen=True)
class _Rest:
    """What is not rehearsed of a run: scorings, tokens charged and computed, seconds."""

    scorings: int
    price: int
    computed: int
    seconds: float


_NO_REST = _Rest(0, 0, 0, 0.0)


class _Log(RunLog):
    """A log in memory whose clock shows the seconds that the run would take.

    They are the strategy's own time and the time that the engine would take.

    Attributes:
        most: The lines with which a rehearsal ends, at most; None for all that the budget pays.
        ended: Whether it was ended by them.
    """

    def __init__(self, scorers: Sequence[StandInScorer]) -> None:
        super().__init__()
        self.most: int | None = None
        self.ended = False
        self._scorers = scorers
        self._begin = time.perf_counter()
        self._times: list[float] = []  # of the lines, in seconds

    @property
    def seconds(self) -> float:
        own = time.perf_counter() - self._begin - sum(each.asked for each in self._scorers)
        return own + sum(each.seconds for each in self._scorers)

    def append(self, line: dict[str, Any]) -> None:
        super().append(line)
        self._times.append(self.seconds)
        if self.most is not None and len(self.lines) >= self.most:
            self.ended = True
            raise BudgetExhausted("what is left goes on like this")

    def rest(self, strategy: TrainedStrategy, left: float, limit: float | None) -> _Rest:
        """What is left, if it goes on as between the first line and the last.

        Args:
            strategy: What was rehearsed.
            left: The tokens that it may still spend.
            limit: The seconds that the run may take; None for no limit.
        """
        first, last = (self.lines[place]["ledger"] for place in (0, -1))
        seconds = self._times[-1] - self._times[0]
        more = strategy.planned / strategy.training.steps - 1  # times what was between the two
        if limit is not None:
            more = min(more, max(0.0, limit - self._times[-1]) / seconds)
        return _Rest(
            round(more * (len(self.lines) - 1)),
            int(min(more * (total(last) - total(first)), left)),
            int(more * (last["computed"] - first["computed"])),
            more * seconds,
        )
