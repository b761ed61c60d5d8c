"""Cells in several worker processes of this machine, each of which loads the model once.

A cell resumes exactly from its own log, so that it does not matter which process makes it, nor how
many of them were killed on the way.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import torch

from promptsearch.errors import StudyError
from promptsearch.printable import printable
from promptsearch.records.run import FailedRecord
from promptsearch.study.cell import Cell, record_failure
from promptsearch.study.events import Progress
from promptsearch.study.execution.fleet import check_alike
from promptsearch.study.execution.in_process import Trouble
from promptsearch.study.execution.wire import Order, heard, made_error, send

log = logging.getLogger(__name__)

#: So many deaths of its worker make a cell a failure.
DEATHS = 3
#: The seconds between two looks at cells that processes of another call still hold, and those in
#: which a worker ends by itself.
_LOOK, _END = 2.0, 5.0


@dataclass(frozen=True)
class Job:
    """A cell, as the study's own process knows it, without the model.

    Args:
        name: The cell's name.
        source: The name of the cell that it starts from; None where it starts from none.
        number: The run's number, from 1.
        total: The number of runs in the study.
        folder: The run's folder.
        failed: What is written where the cell fails, its error left open.
    """

    name: str
    source: str | None
    number: int
    total: int
    folder: Path
    failed: FailedRecord

    @property
    def at(self) -> Progress:
        """The cell's place among the others."""
        return Progress(self.name, self.number, self.total, "failed")

    def fail(self, reason: str, listener: Callable[[Progress], None]) -> None:
        """Record that the cell failed."""
        record_failure(
            self.folder, replace(self.failed, error=printable(reason)), self.at, listener
        )


def jobs_of(cells: Sequence[Cell]) -> list[Job]:
    """Cells without their model.

    Args:
        cells: The cells, each after the one that it starts from.
    """
    names = {id(cell.run): cell.name for cell in cells}
    return [
        Job(
            name=cell.name,
            source=None if cell.run.source is None else names[id(cell.run.source)],
            number=cell.number,
            total=cell.total,
            folder=cell.run.folder,
            failed=cell.run.failed(StudyError("")),
        )
        for cell in cells
    ]


@dataclass(eq=False)
class _Worker:
    """One worker process.

    Args:
        process: The process.
        said: What it wrote on standard error.
        job: What it works on.
        ready: Whether it has its model.
    """

    process: subprocess.Popen[str]
    said: IO[bytes]
    job: Job | None = None
    ready: bool = False

    def tell(self, kind: str, content: Any) -> None:
        """Say something to it; one that is dead is found so by its silence."""
        with suppress(OSError, ValueError):
            assert self.process.stdin is not None
            send(self.process.stdin, kind, content)

    def end(self) -> None:
        """Let it end by itself, or end it."""
        with suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()

    def last_words(self) -> str:
        """How it ended, being dead, and the last line that it wrote on standard error."""
        code = self.process.returncode
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if code == -9:
            how += ", as where memory runs out"
        self.said.seek(0)
        lines = [line for line in self.said.read().decode("utf-8", "replace").split("\n") if line]
        return f"{how}{f': {lines[-1][:300]}' if lines else ''}"


@dataclass
class Workers:
    """Worker processes that share the cells of a study.

    Args:
        order: What each of them is told.
        count: How many there are.
        listener: Called at each step of a run.
        served: Whether the study's own model is behind a server.
        shown: What the study's own process has, and each of them must have.
        mixed: Whether workers that have something else may take part.
    """

    order: Order
    count: int
    listener: Callable[[Progress], None]
    served: bool
    shown: Mapping[str, str]
    mixed: bool = False
    _events: queue.Queue[tuple[_Worker, str, Any]] = field(default_factory=queue.Queue)
    _workers: list[_Worker] = field(default_factory=list)
    _deaths: Counter[str] = field(default_factory=Counter)
    _trouble: Trouble = field(default_factory=Trouble)
    _started: int = 0

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
                busy = [worker for worker in self._workers if worker.job]
                while len(self._workers) < min(self.count, len(left) + len(held) + len(busy)):
                    self._start()
                for worker in self._workers:
                    if worker.ready and worker.job is None:
                        self._give(worker, left, held)
                try:
                    worker, kind, content = self._events.get(timeout=_LOOK if held else None)
                except queue.Empty:
                    left, held = [*held, *left], []
                    continue
                if kind == "ended" and content["held"]:
                    job = self._freed(worker)
                    held.append(job)
                    if job.name not in told:
                        log.info("%s: waiting for %s", job.name, content["held"])
                        told.add(job.name)
                elif kind == "died":
                    left[:0] = self._bury(worker)
                else:
                    self._hear(worker, kind, content)
                if self._trouble.down and self.served:
                    break
        finally:
            for worker in self._workers:
                worker.end()
        return self._trouble

    def _start(self) -> None:
        """Start a worker; on several GPUs they take turns."""
        environment, gpus = os.environ.copy(), torch.cuda.device_count()
        if gpus > 1:
            shown = environment.get("CUDA_VISIBLE_DEVICES")
            names = shown.split(",") if shown else [str(gpu) for gpu in range(gpus)]
            environment["CUDA_VISIBLE_DEVICES"] = names[self._started % gpus]
        self._started += 1
        said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the worker
        process = subprocess.Popen(
            [sys.executable, "-m", "promptsearch.study.execution.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            encoding="utf-8",
        )
        worker = _Worker(process, said)
        self._workers.append(worker)
        worker.tell("order", asdict(self.order))
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()

    def _listen(self, worker: _Worker) -> None:
        """Put what a worker says where the study hears it."""
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                self._events.put((worker, *heard(line)))
        worker.process.wait()
        self._events.put((worker, "died", None))

    def _give(self, worker: _Worker, left: list[Job], held: Sequence[Job]) -> None:
        """Give a worker the first cell whose beginning is there."""
        open_ = {job.name for job in (*left, *held)} | {
            other.job.name for other in self._workers if other.job
        }
        job = next((job for job in left if job.source not in open_), None)
        if job is not None:
            left.remove(job)
            worker.job = job
            worker.tell("cell", job.name)

    def _hear(self, worker: _Worker, kind: str, content: Any) -> None:
        if kind == "ready":
            who = f"worker {worker.process.pid}"
            check_alike(self.shown, content, who, self.mixed)
            worker.ready = True
        elif kind == "progress" and worker.job:
            # A worker counts all cells of the study, and this call may have a share of them.
            number, total = worker.job.number, worker.job.total
            self.listener(replace(Progress(**content), number=number, total=total))
        elif kind == "log":
            name, level, message = content
            logging.getLogger(name).log(level, "%s", message)
        elif kind == "ended":
            job = worker.job and self._freed(worker)
            if content["error"] is None:
                return
            error = made_error(content["error"])
            self._trouble.meet(error, job.at if job else None, self.listener)

    def _freed(self, worker: _Worker) -> Job:
        job, worker.job = worker.job, None
        assert job is not None
        return job

    def _bury(self, worker: _Worker) -> list[Job]:
        """Take away a worker that died.

        Returns:
            Its cell, where that is to be gone on with.

        Raises:
            StudyError: Workers die before they have work.
        """
        self._workers.remove(worker)
        job, words = worker.job, worker.last_words()
        worker.end()
        name = job.name if job else "before it had work"
        self._deaths[name] += 1
        if self._deaths[name] < DEATHS:
            log.warning("a worker died (%s) %s: another goes on", name, words)
            return [job] if job else []
        if job is None:
            raise StudyError(f"{DEATHS} workers died before they had work, the last one {words}")
        job.fail(f"{DEATHS} workers that made it died, the last one {words}", self.listener)
        return []
