"""A lease: one process at a time does a piece of work, on whichever machine it runs.

Whoever wants the work announces itself in a file of its own, then looks who else is there, and
withdraws where somebody lives. Two processes never both go on: the later one of two that announced
themselves sees the other. No file has two writers, so that a network file system which keeps files
whole is enough, and what a dead process left can be deleted by anyone. The holder moves the time of
its file forward; one that does not, for two minutes by the clock of the file system, is dead. On
the machine of the holder its process is asked instead.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psutil

from promptsearch.errors import FileError, StudyError
from promptsearch.files import exists, failing, make_folder, read, shown, write_aside
from promptsearch.plain.json import parse_json
from promptsearch.printable import printable

#: The seconds between two signs of life, and those after which a silent holder is dead.
BEAT, DEAD = 15.0, 120.0
#: The most characters of a file's name before what tells holders apart.
_LONGEST = 150
#: The folder of a study that holds the leases.
LEASES = ".leases"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Args:
        process: The number of the process.
        machine: The machine's name.
        since: When it took the lease, with the time zone.
        place: What tells machines with the same name and process numbers apart.
        begun: When the process began, in seconds since the machine was started.
    """

    process: int
    machine: str
    since: str
    place: str
    begun: float

    def __str__(self) -> str:
        return f"process {self.process} on {self.machine}, since {self.since}"

    @property
    def lives(self) -> bool | None:
        """Whether the process is there; None where it is on another machine."""
        if self.place != _place():
            return None
        try:
            found = psutil.Process(self.process)
            return bool(
                abs(_begun(found) - self.begun) < 1.0 and found.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


class Lease:
    """The right to do one piece of work of a study.

    Args:
        folder: The folder that holds the study's leases.
        name: The name of the work, such as `task/label/seed0`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._stem = _stem(name)
        self._mine: Path | None = None
        self._ended = threading.Event()

    def take(self) -> Holder | None:
        """Take the lease if nobody holds it.

        Returns:
            None where it is ours now, else who holds it.

        Raises:
            FileError: The folder cannot be written to, or what others wrote there not be read.
        """
        make_folder(self._folder)
        while (other := self.holder()) is None:
            mine = self._folder / f"{self._stem}.{uuid4().hex}.lease"
            write_aside(mine, json.dumps(asdict(_myself())))
            if self._other_than(mine) is None:
                self._mine = mine
                self._ended = threading.Event()
                threading.Thread(target=self._show_life, args=(mine,), daemon=True).start()
                return None
            with suppress(OSError):
                mine.unlink()
            time.sleep(random.uniform(0.01, 0.2))  # both withdrew: one should come back first
        return other

    def release(self) -> None:
        """Give the lease back; others may take it at once."""
        self._ended.set()
        if self._mine is not None:
            mine, self._mine = self._mine, None
            with suppress(OSError):
                mine.unlink()

    def holder(self) -> Holder | None:
        """Who holds the lease now; None where nobody does. What dead processes left is deleted."""
        return self._other_than(None)

    def _other_than(self, mine: Path | None) -> Holder | None:
        for path in _files(self._folder):
            if path != mine and path.name.rsplit(".", 2)[0] == self._stem:
                if (holder := _alive(path)) is not None:
                    return holder
                with suppress(OSError):
                    path.unlink()
        return None

    def _show_life(self, mine: Path) -> None:
        while not self._ended.wait(BEAT):
            try:
                os.utime(mine)
            except FileNotFoundError:
                if not self._ended.is_set():
                    # A log with two writers would be worth nothing.
                    print(
                        f"error: another machine works on {self._name}, since this process "
                        "showed no sign of life for minutes",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(1)
            except OSError:  # the next beat may come through
                continue


@contextmanager
def held(folder: Path, name: str, patience: float = 0.0) -> Iterator[Holder | None]:
    """A context that holds a lease of a study where nobody else does.

    Args:
        folder: The study's folder.
        name: The name of the work.
        patience: How long to wait for another holder, in seconds.

    Yields:
        None where the lease is ours, else who holds it.
    """
    lease, end = Lease(folder / LEASES, name), time.monotonic() + patience
    while (other := lease.take()) is not None and time.monotonic() < end:
        time.sleep(0.5)
    try:
        yield other
    finally:
        lease.release()


def elsewhere(folder: Path) -> bool:
    """Whether processes of other machines work on a study.

    Args:
        folder: The study's folder.
    """
    holders = map(_alive, _files(folder / LEASES))
    return any(holder is not None and holder.lives is None for holder in holders)


def _files(folder: Path) -> list[Path]:
    with failing(folder, "read"):  # a pattern would find nothing where there is no right to look
        names = os.listdir(folder) if exists(folder) else []
    return [folder / name for name in sorted(names) if name.endswith(".lease")]


def _alive(path: Path) -> Holder | None:
    """Who is announced in a file and lives."""
    holder = _read(path)
    if holder is None or (lives := holder.lives) is False:
        return None
    if lives:
        return holder
    now = _now(path.parent)
    with failing(path, "read"):
        try:
            silent = now - path.stat().st_mtime
        except FileNotFoundError:  # it was given back just now
            return None
    return holder if silent < DEAD else None


def _now(folder: Path) -> float:
    """The time by the clock that stamps a folder's files, which may be another machine's."""
    probe = folder / f".{uuid4().hex}.probe"
    with failing(probe, "write"):
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    return now


@contextmanager
def owned(folder: Path, name: str, patience: float = 0.0) -> Iterator[None]:
    """A context that owns a study's folder for one kind of work.

    Args:
        folder: The study's folder; it is made where there is none.
        name: The kind of work.
        patience: How long to wait for another owner, in seconds.

    Raises:
        StudyError: Another process owns it.
        FileError: The folder cannot be written to.
    """
    make_folder(folder)
    with held(folder, name, patience) as other:
        if other is not None:
            raise StudyError(
                f"another process works on the study in {shown(folder)} ({other}): wait for it, or "
                "name another folder with --out"
            )
        yield


def _read(path: Path) -> Holder | None:
    """Who is announced in a file; None where it is gone or says nothing.

    Raises:
        FileError: It is there, and cannot be read: whoever it announces may live.
    """
    try:
        content = read(path, 1 << 12)
    except FileError:
        if exists(path):
            raise
        return None
    try:
        told = parse_json(content)
        return Holder(
            process=int(told["process"]),
            machine=_line(told["machine"]),
            since=_line(told["since"]),
            place=str(told["place"]),
            begun=float(told["begun"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _line(told: object) -> str:
    """What another process wrote, as a part of one line."""
    return printable(" ".join(str(told)[:80].split()))


def _myself() -> Holder:
    return Holder(
        process=os.getpid(),
        machine=platform.node(),
        since=datetime.now().astimezone().isoformat(" ", "seconds"),
        place=_place(),
        begun=_begun(psutil.Process()),
    )


def _begun(process: psutil.Process) -> float:
    """When a process began, in seconds since the start of the machine: its clock may be set."""
    booted = psutil.boot_time()  # first: older versions of psutil use it for the other, too
    return float(process.create_time() - booted)


def _stem(name: str) -> str:
    """The name of a work as that of a file, which may not be long, cut to what stays its own."""
    stem = quote(name, safe=" +")
    if len(stem) <= _LONGEST:
        return stem
    return f"{stem[:100]}-{sha256(name.encode()).hexdigest()[:16]}"


def _place() -> str:
    """What process numbers are numbers of: this machine since it was started, or a container."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
