"""The lock of a study's folder: one process at a time."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from promptsearch.errors import FileError, StudyError
from promptsearch.files import failing, make_folder, read, shown
from promptsearch.plain.json import parse_json


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study's folder, so that no other process works in it.

    Args:
        folder: The study's folder; it is made where there is none.

    Raises:
        StudyError: Another process holds it.
        FileError: The folder cannot be written to.
    """
    make_folder(folder)
    path = folder / ".lock"
    lock = FileLock(path)
    with failing(path, "lock"):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StudyError(
                f"another process works on the study in {shown(folder)}{_holder(path)}: "
                "wait for it, or name another folder with --out"
            ) from error
    try:
        with failing(path, "write"):  # in place: the lock is on this very file
            path.write_text(
                json.dumps({"process": os.getpid(), "machine": platform.node(), "since": _now()}),
                "utf-8",
            )
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Who holds a lock, and since when, as far as its file tells."""
    try:
        told = parse_json(read(path, 1 << 12))
        process, node, since = (str(told[key])[:80] for key in ("process", "machine", "since"))
    except (FileError, ValueError, KeyError, TypeError):
        return ""
    return (
        f" (process {process} on {node}, since {since})"
        if f"{process}{node}{since}".isprintable()
        else ""
    )


def _now() -> str:
    return datetime.now().astimezone().isoformat(" ", "seconds")
