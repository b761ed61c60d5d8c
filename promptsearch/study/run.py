"""One run: one strategy on one task with one seed, from the first proposal to the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from promptsearch.errors import PromptSearchError, StrategyError, StudyError
from promptsearch.printable import printable
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Fare, Ledger
from promptsearch.records.log import RunLog
from promptsearch.records.run import (
    BeginningRecord,
    FailedRecord,
    NearestRecord,
    Paper,
    RunRecord,
    SettingsRecord,
    TrainingRecord,
    WinnerRecord,
)
from promptsearch.scoring.protocol import Scorer
from promptsearch.search.bill import check_bill
from promptsearch.search.books import Books, books_of
from promptsearch.search.calling import same_generators, strangers_code
from promptsearch.search.calls import SHOWN
from promptsearch.search.diagnosis import Training, diagnose
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.search.plugins import make_strategy
from promptsearch.search.proposer import Proposing
from promptsearch.search.strategy import Access, Strategy
from promptsearch.study.arena import Arena
from promptsearch.study.costs import cost_of, flops_of, rates_of
from promptsearch.study.described import describe
from promptsearch.study.ending import price_of_selection
from promptsearch.study.log_summary import curve, first_failure, search_losses
from promptsearch.study.selection import Selection, select_winner
from promptsearch.tasks.answered import Reader


@dataclass(frozen=True)
class Beginning:
    """Another run's winner, which a run starts from.

    Args:
        prompt: The winner.
        record: What `result.json` says of it.
    """

    prompt: Prompt
    record: BeginningRecord


@dataclass(frozen=True)
class Search:
    """How a strategy's search went.

    Args:
        stopped: Why it ended.
        trainable: How many parameters it trained.
        training: How the training went; None where nothing was trained.
        paper: What a run takes in the strategy's paper; None where it does not say so.
    """

    stopped: str
    trainable: int
    training: Training | None
    paper: Paper | None


@dataclass(frozen=True)
class Run:
    """One strategy on one task with one seed.

    Args:
        arena: Task, model and prompt length.
        name: The strategy's name.
        label: Names the row in reports.
        strategy: The class.
        options: The options as the study file gives them.
        seed: The strategy's seed.
        budget: LM tokens.
        reference: Whether it is a reference line, never ranked.
        folder: This run's folder.
        seconds: Time limit.
        race: Whether the search scores clearly worse prompts on some examples only.
        proposing: The model that proposes.
        fare: What its tokens cost, in tokens of the LM.
        source: The run whose winner it starts from.
        others: The arenas of the tasks that it trains on besides its own, by name.
        drawn: Whether each seed has search and select examples of its own.
        max_cost: The most that it may cost in money; None for no limit.
        pool: What it pays for the words of the pool before it starts, in tokens.
    """

    arena: Arena
    name: str
    label: str
    strategy: type[Strategy]
    options: dict[str, Any]
    seed: int
    budget: int
    reference: bool
    folder: Path
    seconds: float | None = None
    race: bool = False
    proposing: Proposing | None = None
    fare: Fare = Fare()  # noqa: RUF009 - it cannot be changed
    source: Run | None = None
    others: Mapping[str, Arena] = field(default_factory=dict)
    drawn: bool = False
    max_cost: float | None = None
    pool: int = 0

    @property
    def deterministic(self) -> bool:
        """Whether it stands for the runs of all seeds: no seed changes what it does or sees."""
        return self.strategy.deterministic and not self.drawn

    @property
    def bill(self) -> int:
        """The most LM tokens that its winner may cost, with the run that it starts from."""
        return self.budget + (self.source.bill if self.source else 0)

    def objective(
        self,
        scorer: Scorer,
        ledger: Ledger,
        others: Mapping[str, Scorer] | None = None,
        **more: Any,
    ) -> Objective:
        """What the strategy meets.

        Args:
            scorer: The search split, or what stands in for it.
            ledger: The run's account.
            others: The search splits of the other tasks that it trains on, or what stands in for
                them; left out: none, for what trains on nothing.
            more: What else the books take: log, cache, proposing, start, listener, watch.
        """
        arena, finalists = self.arena, self.strategy.finalists
        searching, most = arena.followed(scorer)
        return Objective(
            searching,
            arena.space,
            ledger,
            scored=arena.scored,
            training=arena.training,
            others={n: (other, self.others[n].training) for n, other in (others or {}).items()},
            reserve=partial(price_of_selection, arena),
            seconds=self.seconds,
            race=self.race,
            finalists=finalists,
            white_box=self.strategy.access is not Access.SCORES,
            most=most,
            reader=Reader(arena.task.choices, arena.tells, arena.task.decoding),
            fare=self.fare,
            **more,
        )

    def ledger(self, brought: int = 0) -> Ledger:
        """The ledger with which the run starts.

        Args:
            brought: What the run spent whose winner it starts from.
        """
        return Ledger(
            self.budget,
            pool=self.pool,
            brought=brought,
            rates=rates_of(self.arena, self.proposing, self.fare, self.max_cost),
        )

    def settings(self, start: Beginning | None) -> SettingsRecord:
        """What the run is told to do, starting from this winner of its source."""
        return SettingsRecord(
            strategy=self.name,
            label=self.label,
            options=self.options,
            seed=self.seed,
            budget=self.budget,
            length=self.arena.template.length,
            start=start.record.named if start else None,
        )

    def failed(self, error: PromptSearchError) -> FailedRecord:
        """What `result.json` holds where the run failed."""
        return FailedRecord(
            task=self.arena.task.name,
            strategy=self.name,
            label=self.label,
            seed=self.seed,
            options=self.options,
            deterministic=self.deterministic,
            error=printable(str(error)),
        )

    def execute(
        self,
        cache: ScoreCache | None,
        listener: Callable[[str, Books], None],
        start: Beginning | None = None,
    ) -> tuple[RunRecord, Prompt]:
        """Search, select, and look at the test split once; goes on where a killed process stopped.

        Args:
            cache: Scores of earlier runs.
            listener: Called with the stage and the run's books after each evaluation and at each
                new stage.
            start: The winner of `source`.

        Returns:
            What `result.json` will hold, its export left open, and the winner.

        Raises:
            PromptSearchError: No prompt could be scored, or the strategy broke the contract.
            Tampered: The strategy changed what is not its own; it is as it was again, as far as
                that is possible.
            RecordError: The run's log is damaged.
        """
        if start and type(start.prompt) not in self.strategy.starts_from:  # one of several
            can = ", ".join(sorted(kind.__name__ for kind in self.strategy.starts_from))
            what = f"'{start.record.run}' was won by a {type(start.prompt).__name__}"
            raise StudyError(
                f"{what}, from which '{self.name}' does not start: it starts from {can}"
            )
        arena = self.arena
        objective = self.objective(
            arena.searching,
            self.ledger(start.record.spent if start else 0),
            {name: other.searching for name, other in self.others.items()},
            log=RunLog(self.folder),
            cache=None if self.seconds else cache,  # which would buy evaluations in given seconds
            proposing=self.proposing,
            start=start.prompt if start else None,
            listener=lambda books: listener("search", books),
            watch=arena.watch(),
        )
        books = books_of(objective)
        try:
            ended = self._search(objective, books)
        except PromptSearchError:
            # Whatever a strategy failed at, the next run finds all as it was.
            for other in self.others.values():
                other.searching.forget()
            self._check_untouched(books)
            raise
        self._check_untouched(books)
        if not books.ranking:
            raise StudyError(
                f"no prompt could be scored. The search ended because: {ended.stopped}. "
                f"{first_failure(books.log)}"
            )
        selection = select_winner(
            arena,
            books,
            listener,
            name=f"{self.label}, seed {self.seed}",
            with_empty=ended.training is not None,
        )
        self._check_bill(books)
        return self._record(ended, books, selection, start), selection.winner

    def _search(self, objective: Objective, books: Books) -> Search:
        """Let the strategy search; it has no say afterwards."""
        with same_generators():
            strategy = make_strategy(self.name, self.strategy, objective, self.seed, self.options)
            paper = strategy.paper
            stopped = search(strategy, self.folder)
            with strangers_code(f"{self.strategy.__name__}.training or .trainable failed"):
                training, trainable = strategy.training, strategy.trainable
                if type(trainable) is not int or not isinstance(training, Training | None):
                    raise StrategyError(
                        f"{self.strategy.__name__}: expected a whole number as `trainable` and a "
                        f"`Training`, or None, as `training`, got {type(trainable).__name__} and "
                        f"{type(training).__name__}"
                    )
        return Search(stopped, trainable, training, paper)

    def _check_untouched(self, books: Books) -> None:
        """See that code and weights are as they were, and the bill is right."""
        books.check_untouched()
        self.arena.check_untouched()
        self._check_bill(books)

    def _check_bill(self, books: Books) -> None:
        arena = self.arena
        check_bill(books.ledger, books.log.lines, books.scorer, arena.scored, arena.space.length)

    def _record(
        self, ended: Search, books: Books, selection: Selection, start: Beginning | None
    ) -> RunRecord:
        """What `result.json` will hold, export and signature left open."""
        arena, log, ledger, winner = self.arena, books.log, books.ledger, selection.winner
        training = None
        if ended.training is not None:
            told = diagnose(
                ended.training, search_losses(log), selection.select.loss, selection.empty
            )
            training = TrainingRecord(**told)
        return RunRecord(
            task=arena.task.name,
            strategy=self.name,
            label=self.label,
            seed=self.seed,
            options=self.options,
            access=self.strategy.access.value,
            searches=self.strategy.searches,
            control=self.strategy.control,
            paper=ended.paper,
            reference=self.reference,
            deterministic=self.deterministic,
            budget=self.budget,
            ledger=ledger.statement(),
            spent=ledger.spent,
            seconds=round(log.seconds, 1),
            stopped=ended.stopped,
            proposals=sum(len(line["prompts"]) for line in log.lines if line["stage"] == "search"),
            failures=sum(len(line["failures"]) for line in log.lines if line["stage"] not in SHOWN),
            length=arena.searching.length(winner),
            trainable=ended.trainable,
            stored=winner.numbers,
            training=training,
            dtype=str(arena.dtype).removeprefix("torch."),
            curve=tuple(curve(log)),
            select_curve=selection.curve,
            start=start.record if start else None,
            winner=_winner(describe(arena, winner)),
            search=selection.search,
            select=selection.select,
            test=selection.test,
            gap=selection.test.loss - selection.search.loss_fp32,
            export=None,
            bytes=0,
            signature="",
            cost=cost_of(arena, self.proposing, self.fare, ledger),
            flops=flops_of(arena, self.fare, ledger),
        )


def _winner(told: dict[str, Any]) -> WinnerRecord:
    """The record of what `describe` tells of a prompt."""
    nearest = tuple(NearestRecord(**word) for word in told.get("nearest", ()))
    return WinnerRecord(**{**told, "nearest": nearest})
