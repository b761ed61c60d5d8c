"""What several workers make of a study: when the last run ends, and what each of them takes."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptsearch.study.execution.hand_out import next_of
from promptsearch.study.prepare import Prepared
from promptsearch.study.rehearsal import RunForecast
from promptsearch.study.run import Run
from promptsearch.study.share import cores, room_of


@dataclass(frozen=True)
class _Piece:
    """A run by its name, with that of the one it starts from, and its row: task and label."""

    name: str
    source: str | None
    row: tuple[str, str]


@dataclass(frozen=True)
class Spreading:
    """A study on several workers of one machine.

    Args:
        count: How many workers there are.
        seconds: Until the last run ends, from the first one on.
        memory: Bytes that each of them takes at most, with the model and keys and values.
        crowded: How much longer a run takes since there are fewer cores than threads; 1 where there
            are enough, and on a GPU.
    """

    count: int
    seconds: float
    memory: int
    crowded: float


def spread_over(prepared: Prepared, forecasts: Sequence[RunForecast], workers: int) -> Spreading:
    """Spread the runs of a study over workers, as a study does it.

    Args:
        prepared: The study, laid out in a process that takes what each worker will.
        forecasts: What the runs of each row will take.
        workers: How many workers there are.
    """
    threads = prepared.config.threads or 1
    here = prepared.lm.served is None and prepared.lm.device.type == "cpu"
    crowded = max(1.0, min(workers, len(forecasts)) * threads / cores()) if here else 1.0
    seconds = {(each.task, each.label): each.seconds * crowded for each in forecasts}
    ends = schedule(list(prepared.runs(Path())), seconds, workers)
    memory = room_of(prepared.exact, prepared.memory)
    return Spreading(workers, max(ends, default=0.0), memory, crowded)


def schedule(
    runs: Sequence[Run], seconds: Mapping[tuple[str, str], float], workers: int
) -> list[float]:
    """When each run ends if workers are given the runs as a study gives them, which learns by them.

    Args:
        runs: The runs, each after the one that it starts from.
        seconds: What a run takes, by task and label.
        workers: How many workers there are.

    Returns:
        Seconds from the first run's beginning, in the order of the runs.
    """
    names = {id(run): str(at) for at, run in enumerate(runs)}
    left = [
        _Piece(names[id(run)], None if run.source is None else names[id(run.source)], row)
        for run in runs
        for row in [(run.arena.task.name, run.label)]
    ]
    rows = {piece.name: piece.row for piece in left}
    free, ends = [0.0] * workers, dict[str, float]()
    while left:
        now = heapq.heappop(free)
        made = {name for name, end in ends.items() if end <= now}
        known = {rows[name] for name in made}
        took = {name: seconds[row] for name, row in rows.items() if row in known}
        if (piece := next_of(left, rows.keys() - made, took.get)) is None:
            # Everything else starts from runs that others make now.
            heapq.heappush(free, min(end for end in ends.values() if end > now))
            continue
        left.remove(piece)
        ends[piece.name] = now + seconds[piece.row]
        heapq.heappush(free, ends[piece.name])
    return [ends[name] for name in rows]
