"""The forecast: what every strategy of a study will compute, and how long that will take.

Each strategy is rehearsed: it searches as it will search, with its whole budget, but a stand-in
answers in place of the LM. The stand-in draws losses that vary as those of a few measured prompts
do, so that races drop as many prompts as they will, and adds up what the engine's plan predicts for
each call. A strategy's own time is its own in the rehearsal, too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptsearch.errors import PromptSearchError, StrategyError, StudyError
from promptsearch.models.endpoint import Completion
from promptsearch.models.protocol import TextModel
from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.numbers import Numbers, length_of, tensors_of
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.log import RunLog
from promptsearch.records.scores import Floats, Ids, Scores
from promptsearch.scoring.protocol import price_of
from promptsearch.search.books import FINALISTS, SELECTED
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.search.proposer import Proposing, RemoteProposing
from promptsearch.search.strategy import Access
from promptsearch.study.calibration import Calibration, calibrate
from promptsearch.study.config import StudyConfig
from promptsearch.study.prepare import ArenaKey, Prepared, prepare
from promptsearch.study.run import Arena, Run
from promptsearch.tasks.task import Task

#: Prompts in the call that shows what is shared.
_SHOWN = 16
#: The most evaluations that are rehearsed.
_MOST = 1_000_000


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
class TaskForecast:
    """How a task is computed.

    Args:
        name: The task's.
        template: Its text.
        score_on: Examples of an evaluation.
        prompt: Prompt tokens.
        anatomy: Tokens of a row that are `static`, `input` and `answer`, mean over the examples.
        sharing: What `shown` prompts share: `nothing`, `input` or `prompt`.
        shown: Prompts in the call below.
        asked: Tokens of all its rows.
        computed: Tokens of it that go through the LM.
        kept: Tokens whose keys and values are kept from call to call.
        kept_bytes: The size of these keys and values.
        calibration: What was measured.
    """

    name: str
    template: str
    score_on: int
    prompt: int
    anatomy: Mapping[str, float]
    sharing: str
    shown: int
    asked: int
    computed: int
    kept: int
    kept_bytes: int
    calibration: Calibration


@dataclass(frozen=True)
class Forecast:
    """What a study will take.

    Args:
        model: Its name.
        dtype: The dtype of the search.
        device: The model's device, or its endpoint.
        threads: The number of torch's threads.
        memory: Bytes that may go to keys and values.
        preparing: Seconds for loading, checking and finding the pools.
        tasks: The tasks in order.
        runs: The runs in order.
        served: Where and how the model is served; None: it is loaded here.
    """

    model: str
    dtype: str
    device: str
    threads: int
    memory: int
    preparing: float
    tasks: list[TaskForecast] = field(default_factory=list)
    runs: list[RunForecast] = field(default_factory=list)
    served: Mapping[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """The seconds of the whole study."""
        return self.preparing + sum(run.runs * run.seconds for run in self.runs)


def forecast(
    config: StudyConfig, model: TextModel | None = None, task: Task | None = None
) -> Forecast:
    """Predict what a study computes and how long it takes, as if none of it had been done.

    Args:
        config: The study.
        model: An LM that is loaded already.
        task: A task that is made already.

    Raises:
        PromptSearchError: Anything wrong with the input.
    """
    begin = time.monotonic()
    prepared = prepare(config, model, task)
    dtype, device = str(prepared.dtype).removeprefix("torch."), str(prepared.lm.device)
    seconds = time.monotonic() - begin
    trains = {key: False for key in prepared.arenas}
    for run in prepared.runs(Path()):
        trains[_key(prepared, run)] |= run.strategy.access is not Access.SCORES
    speeds = {key: calibrate(arena, trains[key]) for key, arena in prepared.arenas.items()}
    for pruned, pruning in prepared.prunings.items():
        seconds += next(speed for key, speed in speeds.items() if key[0] == pruned).search.seconds(
            pruning.cost
        )
    found = Forecast(
        model=prepared.lm.name,
        dtype=dtype,
        device=device,
        threads=torch.get_num_threads(),
        memory=prepared.memory,
        preparing=seconds,
        served=prepared.lm.served,
    )
    found.tasks.extend(_task_forecast(arena, speeds[key]) for key, arena in prepared.arenas.items())
    rows: dict[tuple[str, str], list[Run]] = {}
    for run in prepared.runs(Path()):
        rows.setdefault((run.arena.task.name, run.label), []).append(run)
    seen: dict[ArenaKey, set[tuple[int, ...]]] = {key: set() for key in prepared.arenas}
    rehearsed: dict[tuple[str, str], _Rehearsed] = {}
    for name, runs in rows.items():  # each after the one that it starts from
        _check_length(runs[0])
        key, source = _key(prepared, runs[0]), runs[0].source
        start = rehearsed[name[0], source.label] if source else None
        rehearsed[name] = _rehearse(runs[0], len(runs), speeds[key], seen[key], start)
    order = [(task.name, row.given.label) for task in prepared.tasks for row in prepared.rows]
    found.runs.extend(rehearsed[name].forecast for name in order)
    return found


def _check_length(run: Run) -> None:
    """Refuse what could not be rehearsed in an hour.

    Raises:
        StudyError: The budget pays for too many evaluations.
    """
    arena = run.arena
    count = run.budget // max(1, price_of(arena.searching, arena.template.length, arena.scored))
    if count > _MOST and run.seconds is None:
        raise StudyError(
            f"a budget of {run.budget:,} tokens pays '{run.label}' for {count:,} evaluations; a "
            f"plan rehearses at most {_MOST:,}: plan a smaller budget; what a search takes grows "
            "with it"
        )


@dataclass(frozen=True)
class _Rehearsed:
    """A forecast, and its winner, which runs that start from this one are rehearsed with.

    The winner is None where the rehearsal failed.
    """

    forecast: RunForecast
    winner: Prompt | None = None


def _key(prepared: Prepared, run: Run) -> ArenaKey:
    return next(key for key, arena in prepared.arenas.items() if arena is run.arena)


def _task_forecast(arena: Arena, calibration: Calibration) -> TaskForecast:
    engine, ids = arena.searching, arena.scored
    prompts = arena.samples(np.random.default_rng(3), _SHOWN)
    prediction = engine.predict(prompts, ids)
    length = arena.template.length
    tokens, size = engine.kept
    return TaskForecast(
        name=arena.task.name,
        template=arena.task.template.shown,
        score_on=arena.score_on,
        prompt=length,
        anatomy=engine.anatomy(),
        sharing=prediction.sharing,
        shown=len(prompts),
        asked=len(prompts) * (price_of(engine, length, ids) + int(engine.lead(ids).sum())),
        computed=prediction.tokens,
        kept=tokens,
        kept_bytes=size,
        calibration=calibration,
    )


def _rehearse(
    run: Run,
    runs: int,
    calibration: Calibration,
    seen: set[tuple[int, ...]],
    start: _Rehearsed | None,
) -> _Rehearsed:
    def failing(error: str) -> _Rehearsed:
        return _Rehearsed(RunForecast(run.arena.task.name, run.label, runs, error=error))

    if start and start.winner is None:
        return failing(f"the run that it starts from, '{start.forecast.label}', would fail")
    arena, standin = run.arena, _StandIn(run, calibration, seen)
    ledger, log = run.ledger(start.forecast.price if start else 0), _Log(standin)
    objective = run.objective(
        standin,
        ledger,
        log=log,
        proposing=None
        if run.proposing is None
        else _StandInProposing(standin, run.proposing, arena.space),
        start=start.winner if start else None,
    )
    options = {
        name: value for name, value in run.options.items() if name not in run.strategy.writes
    }
    try:
        strategy = make_strategy(run.name, run.strategy, objective, run.seed, options)
        search(strategy)
    except PromptSearchError as error:
        return failing(str(error))
    seconds = log.seconds
    # The best are scored again in float32, some of them selected among, and one tested.
    finalists = [item.prompt for item in objective.finalists()]
    if not finalists:
        return failing("no prompt could be scored: give it a larger budget, or shorter prompts")
    stages = (("search", FINALISTS, arena.scored), ("select", SELECTED, arena.everything("select")))
    for split, count, ids in (*stages, ("test", 1, arena.everything("test"))):
        engine, some = arena.exact[split], finalists[:count]
        prediction = engine.predict(some, ids)
        if split != "test":
            lead = int(engine.lead(ids).sum()) if split == "select" else 0
            ledger.forward += lead + sum(price_of(engine, engine.length(p), ids) for p in some)
            ledger.computed += prediction.tokens
        standin.requests += prediction.requests
        seconds += calibration.exact.seconds(prediction.cost)
    if strategy.training is not None:  # what it is compared with
        cost = arena.bare.predict([TextPrompt("")], arena.everything("select")).cost
        seconds += calibration.exact.seconds(cost)
    proposals = sum(len(line["prompts"]) for line in log.lines)
    told = RunForecast(
        arena.task.name,
        run.label,
        runs,
        proposals,
        ledger.spent,
        ledger.computed,
        seconds,
        requests=standin.requests,
    )
    return _Rehearsed(told, finalists[0])


class _Log(RunLog):
    """A log in memory whose clock shows the seconds that the run would take.

    They are the strategy's own time and the time that the engine would take.
    """

    def __init__(self, standin: _StandIn) -> None:
        super().__init__()
        self._standin = standin
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begin - self._standin.asked + self._standin.seconds


class _StandIn:
    """Answers in place of the engine, and adds up what the engine would take.

    Args:
        run: The run that is rehearsed.
        calibration: The speeds and losses of its arena.
        seen: What stands before the prompt of examples that were met, in this run or an earlier
            one; grows.

    Attributes:
        seconds: The seconds that the engine would take.
        requests: The requests that would go to an endpoint.
        asked: Seconds spent in here.
    """

    def __init__(self, run: Run, calibration: Calibration, seen: set[tuple[int, ...]]) -> None:
        arena = run.arena
        self._engine = arena.searching
        self._trains = run.strategy.access is not Access.SCORES
        self._calibration = calibration
        split = arena.task.splits["search"]
        self._examples = np.resize(calibration.examples, len(split))
        self._right = [example.choice for example in split.examples]
        self._choices = 0 if arena.task.choices is None else len(arena.task.choices)
        self._seen = seen
        self._steps = 0
        self.signature = "a rehearsal"
        self.length, self.context, self.lead = (
            self._engine.length,
            self._engine.context,
            self._engine.lead,
        )
        self.readings, self.passes, self.fits = (
            self._engine.readings,
            self._engine.passes,
            self._engine.fits,
        )
        self.examples, self.encode = self._engine.examples, self._engine.encode
        self.demonstrations, self.keys_values = (
            self._engine.demonstrations,
            self._engine.keys_values,
        )
        self.seconds = self.asked = 0.0
        self.requests = 0

    @property
    def embeddings(self) -> Tensor:
        return self._engine.embeddings

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        return self._engine.prefix_shape

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        return self._engine.gated_shape

    def score(self, prompts: Sequence[Prompt], examples: Ids) -> Scores:
        begin = time.perf_counter()
        failures = {
            i: "it is too long for the model"
            for i, prompt in enumerate(prompts)
            if not self.fits(prompt)
        }
        losses = np.stack([self._losses(prompt) for prompt in prompts])[:, examples]
        losses[list(failures)] = np.nan
        computed = 0
        if good := [prompt for i, prompt in enumerate(prompts) if i not in failures]:
            prediction = self._engine.predict(good, examples)
            self.requests += prediction.requests
            first = self._first(examples) if prediction.sharing == "input" else 0
            self.seconds += self._calibration.search.seconds(prediction.cost + first)
            computed = prediction.tokens + first
        self.asked += time.perf_counter() - begin
        metric = np.where(np.isnan(losses), np.nan, losses < np.log(2))
        return Scores(losses, metric, self._table(losses, examples), computed, failures)

    @property
    def weights(self) -> ModelWeights:
        return self._engine.weights

    def loss(self, numbers: Numbers, examples: Ids) -> Tensor:
        begin = time.perf_counter()
        tokens = int(self.context(examples).sum()) + len(examples) * length_of(numbers)
        speed = self._calibration.training
        if speed is None:
            raise StrategyError(
                "it asks for gradients, but its class says that it needs scores only: set 'access'"
            )
        work = sum(self._engine.passes(numbers)) * tokens
        self.seconds += speed.seconds(work) + self._calibration.search.token * self._first(examples)
        self._steps += 1
        mean = float(self._examples[examples].mean())
        self.asked += time.perf_counter() - begin
        # Some gradient: what stands still would be scored once.
        height = torch.stack([tensor.square().mean() for tensor in tensors_of(numbers)]).sum()
        return height - height.detach() + mean

    def take(self, tokens: int) -> None:
        """Add the time of so many tokens of a proposer.

        A token that is written costs as much as one that is read.
        """
        self.seconds += self._calibration.search.seconds(tokens)

    def _first(self, examples: Ids) -> int:
        """Tokens that are kept from now on."""
        fresh = {lead for e in examples if (lead := self._engine.kept_lead(int(e)))} - self._seen
        self._seen.update(fresh)
        return sum(map(len, fresh))

    def _table(self, losses: Floats, examples: Ids) -> Floats | None:
        """Log-probabilities over the choices; None for text answers.

        The wrong choices share the probability that the right one leaves.
        """
        if not self._choices:
            return None
        rest = np.log(
            np.maximum(1e-9, -np.expm1(-np.maximum(losses, 1e-9))) / max(1, self._choices - 1)
        )
        table = np.repeat(rest[..., None], self._choices, axis=2)
        for column, example in enumerate(examples):
            table[:, column, self._right[example]] = -losses[:, column]
        return table

    def _losses(self, prompt: Prompt) -> Floats:
        """The losses of a prompt on all examples; a hard prompt has the same ones each time.

        The losses of a trained prompt fall with each step of training, if it is any good.
        """
        rng = np.random.default_rng(int(prompt.key, 16))
        calibration = self._calibration
        if prompt.trained and self._trains:
            return self._examples * (1 + 1 / (1 + self._steps))
        mean = rng.normal(0, calibration.means.std(ddof=1))
        drawn = self._examples + mean + rng.normal(0, calibration.residual, len(self._examples))
        losses: Floats = np.maximum(1e-6, drawn)
        return losses


class _StandInProposing:
    """Writes words of the pool in place of a proposer, and adds up what a local one would take.

    Args:
        standin: The run's stand-in.
        proposing: The proposer that it stands for, which knows what requests cost.
        space: The space that has the pool.
    """

    #: Words of an answer: an instruction of one line.
    WORDS = 12

    def __init__(self, standin: _StandIn, proposing: Proposing, space: PromptSpace) -> None:
        self._standin, self._proposing, self._space = standin, proposing, space

    def most(self, request: str) -> int:
        return self._proposing.most(request)

    def complete(
        self,
        requests: Sequence[str],
        *,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        stop: Sequence[str],
    ) -> list[Completion]:
        found = []
        for request, seed in zip(requests, seeds, strict=True):
            ids = np.random.default_rng(seed).choice(
                self._space.pool, size=min(self.WORDS, max_tokens - 1)
            )
            found.append(
                Completion(
                    self._space.decode(ids.tolist()).strip(), self.most(request), len(ids) + 1
                )
            )
        if isinstance(self._proposing, RemoteProposing):
            self._standin.requests += len(found)  # how long they take is not known
        else:
            self._standin.take(sum(each.tokens_in + each.tokens_out for each in found))
        return found
