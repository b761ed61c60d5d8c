"""The forecast: what every strategy of a study will compute, and how long that will take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from promptsearch.errors import StudyError
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.records.headroom import StudyHeadroomRecord
from promptsearch.scoring.protocol import price_of
from promptsearch.study.arena import Arena
from promptsearch.study.calibration import Calibration, calibrate
from promptsearch.study.headroom import headroom
from promptsearch.study.prepare import ArenaKey, Prepared, prepare
from promptsearch.study.rehearsal import Rehearsal, RunForecast, rehearse
from promptsearch.study.run import Run
from promptsearch.study.settings.study import StudyConfig
from promptsearch.study.share import Share, check_room
from promptsearch.study.spreading import Spreading, spread_over
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.task import Task

#: Prompts in the call that shows what is shared.
_SHOWN = 16
#: The most evaluations that are rehearsed.
_MOST = 1_000_000


@dataclass(frozen=True)
class TaskForecast:
    """How a task is computed.

    Args:
        name: The task's.
        template: Its text.
        score_on: Examples of an evaluation.
        prompt: Prompt tokens.
        anatomy: Tokens of a row that are `static`, `input` and `answer`, mean over the examples.
        shares: Whether rows of the model can share anything.
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
    shares: bool
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
        workers: How the runs are spread over processes; None where one makes them all.
        headroom: What searches can gain; None where nobody asked.
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
    workers: Spreading | None = None
    headroom: StudyHeadroomRecord | None = None

    @property
    def work(self) -> float:
        """The seconds of all runs, one after the other."""
        return sum(run.runs * run.seconds for run in self.runs)

    @property
    def seconds(self) -> float:
        """The seconds of the whole study, until its last run has ended."""
        if self.workers is None:
            return self.preparing + self.work
        # Each worker loads the model, too, and all of them at once.
        return 2 * self.preparing + self.workers.seconds


def forecast(
    config: StudyConfig,
    model: TextModel | None = None,
    task: Task | None = None,
    workers: int = 0,
    look: bool = False,
) -> Forecast:
    """Predict what a study computes and how long it takes, as if none of it had been done.

    Args:
        config: The study.
        model: An LM that is loaded already.
        task: A task that is made already.
        workers: How many processes will make the runs; 0: one, and this one.
        look: Whether to look at what searches can gain, too, which takes about as long as a run of
            each task.

    Raises:
        PromptSearchError: Anything wrong with the input.
        StudyError: The machine does not hold so many workers.
    """
    memory = None if config.memory is None else int(config.memory)
    several = bool(workers or config.replicas)
    share = Share(config.threads or (1 if several else None), memory, spread=several)
    with share.taken():
        return _forecast(config, model, task, share, workers, look)


def _forecast(
    config: StudyConfig,
    model: TextModel | None,
    task: Task | None,
    share: Share,
    workers: int,
    look: bool,
) -> Forecast:
    begin = time.monotonic()
    prepared = prepare(config, model, task, share)
    seconds = time.monotonic() - begin
    if workers:
        check_room(prepared.exact, prepared.memory, workers)
    speeds = _calibrations(prepared)
    for pruned, pruning in prepared.prunings.items():
        speed = next(speed for key, speed in speeds.items() if key.task == pruned)
        seconds += speed.search.seconds(pruning.cost)
    runs = _run_forecasts(prepared, speeds)
    tried = {(run.task, run.label): run.proposals for run in runs}
    return Forecast(
        model=prepared.lm.name,
        dtype=str(prepared.dtype).removeprefix("torch."),
        device=str(prepared.lm.device),
        threads=torch.get_num_threads(),
        memory=prepared.memory,
        preparing=seconds,
        tasks=[_task_forecast(arena, speeds[key]) for key, arena in prepared.first.items()],
        runs=runs,
        served=prepared.lm.served,
        workers=spread_over(prepared, runs, workers) if workers else None,
        headroom=headroom(prepared, tried) if look else None,
    )


def _calibrations(prepared: Prepared) -> dict[ArenaKey, Calibration]:
    """What is measured for each arena, training only where a strategy trains.

    It is measured once for all lengths of a task's prompts of one kind: what a length costs is
    predicted, and how fast the machine computes it is the same.
    """
    trains: dict[tuple[str, Kind], bool] = {}
    for run in prepared.runs(Path()):
        key = _key(prepared, run)
        wanted = run.strategy.access.trains
        trains[key.task, key.kind] = wanted or trains.get((key.task, key.kind), False)
    measured: dict[tuple[str, Kind], Calibration] = {}
    for key, arena in prepared.first.items():
        if (key.task, key.kind) not in measured:
            measured[key.task, key.kind] = calibrate(arena, trains[key.task, key.kind])
    return {key: measured[key.task, key.kind] for key in prepared.first}


def _run_forecasts(prepared: Prepared, speeds: Mapping[ArenaKey, Calibration]) -> list[RunForecast]:
    """A forecast for each row of each task, from a rehearsal of its first seed."""
    seeds: dict[tuple[str, str], list[Run]] = {}  # by task and label
    for run in prepared.runs(Path()):
        seeds.setdefault((run.arena.task.name, run.label), []).append(run)
    seen: dict[ArenaKey, set[tuple[int, ...]]] = {key: set() for key in prepared.arenas}
    rehearsals: dict[tuple[str, str], Rehearsal] = {}
    for name, runs in seeds.items():  # each after the one that it starts from
        _check_length(runs[0])
        key, source = _key(prepared, runs[0]), runs[0].source
        start = rehearsals[source.arena.task.name, source.label] if source else None
        rehearsals[name] = rehearse(runs[0], len(runs), speeds[key], seen[key], start)
    return [
        rehearsals[task.name, entry.given.label].forecast
        for task in prepared.tasks
        for entry in prepared.entries
    ]


def _check_length(run: Run) -> None:
    """Refuse what could not be rehearsed in an hour.

    Raises:
        StudyError: The budget pays for too many evaluations.
    """
    arena = run.arena
    count = run.budget // max(1, arena.price_of_evaluation)
    if count > _MOST and run.seconds is None:
        raise StudyError(
            f"a budget of {run.budget:,} tokens pays '{run.label}' for {count:,} evaluations; a "
            f"plan rehearses at most {_MOST:,}: plan a smaller budget; what a search takes grows "
            "with it"
        )


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
        shares=not isinstance(arena.lm, LanguageModel) or arena.lm.passes.trees,
        sharing=prediction.sharing,
        shown=len(prompts),
        asked=len(prompts) * (price_of(engine, length, ids) + int(engine.lead(ids).sum())),
        computed=prediction.tokens,
        kept=tokens,
        kept_bytes=size,
        calibration=calibration,
    )
