"""A folder that grows here, seen by another machine: what changed in it, and the same change there.

The copy is at any time what a process killed at that moment could have left. A file that vouches
for others is therefore read before these, and written after them: a result before the log and the
export, evaluations before the proposals that they came from. Logs go line by line. A checkpoint
may be behind or ahead of its log, which costs time only, so that one that is large stays behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from promptsearch.errors import RecordError
from promptsearch.files import append, exists, failing, remove, shown, write_aside

#: The largest checkpoint that is sent, in bytes.
CHECKPOINT = 64 << 20
#: What is read first, in this order, and written last.
_FIRST = ("result.json", "evaluations.jsonl", "proposals.jsonl")
_STATE = "state.safetensors"


@dataclass(frozen=True)
class Change:
    """What happened to one file.

    Args:
        path: The file, relative to the folder, with `/`.
        content: What is in it now, or stands behind what was there; None where it is gone.
        after: The bytes that stay before `content`.
    """

    path: str
    content: bytes | None
    after: int = 0


class Mirror:
    """Finds what changed in a folder since it was last looked at.

    Args:
        folder: The folder; it may be missing yet.
        largest: The largest checkpoint that is told of, in bytes.
    """

    def __init__(self, folder: Path, largest: int = CHECKPOINT) -> None:
        self._folder = folder
        self._largest = largest
        # Path -> the number, size and time of the file; of a log the bytes that were told.
        self._known: dict[str, tuple[int, int, int]] = {}

    def changes(self) -> list[Change]:
        """What changed, in the order in which it is to be done again."""
        there = set[str]()
        found: list[Change] = []
        for path in _reading_order(self._folder):
            name = path.relative_to(self._folder).as_posix()
            with failing(path, "read"), suppress(FileNotFoundError), path.open("rb") as file:
                there.add(name)  # else it was replaced or removed just now
                if (change := self._change(name, file)) is not None:
                    found.insert(0, change)
        gone = [name for name in self._known if name not in there]
        for name in gone:
            del self._known[name]
        return found + [Change(name, None) for name in gone]

    def _change(self, name: str, file: BinaryIO) -> Change | None:
        """What happened to one file, which is open."""
        now = os.fstat(file.fileno())
        number, size, time = self._known.get(name, (-1, 0, 0))
        same, after = number == now.st_ino, 0
        if name.endswith(".jsonl"):
            if same and now.st_size >= size:
                after = file.seek(size)
            content = file.read()
            content = content[: content.rfind(b"\n") + 1]
            self._known[name] = (now.st_ino, after + len(content), 0)
            return None if same and not content else Change(name, content, after)
        if same and (size, time) == (now.st_size, now.st_mtime_ns):
            return None
        self._known[name] = (now.st_ino, now.st_size, now.st_mtime_ns)
        if name == _STATE and now.st_size > self._largest:
            return None
        return Change(name, file.read())


def contents(folder: Path) -> list[Change]:
    """All that is in a folder, as changes to an empty one."""
    return Mirror(folder, largest=sys.maxsize).changes()


def apply(changes: Iterable[Change], folder: Path) -> None:
    """Do to a folder what happened to another one.

    Args:
        changes: What happened there.
        folder: The folder.

    Raises:
        RecordError: A change does not fit what is in the folder.
        FileError: A file cannot be written.
    """
    for change in changes:
        path = folder / change.path
        if Path(change.path).is_absolute() or ".." in Path(change.path).parts:
            raise RecordError(
                f"a worker wrote {shown(Path(change.path))}, outside its run's folder"
            )
        if change.content is None:
            remove(path)
        elif not change.after:
            write_aside(path, change.content)
        elif (size := path.stat().st_size if exists(path) else 0) != change.after:
            raise RecordError(
                f"{shown(path)} has {size:,} bytes, and had {change.after:,} when it was last "
                "written: something else writes to it. Run the study again: it goes on from there"
            )
        else:
            append(path, change.content)


def _reading_order(folder: Path) -> Iterator[Path]:
    """The files of a folder, those that vouch for others first; without unfinished ones."""
    with failing(folder, "read"):
        files = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.endswith(".part")
        ]
    yield from sorted(files, key=_place)


def _place(path: Path) -> int:
    return _FIRST.index(path.name) if path.name in _FIRST else len(_FIRST)
