"""All cells in this process, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from promptsearch.errors import EndpointDown, FileError, RecordError
from promptsearch.records.cache import ScoreCache
from promptsearch.study.cell import Cell
from promptsearch.study.events import Progress

log = logging.getLogger(__name__)


@dataclass
class Trouble:
    """What was no fault of the runs; a later call goes on with those that it met.

    Args:
        damage: What is wrong with the folders of single runs.
        down: The server that is gone; None where none is.
    """

    damage: list[FileError | RecordError] = field(default_factory=list)
    down: EndpointDown | None = None


def execute(cells: Sequence[Cell], cache: ScoreCache) -> Trouble:
    """Make all runs.

    A damaged folder costs only its own run. Where the study's own model is behind a server that is
    gone, no other run can go on; where a proposer is, others may need none.

    Args:
        cells: The cells, each after the one that it starts from.
        cache: Scores of earlier runs.

    Raises:
        PromptSearchError: Something that concerns all runs, such as a full disk.
    """
    trouble = Trouble()
    for cell in cells:
        try:
            cell.execute(cache)
        except EndpointDown as error:
            trouble.down = error
            if cell.run.arena.lm.served:
                break
        except (FileError, RecordError) as error:
            if isinstance(error, FileError) and error.everywhere:
                raise
            log.warning("%s: %s", cell.name, error)
            trouble.damage.append(error)
            cell.listener(
                Progress(cell.name, cell.number, cell.total, "failed", message=str(error))
            )
    return trouble
