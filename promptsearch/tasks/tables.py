"""Rows of tables in text: CSV and TSV files, by RFC 4180; every cell is the text that it holds."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from promptsearch.errors import TaskError
from promptsearch.plain.text import LONGEST, text_lines
from promptsearch.tasks.fields import Row, listed, repeated
from promptsearch.tasks.source import Source


def read_table(delimiter: str, source: Source) -> Iterator[Row]:
    """The rows of a table, whose first line names the fields; each row has a cell for each.

    Args:
        delimiter: What stands between cells.
        source: The file.

    Raises:
        TaskError: It is no such table; the message names the line.
    """
    csv.field_size_limit(LONGEST)  # Python's own limit is shorter than some texts
    names: list[str] | None = None
    lines = text_lines(source.file, source.what, TaskError)
    for number, cells in _records(csv.reader(lines, delimiter=delimiter, strict=True), source):
        if names is None:
            names = _names(cells, number, delimiter, source)
        elif len(cells) != len(names):
            raise TaskError(f"{source.place(number)} has {_count(cells, names, delimiter)}")
        elif delimiter == "\t" and any(map(_swallows, cells)):
            raise source.refuse(
                f"line {number}: a cell holds both a line break and a tab, as where a text that "
                "begins with a quotation mark takes the rows below into itself: put such a text in "
                "quotes, and every mark in it twice; where the cell is meant so, save the table as "
                ".csv"
            )
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


def _swallows(cell: str) -> bool:
    """Whether a cell of a .tsv may hold whole rows, which nobody would miss."""
    return "\t" in cell and ("\n" in cell or "\r" in cell)


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
