"""A process that holds one tracker, `python -m promptsearch.trackers.process`.

It hears of the runs on standard input, one JSON array a line. Its last word on standard output says
how the tracker failed, or null where all was logged. It ends with the study, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from promptsearch.errors import StudyError
from promptsearch.plain.json import parse_json
from promptsearch.trackers.listing import find_tracker
from promptsearch.trackers.logged import Logged
from promptsearch.trackers.tracker import Tracker

#: The most characters of a message that are passed on.
_SHOWN = 500


class Tracked:
    """A tracker with its notes: what it logged before, it does not log again.

    Args:
        tracker: The tracker.
        logged: Its notes.
    """

    def __init__(self, tracker: Tracker, logged: Logged) -> None:
        self._tracker, self._logged = tracker, logged
        self._open: set[str] = set()

    def begin(self, run: str, facts: dict[str, Any]) -> None:
        """Open a run, where it is not open and its end was not logged."""
        if run not in self._open and not self._logged[run].ended:
            known = self._tracker.begin(run, facts, self._logged[run].known)
            self._logged.note(run, known=known)
            self._open.add(run)

    def log(self, run: str, step: int, values: dict[str, float]) -> None:
        """Log how far a run has come, where that is farther than before."""
        note = self._logged[run]
        if not note.ended and step > note.step:
            self._logged.note(run, step=step)
            self._tracker.log(run, step, values)

    def end(self, run: str, values: dict[str, float], failed: bool) -> None:
        """Log how a run ended, once; a run that failed may be made again."""
        if not self._logged[run].ended:
            self._open.discard(run)
            self._logged.note(run, ended=not failed)
            self._tracker.end(run, values, failed)


def main() -> None:
    """Make the tracker that is named, and tell it what comes."""
    # The study hears signals, and closes this process's input.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None:  # Windows has no SIGHUP
            signal.signal(number, signal.SIG_IGN)
    # Trackers print: that must not come between the lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = parse_json(sys.stdin.readline())
    sys.path[:] = order["path"]
    told = None
    try:
        tracker = _made(order["name"], order["study"], Path(order["folder"]))
        tracked = Tracked(tracker, Logged(Path(order["folder"]), order["name"]))
        for line in sys.stdin:
            kind, *given = parse_json(line)
            getattr(tracked, kind)(*given)
        tracker.close()
    except Exception as error:  # a tracker is a stranger's code, and a network may fail
        told = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
    out.write(json.dumps(told and told[:_SHOWN]) + "\n")
    out.flush()


def _made(name: str, study: str, folder: Path) -> Tracker:
    """The tracker of this name.

    Raises:
        StudyError: It is none, or its package is not installed.
    """
    point = find_tracker(name)
    kind = point.load()
    if not (isinstance(kind, type) and issubclass(kind, Tracker)):
        raise StudyError(f"{point.value} is no subclass of promptsearch.trackers.tracker.Tracker")
    try:
        return kind(study, folder)
    except ModuleNotFoundError as error:
        if error.name != kind.needs:
            raise
        raise StudyError(
            f"it needs the package {kind.needs}: pip install 'promptsearch-kit[{name}]'"
        ) from error


if __name__ == "__main__":
    main()
