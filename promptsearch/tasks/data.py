"""Data as they are in the file: rows of cells, and the place where each row stands.

Each format has one reader, and none of them guesses: a cell of a CSV file is the text that stands
there, and a file that is no table is refused with the number of the line. How values become text is
the matter of `promptsearch.tasks.fields`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from promptsearch.errors import TaskError
from promptsearch.plain.text import Readable, open_file
from promptsearch.printable import brief
from promptsearch.tasks.columns import read_arrow, read_parquet
from promptsearch.tasks.fields import Row
from promptsearch.tasks.hub import read_hub
from promptsearch.tasks.json_rows import read_json, read_jsonl
from promptsearch.tasks.source import Source
from promptsearch.tasks.tables import read_table

#: Formats that pack their columns themselves, so that no one packs them again.
_PACKED = (".parquet", ".arrow", ".feather")


def read_data(data: Mapping[str, Any], folder: Path) -> list[Row]:
    """The rows of one source of a study file's `data`.

    Args:
        data: `{path: FILE}` for a file of one of the formats of `READERS`, or `{hub: owner/name}`
            with optional `config`, `revision` and `split` (left out: all splits of the data set
            together).
        folder: The folder to which a relative path is relative.

    Raises:
        TaskError: The file or data set cannot be read, or has no rows.
    """
    if not (isinstance(data, Mapping) and (data.get("path") or data.get("hub"))):
        raise no_source(data)
    if data.get("hub"):
        rows = read_hub(data)
    else:
        path = folder / data["path"]
        try:
            rows = list(read_file(path, str(data["path"]), "the data file"))
        except TaskError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                hint = "paths in a study file are relative to the study file"
                raise TaskError(f"the data file {path} does not exist: {hint}") from error
            raise
    if not rows:
        raise TaskError(f"the data are empty: {data.get('path') or data['hub']} has no row")
    return rows


def no_source(data: Any) -> TaskError:
    """The error to raise where data name neither a file nor a data set."""
    return TaskError(
        f"the data are {brief(data)}: expected {{'path': FILE}} or {{'hub': 'OWNER/NAME'}}, or one "
        "of these for each split"
    )


def read_inputs(source: str) -> Iterator[Row]:
    """The rows of a file, of standard input or of another pipe, read as they are asked for.

    Standard input and other pipes hold JSON lines.

    Args:
        source: A file, or `-` for standard input.

    Raises:
        TaskError: The file cannot be read.
    """
    if source == "-":
        if sys.stdin is None:
            raise TaskError("standard input is closed: expected inputs there, or a file of them")
        return read_jsonl(Source(sys.stdin.buffer, "standard input", "<stdin>"))
    return read_file(Path(source), source, "the inputs", piped=True)


def read_file(path: Path, name: str, what: str, *, piped: bool = False) -> Iterator[Row]:
    """The rows of a file, read as its kind says: opened at once, read as they are asked for.

    Args:
        path: The file.
        name: The words for it before a line's number.
        what: What it is, for messages.
        piped: Whether it may also be a pipe of JSON lines, such as a shell's `<(COMMAND)`.

    Raises:
        TaskError: It cannot be read.
    """
    file = open_file(path, what, TaskError, piped=piped)
    whole = path.name.lower()
    kind = Path(whole.removesuffix(".gz")).suffix
    if piped and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
        kind = ".jsonl"
    if kind not in READERS or (whole.endswith(".gz") and kind in _PACKED):
        file.close()
        kinds = (
            ".jsonl, .csv, .tsv, .json (each also with .gz behind it), .parquet, .arrow or .feather"
        )
        raise TaskError(f"the file {path} is of an unknown kind: expected {kinds}")
    return _closing(READERS[kind](Source(file, f"{what} {path}", name)), file)


def _closing(rows: Iterator[Row], file: Readable) -> Iterator[Row]:
    with file:
        yield from rows


#: Ending of a file's name -> the reader of such files.
READERS: dict[str, Callable[[Source], Iterator[Row]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": partial(read_table, ","),
    ".tsv": partial(read_table, "\t"),
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
