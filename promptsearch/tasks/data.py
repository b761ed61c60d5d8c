"""Data as they are in the file: rows of cells, and the place where each row stands.

Each format has one reader, and none of them guesses: a cell of a CSV file is the text that stands
there, and a file that is no table is refused with the number of the line. How values become text is
the matter of `promptsearch.tasks.fields`.
"""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from promptsearch.errors import FieldError, TaskError
from promptsearch.plain.json import too_deep
from promptsearch.plain.text import LONGEST, Readable, open_file, text_lines
from promptsearch.tasks.fields import Row, listed, repeated, shown


class Source(NamedTuple):
    """An open file of rows.

    Args:
        file: Its bytes.
        what: The words for it in a message that it cannot be read, such as
            `the data file /tmp/rows.csv`.
        name: The words for it before a line's number: its name as the user wrote it.
    """

    file: Readable
    what: str
    name: str

    def place(self, number: int, unit: str = "line") -> str:
        """The place of a row, for messages.

        Args:
            number: The row's number, from 1.
            unit: What is counted: `line` or `row`.
        """
        return f"{self.name}, {unit} {number}"

    def refuse(self, reason: object) -> TaskError:
        """The error to raise where the file cannot be read."""
        return TaskError(f"cannot read {self.what}: {reason}")


def read_data(data: Mapping[str, Any], folder: Path) -> list[Row]:
    """The rows that a study file's `data` names.

    Args:
        data: `{path: FILE}` for JSONL, CSV, TSV or Parquet, or `{hub: owner/name}` with optional
            `config`, `revision` and `split` (left out: all splits of the data set together; the
            task makes its own).
        folder: The folder to which a relative path is relative.

    Raises:
        TaskError: The file or data set cannot be read, or has no rows.
    """
    if "hub" in data:
        rows = _hub(data)
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
        return _jsonl(Source(sys.stdin.buffer, "standard input", "<stdin>"))
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
    if kind not in READERS or whole.endswith(".parquet.gz"):
        file.close()
        kinds = ".jsonl, .csv, .tsv (each also with .gz behind it) or .parquet"
        raise TaskError(f"the file {path} is of an unknown kind: expected {kinds}")
    return _closing(READERS[kind](Source(file, f"{what} {path}", name)), file)


def _closing(rows: Iterator[Row], file: Readable) -> Iterator[Row]:
    with file:
        yield from rows


def _jsonl(source: Source) -> Iterator[Row]:
    for number, line in enumerate(text_lines(source.file, source.what, TaskError), start=1):
        if line.strip():
            row = _object(line, source.place(number))
            if set(row) != {"canary"}:  # BIG-bench files begin with a line that only marks them
                yield row


def _object(line: str, place: str) -> Row:
    if too_deep(line):
        raise TaskError(f"{place}: this is nested too deeply to be read")
    try:
        found = json.loads(line, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (character {error.colno})"
        if line.strip() in ("{", "["):
            reason = "it goes on in the next line. Write one whole object a line"
        raise TaskError(f"{place}: this is not JSON: {reason}") from error
    except FieldError as error:
        raise TaskError(f"{place} {error}") from error
    except ValueError as error:  # Python's own limit
        reason = "a number has more than 4,300 digits: write it as text, in quotes"
        raise TaskError(f"{place}: {reason}") from error
    if not isinstance(found, dict):
        wanted = 'expected an object with fields, such as {"text": "..."}'
        got = "a list: write one object a line" if isinstance(found, list) else shown(repr(found))
        raise TaskError(f"{place}: {wanted}, got {got}")
    return Row(found, place)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = repeated(name for name, _ in pairs)
        raise FieldError(f"has the field {twice} twice: leave one out")
    return found


def _table(delimiter: str, source: Source) -> Iterator[Row]:
    """The rows of a CSV file (RFC 4180): line 1 names the fields, each row has a cell for each."""
    csv.field_size_limit(LONGEST)  # Python's own limit is shorter than some texts
    names: list[str] | None = None
    lines = text_lines(source.file, source.what, TaskError)
    for number, cells in _records(csv.reader(lines, delimiter=delimiter, strict=True), source):
        if names is None:
            names = _names(cells, number, delimiter, source)
        elif len(cells) != len(names):
            raise TaskError(f"{source.place(number)} has {_count(cells, names, delimiter)}")
        else:
            # A column without a name, such as the row numbers that pandas writes, is no field.
            row = {name: cell for name, cell in zip(names, cells, strict=True) if name}
            yield Row(row, source.place(number))
    if names is None:
        raise source.refuse("it is empty: expected the names of the fields in its first line")


def _records(reader: Any, source: Source) -> Iterator[tuple[int, list[str]]]:
    """The records with the number of the line in which each begins; blank lines are left out."""
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"line {reader.line_num}: {error}"
            if "end of data" in str(error):
                where = f"a quotation mark that opens in line {number} or below is never closed"
            hint = (
                "a text that begins with a quotation mark stands in quotes, "
                "and every mark in it twice"
            )
            raise source.refuse(f"{where}: {hint}") from error
        if cells:
            yield number, cells


def _names(cells: list[str], number: int, delimiter: str, source: Source) -> list[str]:
    if len(cells) == 1 and (other := [mark for mark in ",;\t|" if mark in cells[0]]):
        wanted = "expected commas between fields, or tabs in a file .tsv"
        found = f"line {number} names a single field, {cells[0]!r}"
        raise source.refuse(f"{found}: {wanted}, got {other[0]!r}")
    if twice := repeated(filter(None, cells)):
        raise source.refuse(f"line {number} names the field {twice} twice: rename one")
    return cells


def _count(cells: list[str], names: list[str], delimiter: str) -> str:
    mark = {",": "comma", "\t": "tab"}[delimiter]
    found = f"{len(cells)} cell{'s' * (len(cells) != 1)}, but the file's first line names "
    found += f"{len(names)} field{'s' * (len(names) != 1)} ({listed(names)}): "
    if len(cells) > len(names):
        return found + f"put quotes around a text that holds a {mark}; no {mark} ends a row"
    return found + f"a cell that is empty needs its {mark}, too"


def _parquet(source: Source) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(source.file).read()
    except Exception as error:  # what a file holds makes pyarrow raise errors of many kinds
        raise source.refuse(f"{type(error).__name__}: {error}") from error
    names = table.column_names
    if twice := repeated(names):
        raise source.refuse(f"it has two columns {twice}: rename one")
    # pandas stores the numbers of its rows as columns with such names.
    kept = [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]
    columns = [_column(table.column(name), name, source) for name in kept]
    for number in range(table.num_rows):
        values = {name: column[number] for name, column in zip(kept, columns, strict=True)}
        yield Row(values, source.place(number + 1, "row"))


def _column(column: Any, name: str, source: Source) -> list[Any]:
    values: list[Any] = []
    try:
        values.extend(scalar.as_py() for scalar in column)
    except Exception as error:  # text that is no UTF-8, a time that Python's types do not reach
        where = f"row {len(values) + 1}, field '{name}'"
        raise source.refuse(f"{where}: {type(error).__name__}: {error}") from error
    return [_narrow(value, str(column.type)) for value in values]


def _narrow(value: Any, kind: str) -> Any:
    """The value in its own width: floats of 32 or 16 bits become NumPy's, others stay as they are.

    So the text of the float is as short as it can be.

    Args:
        value: The value, as Python has it.
        kind: The name that pyarrow or `datasets` gives to the type of its column.
    """
    if value is None or kind not in ("float", "float32", "halffloat", "float16"):
        return value
    import numpy as np

    return np.float32(value) if kind in ("float", "float32") else np.float16(value)


def _hub(data: Mapping[str, Any]) -> list[Row]:
    import datasets

    try:
        asked = {key: data.get(key) for key in ("revision", "split")}
        found = datasets.load_dataset(data["hub"], data.get("config"), **asked)
        parts = found if isinstance(found, dict) else {data.get("split") or "data": found}
        places = {split: f"{data['hub']}, split {split}" for split in parts}
        return [row for split, part in parts.items() for row in _hub_rows(part, places[split])]
    except Exception as error:  # the Hub client raises errors of many packages
        raise TaskError(
            f"cannot load the data set '{data['hub']}' from the Hub "
            f"({type(error).__name__}: {error}). "
            "Offline, save it as JSONL, CSV or Parquet and name it with data: {path: FILE}."
        ) from error


def _hub_rows(part: Any, name: str) -> Iterator[Row]:
    kinds = {field: getattr(kind, "dtype", "") for field, kind in part.features.items()}
    for number, row in enumerate(part, start=1):
        values = {field: _narrow(value, kinds[field]) for field, value in row.items()}
        yield Row(values, f"{name}, row {number}")


#: Ending of a file's name -> the reader of such files.
READERS: dict[str, Callable[[Source], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".csv": partial(_table, ","),
    ".tsv": partial(_table, "\t"),
    ".parquet": _parquet,
}
