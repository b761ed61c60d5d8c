"""A post on a node of a cluster: it keeps a worker process there, and a copy of what that needs.

The node needs no folder that the study's own process can see. A cell's files come with its name,
and what the worker writes goes back as it grows. The post does nothing by itself but what it is
asked, by whoever holds it: `news` is asked again and again, and waits until there are some.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from promptsearch.errors import PromptSearchError
from promptsearch.files import remove
from promptsearch.study.execution.child import Child
from promptsearch.study.execution.mirror import Change, Mirror, apply
from promptsearch.study.execution.wire import Order, told_end

#: The seconds between two looks at files while a worker says nothing, and those for which the first
#: sign of progress waits for more: a study of many nodes would hear nothing else.
_LOOK, _TOGETHER = 1.0, 0.5


class News(NamedTuple):
    """What happened at a post since it was last asked.

    Args:
        cell: The cell in whose folder files changed.
        changes: How they changed; to be done before what was said is heard.
        said: What the worker said, each with its kind.
        died: How it ended, where it did.
    """

    cell: str
    changes: list[Change]
    said: list[tuple[str, Any]]
    died: str | None


class Post:
    """A worker process and its files; of one cell at a time."""

    def __init__(self) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="promptsearch-"))
        self._said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._over = False
        self._cell = ""
        self._mirror = Mirror(self._study / "none")

    @property
    def _study(self) -> Path:
        return self._place / "study"

    def node(self) -> str:
        """The name of the node in its Ray cluster."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def begin(self, order: Order, study: Sequence[Change], home: Sequence[Change]) -> None:
        """Start the worker.

        Args:
            order: What it is told; the places in it are another machine's.
            study: What it needs of the study's folder.
            home: What relative paths of the study lead to.
        """
        apply(study, self._study)
        apply(home, self._place / "home")
        here = replace(order, home=str(self._place / "home"), folder=str(self._study), guest=True)
        self._child = Child(here, os.environ)
        self._child.listen(lambda *said: self._said.put(said))

    def give(self, cell: str, files: Mapping[str, Sequence[Change]]) -> None:
        """Let the worker make a cell.

        Args:
            cell: Its name.
            files: What is in its folder, and in that of the cell that it starts from.
        """
        assert self._child is not None
        try:
            with self._lock:
                for name, changes in files.items():
                    remove(self._study / name)
                    apply(changes, self._study / name)
                self._cell, self._mirror = cell, Mirror(self._study / cell)
                self._mirror.changes()  # all of them are known there
        except PromptSearchError as error:  # such as a full disk
            self._said.put(("ended", told_end(error)))
        else:
            self._child.tell("cell", cell)

    def news(self) -> News:
        """What happened since the last call; waits until something did, or a while has passed."""
        said = list[tuple[str, Any]]()
        died: str | None = None
        wait, end = _LOOK, float("inf")
        with suppress(queue.Empty):
            while True:
                kind, content = self._said.get(timeout=wait)
                if kind == "died":
                    assert self._child is not None
                    died = self._child.last_words()
                    break
                said.append((kind, content))
                if kind != "progress":  # somebody waits for it
                    break
                end = min(end, time.monotonic() + _TOGETHER)
                wait = max(0.0, end - time.monotonic())
        with self._lock:  # all that was told of is on the disk by now
            # That the worker's files go with it is no change of its run.
            changes = [] if self._over else self._mirror.changes()
            return News(self._cell, changes, said, died)

    def end(self) -> None:
        """End the worker, and remove its files."""
        with self._lock:
            self._over = True
        if self._child is not None:
            self._child.end()
        remove(self._place)
