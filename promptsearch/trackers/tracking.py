"""The trackers of a study, as its own process has them: a process for each, which hears of events.

Nothing here waits for a tracker while the study runs. One that fails is named once, and left out.
"""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from promptsearch.plain.json import parse_json
from promptsearch.printable import printable
from promptsearch.study.events import Progress
from promptsearch.trackers.listing import find_tracker

log = logging.getLogger(__name__)

#: The seconds between two numbers of the same run.
EVERY = 1.0
#: The seconds that trackers have, together, to send what is on its way when a study ends.
PATIENCE = 30.0
#: The same where the study was stopped, or failed.
HASTE = 5.0
#: Where so many lines wait for a tracker, it gets no more numbers but those at the end of runs.
_MOST = 1_000


class Tracking:
    """A listener that passes events on to trackers.

    Args:
        names: The trackers' names.
        study: The study's name.
        folder: The study's folder.

    Raises:
        UnknownName: There is no such tracker.
    """

    def __init__(self, names: Sequence[str], study: str, folder: Path) -> None:
        for name in names:
            find_tracker(name)
        self._names, self._study, self._folder = names, study, folder
        self._trackers: list[_Process] = []
        self._told: dict[str, float] = {}  # when each run told a number last
        self._held: dict[str, Progress] = {}  # a number of each run that came too soon after

    def __enter__(self) -> Tracking:
        """Start the trackers."""
        self._trackers = [_Process(name, self._study, self._folder) for name in self._names]
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Let the trackers send what is on its way, and end them."""
        end = time.monotonic() + (PATIENCE if kind is None else HASTE)
        for tracker in self._trackers:
            tracker.close()
        for tracker in self._trackers:
            tracker.finish(max(0.0, end - time.monotonic()))

    def __call__(self, event: Progress) -> None:
        """Pass an event on."""
        if not self._trackers or not event.run:
            return
        if event.stage == "begun":
            self._tell("begin", event.run, dict(event.facts))
        elif event.stage == "search":
            self._search(event)
        elif event.over or event.stage == "select":
            if (last := self._held.pop(event.run, None)) is not None:
                self._number(last)
            if event.over:
                self._end(event)

    def _search(self, event: Progress) -> None:
        now = time.monotonic()
        if now - self._told.get(event.run, float("-inf")) < EVERY:
            self._held[event.run] = event
            return
        self._told[event.run] = now
        self._held.pop(event.run, None)
        self._number(event)

    def _number(self, event: Progress) -> None:
        if event.best is not None:
            values = {f"best_{event.aim}": event.best, "seconds": event.seconds}
            self._tell("log", event.run, event.spent, values)

    def _end(self, event: Progress) -> None:
        facts = {} if event.stage == "failed" else dict(event.facts)
        # One that an earlier call made, or that failed before it began, was not begun yet.
        self._tell("begin", event.run, facts.pop("told", {}))
        self._tell("end", event.run, facts, event.stage == "failed")

    def _tell(self, *line: Any) -> None:
        for tracker in self._trackers:
            tracker.tell(*line)


class _Process:
    """The process of one tracker.

    Args:
        name: The tracker's name.
        study: The study's name.
        folder: The study's folder.
    """

    def __init__(self, name: str, study: str, folder: Path) -> None:
        self._name = name
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._lost = False
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            # Without `-P` it would look for modules in the current folder first.
            [sys.executable, "-P", "-m", "promptsearch.trackers.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            encoding="utf-8",
        )
        order = {"name": name, "study": study, "folder": str(folder.absolute()), "path": sys.path}
        self._lines.put(json.dumps(order))
        threading.Thread(target=self._write, daemon=True).start()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def tell(self, kind: str, *content: Any) -> None:
        """Say something, without waiting for it to be heard."""
        if not self._lost and not (kind == "log" and self._lines.qsize() > _MOST):
            self._lines.put(json.dumps([kind, *content]))

    def close(self) -> None:
        """Say that nothing more comes."""
        self._lines.put(None)

    def finish(self, seconds: float) -> None:
        """Wait until all is logged, and end the process where that takes longer.

        Args:
            seconds: How long to wait.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._lose("it was not ready in time when the study had ended")
            self._process.kill()
            self._process.wait()
        self._listener.join(5.0)
        self._said.close()

    def _write(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # the process is gone, which the other thread tells
            while (line := self._lines.get()) is not None:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
        with suppress(OSError, ValueError):
            self._process.stdin.close()

    def _listen(self) -> None:
        """Hear whether the tracker failed."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            told = lines.readline()
        code = self._process.wait()
        if told:
            if (why := parse_json(told)) is not None:
                self._lose(str(why))
        else:
            self._said.seek(0)
            words = self._said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            self._lose(f"its process ended with exit code {code}{words and f': {words[:300]}'}")

    def _lose(self, why: str) -> None:
        if not self._lost:
            self._lost = True
            log.warning(
                "the tracker '%s' logs no more, and the runs go on: %s",
                self._name,
                printable(why),
            )
