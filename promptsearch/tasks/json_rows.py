"""Rows of JSON: a file of one object a line, or one value that holds them all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from promptsearch.errors import TaskError
from promptsearch.plain.json import Twice, once, too_deep
from promptsearch.plain.text import text_lines
from promptsearch.tasks.fields import Row, listed, shown
from promptsearch.tasks.source import Source

_DEEP = "this is nested too deeply to be read"
_LONG = "a number has more than 4,300 digits: write it as text, in quotes"
_TWICE = "has the field {} twice: leave one out"
_WANTED = 'expected an object with fields, such as {"text": "..."}'


def read_jsonl(source: Source) -> Iterator[Row]:
    """The rows of a file of JSON lines; blank lines are left out.

    Raises:
        TaskError: A line is no object; the message names it.
    """
    for number, line in enumerate(text_lines(source.file, source.what, TaskError), start=1):
        if line.strip():
            row = _object(line, source.place(number))
            if not _marks(row):
                yield row


def read_json(source: Source) -> Iterator[Row]:
    """The rows of a file that is one JSON value: a list of objects, or an object with one such.

    Raises:
        TaskError: It is something else; the message says what.
    """
    text = "".join(text_lines(source.file, source.what, TaskError))
    if too_deep(text):
        raise source.refuse(_DEEP)
    try:
        found = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        reason = f"this is not JSON: {error.msg} (line {error.lineno}, character {error.colno})"
        if error.msg == "Extra data":
            reason += ". A file of one object a line is called .jsonl"
        raise source.refuse(reason) from error
    except Twice as error:
        raise source.refuse(f"an object in it {_TWICE.format(shown(error.key))}") from error
    except ValueError as error:  # Python's own limit
        raise source.refuse(_LONG) from error
    for number, row in enumerate(_rows(found, source), start=1):
        if not isinstance(row, dict):
            place = source.place(number, "row")
            raise TaskError(f"{place}: {_WANTED}, got {shown(repr(row))}")
        if not _marks(row):
            yield Row(row, source.place(number, "row"))


def _rows(found: Any, source: Source) -> list[Any]:
    """The list of rows in a whole file's value."""
    wanted = "expected a list of objects, or an object with one such list"
    if isinstance(found, list):
        return found
    if not isinstance(found, dict):
        raise source.refuse(f"{wanted}, got {shown(repr(found))}")
    lists = [
        name
        for name, value in found.items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    if len(lists) != 1:
        got = f"lists of objects under {listed(lists)}" if lists else f"only {listed(found)}"
        hint = "" if lists else ". Columns, a list each, must become rows first"
        raise source.refuse(f"{wanted}, got {got}{hint}")
    return list(found[lists[0]])


def _object(line: str, place: str) -> Row:
    if too_deep(line):
        raise TaskError(f"{place}: {_DEEP}")
    try:
        found = json.loads(line, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (character {error.colno})"
        if line.strip() in ("{", "["):
            reason = "it goes on in the next line. Write one whole object a line"
        raise TaskError(f"{place}: this is not JSON: {reason}") from error
    except Twice as error:
        raise TaskError(f"{place} {_TWICE.format(shown(error.key))}") from error
    except ValueError as error:  # Python's own limit
        raise TaskError(f"{place}: {_LONG}") from error
    if not isinstance(found, dict):
        got = "a list: write one object a line" if isinstance(found, list) else shown(repr(found))
        raise TaskError(f"{place}: {_WANTED}, got {got}")
    return Row(found, place)


def _marks(row: dict[str, Any]) -> bool:
    """Whether a row only marks a file, as the first one of BIG-bench's files does."""
    return set(row) == {"canary"}
