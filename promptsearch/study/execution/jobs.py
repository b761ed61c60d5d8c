"""Cells as the study's own process knows them while others make them: without the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptsearch.errors import StudyError
from promptsearch.printable import printable
from promptsearch.records.run import FailedRecord
from promptsearch.study.cell import Cell, record_failure
from promptsearch.study.events import Progress


@dataclass(frozen=True)
class Job:
    """A cell without the model.

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
