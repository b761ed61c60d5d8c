"""One run: one strategy on one task with one seed, from the first proposal to the test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from promptsearch.errors import (
    ModelError,
    PromptSearchError,
    StrategyError,
    StudyError,
    Tampered,
    TaskError,
)
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.printable import printable
from promptsearch.prompts.prompt import (
    VECTORS,
    GatedPrompt,
    HardPrompt,
    PrefixPrompt,
    Prompt,
    TextPrompt,
    TrainedPrompt,
    TunedPrompt,
    Weights,
    prompt_to_json,
)
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Ledger, total
from promptsearch.records.log import RunLog
from promptsearch.records.run import (
    BeginningRecord,
    ExamplesRecord,
    FailedRecord,
    NearestRecord,
    RunRecord,
    SearchRecord,
    SettingsRecord,
    TrainingRecord,
    WinnerRecord,
)
from promptsearch.scoring.layout import begins_row, prompt_texts
from promptsearch.scoring.protocol import Scorer, price_of
from promptsearch.scoring.scorer import SplitScorer, make_scorer
from promptsearch.search.bill import check_bill
from promptsearch.search.books import FINALISTS, SELECTED, Books, books_of
from promptsearch.search.calling import same_generators, strangers_code
from promptsearch.search.diagnosis import Training, diagnose
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.search.plugins import make_strategy
from promptsearch.search.pool import Pool
from promptsearch.search.proposer import Proposing
from promptsearch.search.strategy import Strategy
from promptsearch.tasks.metrics import measure, metric_function, shares
from promptsearch.tasks.task import SPLITS, Split, Task
from promptsearch.tasks.template import Kind, Template

Ids = NDArray[np.int64]
_log = logging.getLogger(__name__)


def scored_size(task: Task, score_on: int) -> int:
    """How many search examples every prompt is scored on: at most half of the split.

    They are the first ones.

    Args:
        task: The task.
        score_on: How many are wanted.

    Raises:
        StudyError: The split is too small.
    """
    size = min(score_on, len(task.splits["search"]) // 2)
    if size < 1:
        raise StudyError(
            f"task '{task.name}': the search split needs at least 2 examples, one to score on and "
            "one to train on"
        )
    return size


@dataclass(frozen=True)
class Arena:
    """What all runs on one task with one prompt length and kind of template share.

    Args:
        task: The task.
        lm: The LM in float32.
        dtype: The dtype of the search.
        template: The bound template; for prompts that stand apart from the text, such as a prefix,
            with its one slot in front.
        space: The hard prompts.
        searching: The search split in the search's dtype.
        exact: Each split in float32.
        score_on: Search examples per evaluation.
        pool: The tokens of hard prompts, with their price.
    """

    task: Task
    lm: TextModel
    dtype: torch.dtype
    template: Template
    space: PromptSpace
    searching: SplitScorer
    exact: dict[str, SplitScorer]
    score_on: int
    pool: Pool

    @staticmethod
    def build(
        task: Task,
        lm: TextModel,
        dtype: torch.dtype,
        length: int,
        pool: Pool | Sequence[int],
        score_on: int,
        memory: int | None = None,
        kind: Kind = "slots",
    ) -> Arena:
        """Bind the template and lay out all examples.

        Args:
            task: The task.
            lm: The LM in float32.
            dtype: The dtype of the search.
            length: Prompt tokens where the template does not fix them.
            pool: The pool of hard prompts; token ids alone cost nothing.
            score_on: Search examples per evaluation, at most half of the split.
            memory: Bytes for keys and values.
            kind: The prompts' kind.

        Raises:
            TemplateError: The answers or the examples do not fit the model.
        """
        template = task.template.bind(length).taking(kind)

        # The runs of a study come back to the same examples: all splits are kept, each in its share
        # of the memory.
        share = None if memory is None else memory // (len(SPLITS) + (dtype != lm.dtype))

        def engine(model: TextModel, split: Split) -> SplitScorer:
            return make_scorer(model, template, split, task.choices, memory=share, keep=True)

        exact = {name: engine(lm, task.splits[name]) for name in SPLITS}
        searching = (
            exact["search"] if dtype == lm.dtype else engine(lm.to(dtype), task.splits["search"])
        )
        pool = pool if isinstance(pool, Pool) else Pool(tuple(pool), "tokens")
        bound = task.template.bind(length)
        first = partial(lm.decode, begins=begins_row(bound, lm)[0])
        space = PromptSpace(
            pool.ids,
            bound.length,
            lm.decode,
            slots=bound.slots,
            first=first,
            embeddings=lambda: searching.embeddings,
        )
        return Arena(
            task, lm, dtype, template, space, searching, exact, scored_size(task, score_on), pool
        )

    def taking(self, pool: Pool) -> Arena:
        """The same arena with another pool."""
        return replace(self, pool=pool, space=self.space.over(pool.ids))

    @property
    def scored(self) -> Ids:
        """Ids of the search examples that every prompt is scored on.

        They are the first ones of a split in hashed order.
        """
        return np.arange(self.score_on)

    @cached_property
    def bare(self) -> SplitScorer:
        """The select split in float32 under the template's text alone: for the empty prompt.

        It is the same for all lengths and kinds.
        """
        return make_scorer(
            self.lm, self.task.template.bind(1), self.task.splits["select"], self.task.choices
        )

    def samples(
        self, rng: np.random.Generator, count: int
    ) -> Sequence[HardPrompt | PrefixPrompt | GatedPrompt | Weights | TunedPrompt]:
        """Prompts to try the arena out with.

        They are tokens of the pool, what stands for them, random vectors, or the weights as they
        are.
        """
        if self.template.kind == "weights":
            return [Weights({})] * count
        if self.template.kind == "gated":
            layers, heads, width = self.exact["search"].gated_shape
            shape = (count, self.space.length, layers, width)
            vectors = torch.from_numpy(rng.normal(size=shape)).float()
            return [GatedPrompt(some, torch.full((layers, heads), 0.1)) for some in vectors]
        hard = self.space.sample(rng, count)
        if self.template.kind == "slots":
            return hard
        if self.template.kind == "tuned":
            return [
                TunedPrompt({VECTORS: self.exact["search"].embeddings[list(prompt.ids)]})
                for prompt in hard
            ]
        return [PrefixPrompt(self.exact["search"].keys_values(prompt.ids)) for prompt in hard]

    def everything(self, split: str) -> Ids:
        """Ids of all examples of a split."""
        return np.arange(len(self.task.splits[split]))

    def price_of_selection(self, length: int, finalists: int = FINALISTS) -> int:
        """Tokens set aside for the end of a search.

        Args:
            length: Tokens of a prompt.
            finalists: How many prompts are left.
        """
        search, select = self.exact["search"], self.exact["select"]
        again = price_of(search, length, self.scored)
        ids = self.everything("select")
        selecting = price_of(select, length, ids)
        return (
            finalists * again + min(SELECTED, finalists) * selecting + int(select.lead(ids).sum())
        )

    def price_of_pool(self, strategy: type[Strategy]) -> int:
        """What a strategy pays before it starts: for the pool, where its prompts are made of it."""
        return self.pool.price if HardPrompt in strategy.proposes else 0

    def smallest_budget(self, finalists: int = FINALISTS) -> int:
        """What one evaluation and selection cost together."""
        length = self.template.length
        one = price_of(self.exact["search"], length, self.scored)
        return (
            one
            + int(self.exact["search"].lead(self.scored).sum())
            + self.price_of_selection(length, finalists)
        )

    def check_unchanged(self) -> None:
        """See that the LM's weights are as they were loaded.

        Raises:
            ModelError: They are not.
        """
        for model in self._models():
            model.check_unchanged()

    def watch(self) -> Callable[[], None]:
        """What tells a change of the weights from now on, at no cost while there is none.

        Returns:
            A function that raises `Tampered` where something has written to them in place.
        """
        written = [model.versions for model in self._models()]

        def look() -> None:
            nonlocal written
            if (now := [model.versions for model in self._models()]) != written:
                self.check_untouched()
                written = now

        return look

    def check_untouched(self) -> None:
        """Compare the weights with those that were loaded, and bring these back.

        Raises:
            Tampered: Something has written to them.
        """
        try:
            self.check_unchanged()
        except ModelError as error:
            whole = all(model.restore() for model in self._models())
            for scorer in (self.searching, self.bare, *self.exact.values()):
                scorer.forget()
            advice = (
                "leave the LM's weights alone, and propose other ones as `Weights` or `TunedPrompt`"
            )
            raise Tampered(
                f"{error}. They must not be written to: {advice}", mended=whole
            ) from error

    def _models(self) -> list[LanguageModel]:
        """The LM in the dtypes that score; none where it runs elsewhere."""
        models = [self.lm.to(dtype) for dtype in dict.fromkeys((self.lm.dtype, self.dtype))]
        return [model for model in models if isinstance(model, LanguageModel)]


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
        source: The run whose winner it starts from.
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
    source: Run | None = None

    @property
    def bill(self) -> int:
        """The most LM tokens that its winner may cost, with the run that it starts from."""
        return self.budget + (self.source.bill if self.source else 0)

    def objective(self, scorer: Scorer, ledger: Ledger, **more: Any) -> Objective:
        """What the strategy meets.

        Args:
            scorer: The search split, or what stands in for it.
            ledger: The run's account.
            more: What else the books take: log, cache, proposing, start, listener, watch.
        """
        arena, finalists = self.arena, self.strategy.finalists
        return Objective(
            scorer,
            arena.space,
            ledger,
            scored=arena.scored,
            training=np.arange(arena.score_on, len(arena.task.splits["search"])),
            reserve=lambda length, prompts: arena.price_of_selection(
                length, min(prompts, finalists)
            ),
            seconds=self.seconds,
            race=self.race,
            finalists=finalists,
            **more,
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
        arena = self.arena
        if (
            start and type(start.prompt) not in self.strategy.starts_from
        ):  # of a strategy that proposes several kinds
            can = ", ".join(sorted(kind.__name__ for kind in self.strategy.starts_from))
            what = f"'{start.record.run}' was won by a {type(start.prompt).__name__}"
            raise StudyError(
                f"{what}, from which '{self.name}' does not start: it starts from {can}"
            )
        objective = self.objective(
            arena.searching,
            self.ledger(start.record.spent if start else 0),
            log=RunLog(self.folder),
            cache=cache,
            proposing=self.proposing,
            start=start.prompt if start else None,
            listener=lambda books: listener("search", books),
            watch=arena.watch(),
        )
        books = books_of(objective)
        try:
            found = self._search(objective, books)
        except PromptSearchError:
            self._check_untouched(
                books
            )  # whatever a strategy failed at, the next run finds all as it was
            raise
        self._check_untouched(books)
        return self._selected(books, *found, listener, start)

    def _search(self, objective: Objective, books: Books) -> tuple[str, int, Training | None]:
        """Let the strategy search; it has no say afterwards.

        Returns:
            Why the search ended, how many parameters it trained, and how the training went.
        """
        with same_generators():
            strategy = make_strategy(self.name, self.strategy, objective, self.seed, self.options)
            stopped = search(strategy, self.folder)
            with strangers_code(f"{self.strategy.__name__}.training or .trainable failed"):
                training, trainable = strategy.training, strategy.trainable
                if type(trainable) is not int or not isinstance(training, Training | None):
                    raise StrategyError(
                        f"{self.strategy.__name__}: expected a whole number as `trainable` and a "
                        f"`Training`, or None, as `training`, got {type(trainable).__name__} and "
                        f"{type(training).__name__}"
                    )
        return stopped, trainable, training

    def _check_untouched(self, books: Books) -> None:
        """See that code and weights are as they were, and the bill is right."""
        books.check_untouched()
        self.arena.check_untouched()
        check_bill(
            books.ledger,
            books.log.lines,
            self.arena.searching,
            self.arena.scored,
            self.arena.space.length,
        )

    def _selected(
        self,
        books: Books,
        stopped: str,
        trainable: int,
        training: Training | None,
        listener: Callable[[str, Books], None],
        start: Beginning | None,
    ) -> tuple[RunRecord, Prompt]:
        """Select among the best, and look at the test split once."""
        arena, log, ledger, stage = self.arena, books.log, books.ledger, books.calls.stage
        finalists = books.finalists()
        if not finalists:
            raise StudyError(
                f"no prompt could be scored. The search ended because: {stopped}. "
                f"{_first_failure(log)}"
            )
        listener("select", books)
        exact = arena.exact
        found = stage(
            "rescore",
            "search",
            exact["search"],
            [r.prompt for r in finalists],
            arena.scored,
            charged=True,
        )
        again = _mean_losses(found)
        best = _best([r.prompt for r in finalists], again, SELECTED)
        selected = stage(
            "select", "select", exact["select"], best, arena.everything("select"), charged=True
        )
        winner = _best(best, _mean_losses(selected), 1)[0]
        empty = None if training is None else self._empty(books)
        listener("test", books)
        tested = stage(
            "test", "test", exact["test"], [winner], arena.everything("test"), charged=False
        )
        place = best.index(winner)
        ranked = next(r for r in finalists if r.prompt == winner)
        loss = again[[r.prompt for r in finalists].index(winner)]
        test = self._measures(tested, 0, "test")
        chosen = self._measures(selected, place, "select")
        check_bill(ledger, log.lines, arena.searching, arena.scored, arena.space.length)
        record = RunRecord(
            task=arena.task.name,
            strategy=self.name,
            label=self.label,
            seed=self.seed,
            options=self.options,
            access=self.strategy.access.value,
            searches=self.strategy.searches,
            reference=self.reference,
            deterministic=self.strategy.deterministic,
            budget=self.budget,
            ledger=ledger.statement(),
            spent=ledger.spent,
            seconds=round(log.seconds, 1),
            stopped=stopped,
            proposals=sum(len(line["prompts"]) for line in log.lines if line["stage"] == "search"),
            failures=sum(len(line["failures"]) for line in log.lines if line["stage"] != "empty"),
            length=arena.searching.length(winner),
            trainable=trainable,
            stored=winner.numbers if isinstance(winner, TrainedPrompt) else 0,
            training=None
            if training is None
            else TrainingRecord(**diagnose(training, _search_losses(log), chosen.loss, empty)),
            dtype=str(arena.dtype).removeprefix("torch."),
            curve=tuple(_curve(log)),
            start=start.record if start else None,
            winner=_winner(describe(arena, winner)),
            search=SearchRecord(ranked.value, loss),
            select=chosen,
            test=test,
            gap=test.loss - loss,
            export=None,
            bytes=None,
            signature="",
        )
        return record, winner

    def ledger(self, brought: int = 0) -> Ledger:
        """The ledger with which the run starts.

        Args:
            brought: What the run spent whose winner it starts from.
        """
        return Ledger(self.budget, pool=self.arena.price_of_pool(self.strategy), brought=brought)

    def failed(self, error: PromptSearchError) -> FailedRecord:
        """What `result.json` holds where the run failed."""
        return FailedRecord(
            task=self.arena.task.name,
            strategy=self.name,
            label=self.label,
            seed=self.seed,
            options=self.options,
            deterministic=self.strategy.deterministic,
            error=printable(str(error)),
        )

    def settings(self, start: Beginning | None) -> SettingsRecord:
        """What the run is told to do, starting from this winner of its source."""
        begun = None if start is None else start.record
        return SettingsRecord(
            strategy=self.name,
            label=self.label,
            options=self.options,
            seed=self.seed,
            budget=self.budget,
            length=self.arena.template.length,
            start=None if begun is None else begun.named,
        )

    def _empty(self, books: Books) -> float | None:
        """The empty prompt's loss on the select split; None if nothing stands before the answer.

        It tells whether training was worth anything, and changes nothing that is chosen: so it is
        shown, not charged.
        """
        ids, scorer = self.arena.everything("select"), self.arena.bare
        line = books.calls.stage("empty", "select", scorer, [TextPrompt("")], ids, charged=False)
        return None if line["failures"] else _mean_losses(line)[0]

    def _measures(self, line: dict[str, Any], place: int, split: str) -> ExamplesRecord:
        """Loss and metric of one prompt on a split, and per example."""
        task = self.arena.task
        losses, correct = line["losses"][place], line["metric"][place]
        predictions = labels = own = None
        metric: float | None = float(np.mean(correct))
        failed = ""
        if line["choices"] is not None:
            predictions = tuple(np.argmax(line["choices"][place], axis=1).tolist())
            labels = tuple(e.choice for e in task.splits[split].examples if e.choice is not None)
            if task.metric != "accuracy":
                metric, own, failed = self._own(task.metric, labels, predictions, split)
        return ExamplesRecord(
            loss=float(np.mean(losses)),
            metric=metric,
            losses=tuple(losses),
            correct=tuple(int(c) for c in correct),
            predictions=predictions,
            labels=labels,
            shares=own,
            metric_failed=failed,
        )

    def _own(
        self, metric: str, labels: Sequence[Any], predictions: Sequence[int], split: str
    ) -> tuple[float | None, tuple[float, ...] | None, str]:
        """A metric that is no mean, and what reports need where its function is the study's own.

        A function that fails does not make the run fail.

        Returns:
            The metric, what each example adds to it, and why one of these is missing.
        """
        found: float | None = None
        try:
            found = measure(metric, metric_function(metric), labels, predictions)
            if (
                ":" in metric and split == "test"
            ):  # whoever reads the results need not have, or trust, the function
                return found, tuple(shares(metric, labels, predictions)), ""
        except TaskError as error:
            _log.warning("%s, seed %d, %s split: %s", self.label, self.seed, split, error)
            return found, None, str(error)
        return found, None, ""


def describe(arena: Arena, prompt: Prompt) -> dict[str, Any]:
    """A prompt as a reader sees it.

    For soft prompts these are the nearest tokens with their cosine, for deeper ones the size.
    """
    data = prompt_to_json(prompt)
    if isinstance(prompt, (HardPrompt, TextPrompt)):
        return {**data, "text": " | ".join(prompt_texts(arena.template, arena.lm, prompt))}
    if isinstance(prompt, PrefixPrompt):
        length, layers = prompt.rows.shape[
            :2
        ]  # no token has keys like these: the nearest would say nothing
        return {**data, "text": f"[keys and values of {length} tokens in {layers} layers]"}
    if isinstance(prompt, Weights):
        return {**data, "text": f"[{prompt.numbers:,} changed or added weights]"}
    if isinstance(prompt, TunedPrompt):
        changed = prompt.numbers - prompt.vectors.numel()
        return {
            **data,
            "text": f"[{prompt.length} vectors and {changed:,} changed or added weights]",
        }
    if isinstance(prompt, GatedPrompt):
        length, layers = prompt.rows.shape[:2]
        gates = f"gates up to {float(prompt.gates.abs().max()):.2g}"
        return {**data, "text": f"[{length} vectors in each of the top {layers} layers, {gates}]"}
    embeddings = torch.nn.functional.normalize(
        arena.exact["search"].embeddings.float().cpu(), dim=-1
    )
    cosines, ids = (torch.nn.functional.normalize(prompt.vectors, dim=-1) @ embeddings.T).max(
        -1
    )  # (length,) each
    nearest = [
        {"token": arena.lm.decode([i]), "cosine": round(c, 3)}
        for i, c in zip(ids.tolist(), cosines.tolist(), strict=True)
    ]
    return {**data, "text": "".join(n["token"] for n in nearest), "nearest": nearest}


def _winner(told: dict[str, Any]) -> WinnerRecord:
    """The record of what `describe` tells of a prompt."""
    nearest = tuple(NearestRecord(**word) for word in told.get("nearest", ()))
    return WinnerRecord(**{**told, "nearest": nearest})


def _mean_losses(line: dict[str, Any]) -> list[float]:
    return [
        float("inf") if row is None or None in row else float(np.mean(row))
        for row in line["losses"]
    ]


def _best(prompts: Sequence[Prompt], losses: Sequence[float], count: int) -> list[Prompt]:
    """The prompts of lowest loss, best first; the earlier one wins a tie."""
    order = sorted(range(len(prompts)), key=lambda i: (losses[i], i))
    return [prompts[i] for i in order[:count] if losses[i] < float("inf")]


def _curve(log: RunLog) -> list[tuple[int, float]]:
    """Tokens spent and the best loss so far.

    There is a point after each evaluation on all of `score_on` that lowered it, and one at the end.
    """
    points: list[tuple[int, float]] = []
    best, spent = float("inf"), 0
    for line in log.lines:
        if line["stage"] != "search":
            continue
        ledger = line["ledger"]
        spent = total(ledger)
        if line["examples"] == "score_on" and (low := min(_mean_losses(line))) < best:
            best = low
            points.append((spent, best))
    return [*points, (spent, best)] if points and points[-1][0] < spent else points


def _search_losses(log: RunLog) -> list[float]:
    """Mean losses of the prompts scored on all of `score_on`, in order; +inf for failures."""
    lines = [
        line for line in log.lines if line["stage"] == "search" and line["examples"] == "score_on"
    ]
    return [loss for line in lines for loss in _mean_losses(line)]


def _first_failure(log: RunLog) -> str:
    reason = next(
        (next(iter(line["failures"].values())) for line in log.lines if line["failures"]), None
    )
    return f"The first failure: {reason}" if reason else "Give it a larger budget."
