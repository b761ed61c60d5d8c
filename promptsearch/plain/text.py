"""Text files as they come: UTF-8 with or without a byte order mark, any line ends, also gzip.

A file is unpacked where its name ends in `.gz`, in capitals or not. Study files, pools, data and
inputs are read by this one rule. A file that breaks it is refused, and the error names the line.
"""

from __future__ import annotations

import codecs
import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from promptsearch.errors import PromptSearchError

#: The most bytes in a line: a file without line ends must not fill the memory.
LONGEST = 2**26

Readable: TypeAlias = BinaryIO | io.BufferedIOBase


def read_text(
    path: Path,
    what: str,
    error: type[PromptSearchError],
    most: tuple[int, str] | None = None,
) -> str:
    r"""The text of a whole file, without its byte order mark, every line end as `\n`.

    Args:
        path: The file.
        what: What to call it in messages, such as `the study file`.
        error: The type of error to raise.
        most: The most characters that it may have, and what the error says where it has more.
    """
    lines, size = [], 0
    with open_file(path, what, error) as file:
        for line in text_lines(file, f"{what} {path}", error):
            lines.append(line)
            size += len(line)
            if most is not None and size > most[0]:
                raise error(f"cannot read {what} {path}: {most[1]}")
    text = "".join(lines)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def open_file(
    path: Path,
    what: str,
    error: type[PromptSearchError],
    *,
    piped: bool = False,
) -> Readable:
    """A file opened for reading bytes, unpacked where its name ends in `.gz`.

    Args:
        path: The file.
        what: What to call it in messages.
        error: The type of error to raise.
        piped: Whether it may be a pipe, whose other end may keep us waiting.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) or (piped and stat.S_ISFIFO(mode)):
            return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as problem:
        raise error(f"cannot read {what} {path}: {problem.strerror or problem}") from problem
    except ValueError as problem:  # a NUL in a name
        raise error(f"cannot read {what} {str(path)!r}: no file can have this name") from problem
    reason = "it is a folder" if stat.S_ISDIR(mode) else "it is a device or a pipe"
    raise error(f"cannot read {what} {path}: {reason}, not a file")


def text_lines(file: Readable, name: str, error: type[PromptSearchError]) -> Iterator[str]:
    r"""The lines of a file with their ends, which are `\n`, `\r\n` or `\r`.

    No other line end that Unicode knows counts as one.

    Args:
        file: The open file; it is read no further than lines are asked for.
        name: What to call it in messages, such as `the data file rows.csv`.
        error: The type of error to raise.
    """
    number, begins = 0, True
    while raw := _line(file, name, error):
        if begins:
            raw, begins = raw.removeprefix(codecs.BOM_UTF8), False
            if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:4]:
                raise error(f"cannot read {name}: it is UTF-16 or UTF-32 text: save it as UTF-8")
        if len(raw) > LONGEST:
            limit = f"more than {LONGEST:,} bytes"
            raise error(f"cannot read {name}: line {number + 1} has {limit}: write one row a line")
        try:
            text = raw.decode()
        except UnicodeDecodeError as problem:
            byte = f"line {number + 1} holds the byte 0x{raw[problem.start]:02x}"
            reason = f"it is not UTF-8 text ({byte}): save it as UTF-8"
            raise error(f"cannot read {name}: {reason}") from problem
        for line in io.StringIO(text, newline=""):  # it also splits at a lone \r
            number += 1
            yield line


def _line(file: Readable, name: str, error: type[PromptSearchError]) -> bytes:
    try:
        return file.readline(LONGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        reason = f"it is no whole gzip file ({problem}): pack or copy it again"
        raise error(f"cannot read {name}: {reason}") from problem
    except OSError as problem:
        raise error(f"cannot read {name}: {problem.strerror or problem}") from problem
