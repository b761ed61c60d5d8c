"""How the cells of a study are spread over processes."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from promptsearch.errors import StudyError
from promptsearch.study.settings.execution import RayConfig

if TYPE_CHECKING:  # importing it loads torch
    from promptsearch.study.cell import Cell


@dataclass(frozen=True)
class Spread:
    """Who makes which cells. No number depends on it.

    Args:
        workers: How many processes this call starts; 0: it makes the cells itself, or starts as
            many as a cluster has room for.
        shard: The place of this call among several that share the study's folder, from 1, and
            their number; None where it makes all cells.
        mixed: Whether processes with other code or other libraries may take part.
        ray: The cluster whose machines make the cells; None where this one does.

    Raises:
        StudyError: A number is out of range.
    """

    workers: int = 0
    shard: tuple[int, int] | None = None
    mixed: bool = False
    ray: RayConfig | None = None

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise StudyError(f"--workers {self.workers}: expected 1 or more")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            place, number = self.shard
            raise StudyError(f"--shard {place}/{number}: expected I/N with I from 1 to N")

    @property
    def alone(self) -> bool:
        """Whether this process makes all cells by itself."""
        return not self.workers and self.shard is None and self.ray is None

    def __str__(self) -> str:
        if self.shard is None:
            return "this process"
        return f"shard {self.shard[0]} of {self.shard[1]} on {platform.node()}"

    def mine(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells of this call: every N-th one, each with those that start from it.

        Args:
            cells: All cells, each after the one that it starts from.
        """
        if self.shard is None:
            return list(cells)
        place, number = self.shard
        turn: dict[int, int] = {}  # of a cell by its run
        firsts = 0
        for cell in cells:
            source = cell.run.source
            if source is None:
                turn[id(cell.run)], firsts = firsts, firsts + 1
            else:
                turn[id(cell.run)] = turn[id(source)]
        mine = [cell for cell in cells if turn[id(cell.run)] % number == place - 1]
        return [replace(cell, number=at, total=len(mine)) for at, cell in enumerate(mine, 1)]


def read_shard(text: str) -> tuple[int, int]:
    """The shard that `I/N` names.

    Raises:
        StudyError: It is not of this form.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None:
        raise StudyError(f"--shard {text[:40]}: expected I/N, such as 1/4")
    return int(found[1]), int(found[2])
