"""Cells in several workers, each of which loads the model once.

A cell resumes exactly from its own log, so that it does not matter which worker makes it, nor how
many of them were killed on the way. What carries them, processes of this machine or a cluster, is
said by a `Carrier`.
"""

from __future__ import annotations

import logging
import queue
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from promptsearch.errors import StudyError
from promptsearch.study.events import Progress
from promptsearch.study.execution.fleet import check_alike
from promptsearch.study.execution.hand_out import next_of
from promptsearch.study.execution.in_process import Trouble
from promptsearch.study.execution.jobs import Job
from promptsearch.study.execution.wire import made_error

log = logging.getLogger(__name__)

#: So many deaths of its worker make a cell a failure.
DEATHS = 3
#: What stands for the cell of a worker that had none.
_IDLE = "before it had work"
#: The seconds between two looks at cells that another call still holds, and for room for a worker.
_LOOK = 2.0


class Worker(ABC):
    """One worker, as the study's own process knows it.

    Attributes:
        job: What it works on; None where it has nothing to do.
        ready: Whether it has its model.
    """

    def __init__(self) -> None:
        self.job: Job | None = None
        self.ready = False

    @abstractmethod
    def __str__(self) -> str:
        """What it is called in messages."""

    @abstractmethod
    def give(self, job: Job) -> None:
        """Let it make a cell; `job` is that one until `freed` is called."""

    def freed(self) -> Job:
        """Take the cell that it has ended away from it."""
        job, self.job = self.job, None
        assert job is not None
        return job

    @abstractmethod
    def end(self) -> None:
        """Let it end by itself, or end it."""

    @abstractmethod
    def last_words(self) -> str:
        """How it ended, being dead."""


#: Called with a worker, the kind of what it says, and the content: see `wire.py`. Besides, `died`,
#: and `lost` where that was no fault of what it did: its machine is gone.
Tell = Callable[[Worker, str, Any], None]


class Carrier(Protocol):
    """What workers run on."""

    def start(self, tell: Tell) -> Worker | None:
        """Start a worker.

        Args:
            tell: Called with all that it says, from any thread.

        Returns:
            The worker; None where there is no room for one now.

        Raises:
            StudyError: There is no room at all.
        """


@dataclass
class Workers:
    """Workers that share the cells of a study.

    Args:
        carrier: What they run on.
        count: How many there are.
        listener: Called at each step of a run.
        served: Whether the study's own model is behind a server.
        shown: What the study was begun with, and each of them must have.
        expected: The seconds that a run will take, by its name; None where nothing is known.
        mixed: Called with a worker that has something else, and with what that is, before it makes
            a run; None where no such worker may take part.
    """

    carrier: Carrier
    count: int
    listener: Callable[[Progress], None]
    served: bool
    shown: Mapping[str, str]
    expected: Callable[[str], float | None]
    mixed: Callable[[str, Mapping[str, str]], None] | None = None
    _events: queue.Queue[tuple[Worker, str, Any]] = field(default_factory=queue.Queue)
    _workers: list[Worker] = field(default_factory=list)
    _deaths: Counter[str] = field(default_factory=Counter)
    _trouble: Trouble = field(default_factory=Trouble)

    def execute(self, jobs: Sequence[Job]) -> Trouble:
        """Make all cells.

        A worker that dies is replaced, and its cell gone on with; a cell whose workers died three
        times is a failure, and the others go on.

        Args:
            jobs: The cells, each after the one that it starts from.

        Raises:
            PromptSearchError: Something that concerns all runs, such as a full disk.
        """
        left, held, told = list(jobs), list[Job](), set[str]()
        try:
            while left or held or any(worker.job for worker in self._workers):
                busy = sum(1 for worker in self._workers if worker.job)
                full = self._fill(min(self.count, len(left) + len(held) + busy))
                for worker in self._workers:
                    if worker.ready and worker.job is None:
                        self._give(worker, left, held)
                try:
                    worker, kind, content = self._events.get(
                        timeout=None if full and not held else _LOOK
                    )
                except queue.Empty:
                    left, held = [*held, *left], []
                    continue
                if kind == "ended" and content["held"]:
                    job = worker.freed()
                    held.append(job)
                    if job.name not in told:
                        log.info("%s: waiting for %s", job.name, content["held"])
                        told.add(job.name)
                elif kind in ("died", "lost"):
                    left[:0] = self._bury(worker, kind)
                else:
                    self._hear(worker, kind, content)
                if self._trouble.down and self.served:
                    break
        finally:
            for worker in self._workers:
                worker.end()
        return self._trouble

    def _fill(self, wanted: int) -> bool:
        """Start the workers that are missing.

        Returns:
            Whether there is room for all of them.
        """
        while len(self._workers) < wanted:
            worker = self.carrier.start(lambda *said: self._events.put(said))
            if worker is None:
                return False
            self._workers.append(worker)
        return True

    def _give(self, worker: Worker, left: list[Job], held: Sequence[Job]) -> None:
        """Give a worker the cell with the longest way to go whose beginning is there."""
        open_ = {job.name for job in (*left, *held)} | {
            other.job.name for other in self._workers if other.job
        }
        job = next_of(left, open_, self.expected)
        if job is not None:
            left.remove(job)
            worker.give(job)

    def _hear(self, worker: Worker, kind: str, content: Any) -> None:
        if kind == "ready":
            others = check_alike(self.shown, content, str(worker), self.mixed is not None)
            if others and self.mixed is not None:
                self.mixed(str(worker), others)
            worker.ready = True
            del self._deaths[_IDLE]  # workers can live here
        elif kind == "progress" and worker.job:
            # A worker counts all cells of the study, and this call may have a share of them.
            number, total = worker.job.number, worker.job.total
            self.listener(replace(Progress(**content), number=number, total=total))
        elif kind == "log":
            name, level, message = content
            logging.getLogger(name).log(level, "%s", message)
        elif kind == "ended":
            job = worker.freed() if worker.job else None
            if content["error"] is None:
                return
            error = made_error(content["error"])
            self._trouble.meet(error, job.at if job else None, self.listener)

    def _bury(self, worker: Worker, kind: str) -> list[Job]:
        """Take away a worker that died, or was lost.

        Returns:
            Its cell, where that is to be gone on with.

        Raises:
            StudyError: Workers die before they have work.
        """
        self._workers.remove(worker)
        job, words = worker.freed() if worker.job else None, worker.last_words()
        worker.end()
        name = job.name if job else _IDLE
        self._deaths[name] += kind == "died"
        if self._deaths[name] < DEATHS:
            log.warning("a worker died (%s) %s: another goes on", name, words)
            return [job] if job else []
        if job is None:
            raise StudyError(f"{DEATHS} workers died before they had work, the last one {words}")
        job.fail(f"{DEATHS} workers that made it died, the last one {words}", self.listener)
        return []
