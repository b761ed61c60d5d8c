"""Runs that are killed and run again: how to kill one, and what must be the same afterwards."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptsearch.records.log import RunLog
from promptsearch.search.books import books_of
from promptsearch.search.objective import Objective

#: What may differ between two runs that are the same, by the names of fields in records.
_MAY = ("seconds", "cached", "computed", "checksum")


@dataclass(frozen=True)
class Trace:
    """What must not differ between two runs that are the same.

    Args:
        reason: Why the run ended.
        lines: What was asked and found, from the log.
        ranking: The value in nats and the key of each of the best prompts, the best one first.
        spent: LM tokens.
    """

    reason: str
    lines: list[dict[str, Any]]
    ranking: list[tuple[float, str]]
    spent: int


def trace(objective: Objective, reason: str) -> Trace:
    """What a run has left.

    Args:
        objective: The objective of the run.
        reason: Why it ended.
    """
    books = books_of(objective)
    lines = [
        {name: line[name] for name in ("n", "examples", "prompts", "losses")}
        for line in books.log.lines
    ]
    return Trace(
        reason, lines, [(item.value, item.prompt.key) for item in books.ranking], books.ledger.spent
    )


def results_of(folder: Path) -> dict[str, Any]:
    """What each run of a study has left in its `result.json`, by the run's place in the folder.

    Args:
        folder: The study's folder.
    """
    return {
        str(path.parent.relative_to(folder)): json.loads(path.read_bytes())
        for path in sorted(folder.rglob("result.json"))
    }


def without_times(data: Any) -> Any:
    """What must be the same afterwards of a record: all but seconds, and what the cache saved.

    Args:
        data: A record, or a part of it, as JSON values.
    """
    if isinstance(data, dict):
        return {name: without_times(value) for name, value in data.items() if name not in _MAY}
    return [without_times(value) for value in data] if isinstance(data, list) else data


class Killed(KeyboardInterrupt):
    """Stands for a kill: nothing may catch it."""


class DyingLog(RunLog):
    """A log whose process dies before, during or after the writing of one line.

    Args:
        folder: The run's folder.
        at: The number of the line.
        how: `before`, `half` or `after`.
    """

    def __init__(self, folder: Path, at: int, how: str) -> None:
        super().__init__(folder)
        self._path, self._at, self._how = folder / "evaluations.jsonl", at, how

    def append(self, line: dict[str, Any]) -> None:
        """Write a line, or as much of it as is written when the process dies.

        Raises:
            Killed: This is the line at which it dies.
        """
        if len(self.lines) != self._at:
            super().append(line)
            return
        if self._how != "before":
            super().append(line)
        if self._how == "half":
            os.truncate(self._path, self._path.stat().st_size - 20)
        raise Killed
