"""Files: never half written, never trusted blindly, and all failing with one kind of error.

Every error of the operating system about a file becomes a `FileError` here, which says what
happened, what is safe and the one next step. Readers and writers of files call these functions, and
catch no `OSError` of their own.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from promptsearch.errors import FileError

#: The most bytes that a file which is read whole may have.
LARGEST = 1 << 30
#: The seconds after which a file that nobody finished writing is given up, whoever began it.
_GIVEN_UP = 3600
#: Number of a system error -> what happened, in plain words, and what to do.
_KNOWN = {
    errno.ENOSPC: ("no space is left on the disk", "make room"),
    errno.EDQUOT: ("your quota of the disk is used up", "make room"),
    errno.EFBIG: (
        "it would be larger than files may become here (see `ulimit -f`)",
        "raise that limit",
    ),
    errno.EROFS: ("the disk can only be read", "name a folder on another one"),
    errno.EIO: ("the disk reports a fault", "see to the disk"),
    errno.EMFILE: ("too many files are open", "raise the limit (see `ulimit -n`)"),
    errno.ENFILE: ("too many files are open on this machine", "end some other programs"),
    errno.EACCES: ("there is no right to do so", "give yourself the right, or name another folder"),
    errno.EPERM: ("there is no right to do so", "give yourself the right, or name another folder"),
    errno.ENAMETOOLONG: ("its name is longer than the disk allows", "choose a shorter name"),
    errno.ENOTDIR: (
        "a file stands where a folder should be",
        "move it away, or name another folder",
    ),
    errno.EEXIST: (
        "a file stands where a folder should be",
        "move it away, or name another folder",
    ),
    errno.EISDIR: ("a folder stands where a file should be", "move it away"),
    errno.ENOTEMPTY: ("a folder stands where a file should be", "move it away"),
    errno.ENOENT: ("there is none, or a link that leads nowhere", "put it back"),
    errno.ELOOP: (
        "links lead round in a circle, or where none may be",
        "put the file itself there",
    ),
}
#: The errors that the next file would meet as well, wherever in a study's folder it lies.
_EVERYWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}


@contextmanager
def failing(path: Path, verb: str) -> Iterator[None]:
    """Turn every error of the system about a file into a `FileError`, while inside.

    Args:
        path: The file or folder.
        verb: What is done with it: `read`, `write`, ...
    """
    try:
        named = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half a character
        named = False
    if not named:
        raise _failed(path, verb, "no file can have such a name", "choose another name")
    try:
        yield
    except OSError as error:
        what, remedy = _KNOWN.get(error.errno or 0, (error.strerror or str(error), "mend that"))
        raise _failed(path, verb, what, remedy, error.errno in _EVERYWHERE) from error


def _failed(path: Path, verb: str, what: str, remedy: str, everywhere: bool = False) -> FileError:
    safe = "Nothing was changed" if verb == "read" else "What was written before is safe"
    return FileError(
        f"cannot {verb} {shown(path)}: {what}. {safe}; {remedy}, and the same command goes on.",
        everywhere,
    )


def shown(path: Path) -> str:
    """A path for a message: one line without control characters, a long one without its middle."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))
    return text if len(text) <= 300 else f"{text[:140]}...{text[-140:]}"


def exists(path: Path) -> bool:
    """Whether anything has this name, even a link that leads nowhere."""
    with failing(path, "read"):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


@contextmanager
def opened(path: Path, largest: int = LARGEST) -> Iterator[BinaryIO]:
    """An ordinary file, open to be read; no pipe or device, which may never end.

    Args:
        path: The file.
        largest: The most bytes that it may have.

    Raises:
        FileError: It cannot be read, is too large, or is something else.
    """
    with (
        failing(path, "read"),
        open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file,
    ):
        found = os.fstat(file.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if not stat.S_ISREG(found.st_mode):
            raise _failed(
                path, "read", "a pipe or a device stands where a file should be", "move it away"
            )
        if found.st_size > largest:
            what = f"it has {found.st_size:,} bytes, and files like it have {largest:,} at most"
            raise _failed(path, "read", what, "put the right file back")
        yield file


def read(path: Path, largest: int = LARGEST) -> bytes:
    """The content of an ordinary file.

    Args:
        path: The file.
        largest: The most bytes that it may have.

    Raises:
        FileError: It cannot be read, is too large, or is something else.
    """
    with opened(path, largest) as file:
        return file.read()


def make_folder(path: Path) -> None:
    """Make a folder and the folders above it, where they are missing."""
    with failing(path, "make the folder"):
        path.mkdir(parents=True, exist_ok=True)


def write_aside(path: Path, content: bytes | str) -> None:
    """Write `content` to `path`, so that a kill at any moment leaves the whole old or new file.

    Half characters, which UTF-8 does not have, are written as JSON escapes them.
    """
    make_folder(path.parent)
    # Processes of several containers may have one number.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.part")
    with failing(path, "write"):
        try:
            with aside.open("wb", buffering=0) as file:
                _write_all(
                    file,
                    content.encode("utf-8", "backslashreplace")
                    if isinstance(content, str)
                    else content,
                )
            aside.replace(path)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


def write_json(path: Path, data: Any) -> None:
    """Write JSON, indented for people, whole or not at all; a list of plain values is one line."""
    write_aside(path, _indented(data, "\n") + "\n")


def _indented(data: Any, line: str) -> str:
    """JSON with the entries of objects, and objects in lists, on lines of their own.

    Args:
        data: JSON values.
        line: A line's end, with the spaces that the next one begins with.
    """
    if isinstance(data, dict) and data:
        pairs = (f"{json.dumps(str(k), ensure_ascii=False)}: " for k in data)
        entries = [k + _indented(v, line + " ") for k, v in zip(pairs, data.values(), strict=True)]
        return f"{{{line} {f',{line} '.join(entries)}{line}}}"
    if isinstance(data, list | tuple) and any(isinstance(each, dict) for each in data):
        entries = [_indented(each, line + " ") for each in data]
        return f"[{line} {f',{line} '.join(entries)}{line}]"
    return json.dumps(data, ensure_ascii=False)


def append(path: Path, content: bytes) -> None:
    """Write `content` at the end of a file, all of it or nothing, and flush it to disk."""
    make_folder(path.parent)
    with failing(path, "write"), path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            _write_all(file, content)
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def _write_all(file: Any, content: bytes) -> None:
    """Write without a buffer, which closing the file would try to write again after a failure."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def cut(path: Path, size: int) -> None:
    """Shorten a file to its first `size` bytes."""
    with failing(path, "write"):
        os.truncate(path, size)


def remove(path: Path) -> None:
    """Delete a file or folder that nothing needs any more; a failure to do so does no harm."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete the files that dead processes had begun to write aside.

    Args:
        folder: A folder in which nobody else writes files now, except for short reports.
    """
    for path in folder.rglob(".*.part"):
        owner = path.suffixes[-2][1:] if len(path.suffixes) > 1 else ""
        with suppress(OSError):
            if owner.isdecimal() and (
                not _lives(int(owner)) or time.time() - path.lstat().st_mtime > _GIVEN_UP
            ):
                path.unlink()


def _lives(process: int) -> bool:
    """Whether another process of this machine has this number.

    This process itself does not count: it finishes at once what it writes aside.
    """
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True
