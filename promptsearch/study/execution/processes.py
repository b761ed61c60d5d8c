"""Workers that are processes of this machine; on several GPUs they take turns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial

import torch

from promptsearch.study.execution.child import Child
from promptsearch.study.execution.jobs import Job
from promptsearch.study.execution.wire import Order
from promptsearch.study.execution.workers import Tell, Worker


class ProcessWorker(Worker):
    """A worker that takes the lease of its cell by itself: it writes into the study's folder."""

    def __init__(self, child: Child, tell: Tell) -> None:
        super().__init__()
        self._child = child
        child.listen(partial(tell, self))

    def __str__(self) -> str:
        return f"worker {self._child.pid}"

    def give(self, job: Job) -> None:
        """Let it make a cell."""
        self.job = job
        self._child.tell("cell", job.name)

    def end(self) -> None:
        """End it."""
        self._child.end()

    def last_words(self) -> str:
        """How it ended."""
        return self._child.last_words()


@dataclass
class Processes:
    """Starts workers on this machine.

    Args:
        order: What each of them is told.
    """

    order: Order
    _started: int = field(default=0, init=False)

    def start(self, tell: Tell) -> Worker:
        """Start a worker.

        Args:
            tell: Called with all that it says.
        """
        environment = on_gpu(self._started)
        self._started += 1
        return ProcessWorker(Child(self.order, environment), tell)


def on_gpu(turn: int) -> dict[str, str]:
    """The environment of a process that sees one of the GPUs, if there are several.

    Args:
        turn: The number of the process; one after the other, they take turns.
    """
    environment, gpus = os.environ.copy(), torch.cuda.device_count()
    if gpus > 1:
        shown = environment.get("CUDA_VISIBLE_DEVICES")
        names = shown.split(",") if shown else [str(gpu) for gpu in range(gpus)]
        environment["CUDA_VISIBLE_DEVICES"] = names[turn % gpus]
    return environment
