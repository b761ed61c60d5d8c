"""Cells in this process, one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from promptsearch.errors import EndpointDown, FileError, PromptSearchError, RecordError
from promptsearch.records.cache import ScoreCache
from promptsearch.study.cell import Cell
from promptsearch.study.events import Progress
from promptsearch.study.execution.lease import held

log = logging.getLogger(__name__)

#: The seconds between two looks at cells that other processes work on.
_LOOK = 2.0


@dataclass
class Trouble:
    """What was no fault of the runs; a later call goes on with those that it met.

    Args:
        damage: What is wrong with the folders of single runs, and the bugs that single runs met.
        down: The server that is gone; None where none is.
    """

    damage: list[Exception] = field(default_factory=list)
    down: EndpointDown | None = None

    def meet(
        self,
        error: Exception,
        at: Progress | None,
        listener: Callable[[Progress], None],
    ) -> None:
        """Take note of what a cell ended with, if others may go on.

        Args:
            error: What it ended with.
            at: The cell's place among the others; None where no cell was begun.
            listener: Is told of a damaged folder, or of a bug.

        Raises:
            PromptSearchError: It is neither damage of one folder nor a server that is gone.
            MemoryError: There is no room for others either.
        """
        if isinstance(error, EndpointDown):
            self.down = error
            return
        everywhere = isinstance(error, FileError) and error.everywhere
        own = isinstance(error, FileError | RecordError) and not everywhere
        bug = not isinstance(error, PromptSearchError | MemoryError)
        if at is None or not (own or bug):
            raise error
        told = f"{type(error).__name__}: {error}" if bug else str(error)
        log.warning("%s: %s", at.run, told, exc_info=error if bug else None)
        self.damage.append(error)
        listener(replace(at, message=told))


def execute(cells: Sequence[Cell], folder: Path, cache: ScoreCache) -> Trouble:
    """Make all runs; those that another process works on are waited for.

    A damaged folder costs only its own run, and so does a bug, which stays as loud as it was: both
    are to be raised when the others are made. Where the study's own model is behind a server that
    is gone, no other run can go on; where a proposer is, others may need none.

    Args:
        cells: The cells, each after the one that it starts from.
        folder: The study's folder.
        cache: Scores of earlier runs.

    Raises:
        PromptSearchError: Something that concerns all runs, such as a full disk.
    """
    trouble, left, told = Trouble(), list(cells), set[str]()
    while left:
        waiting: list[Cell] = []
        for cell in left:
            if any(cell.run.source is other.run for other in waiting):
                waiting.append(cell)
                continue
            with held(folder, cell.name) as other:
                if other is None:
                    _execute(cell, cache, trouble)
                else:
                    waiting.append(cell)
                    if cell.name not in told:
                        log.info("%s: waiting for %s", cell.name, other)
                        told.add(cell.name)
            if trouble.down and cell.run.arena.lm.served:
                return trouble
        left = waiting
        if left:
            time.sleep(_LOOK)
    return trouble


def _execute(cell: Cell, cache: ScoreCache, trouble: Trouble) -> None:
    try:
        cell.execute(cache)
    except Exception as error:
        trouble.meet(error, cell.at, cell.listener)
