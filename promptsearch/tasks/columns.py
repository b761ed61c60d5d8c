"""Rows of files that store columns, Parquet and Arrow, and values as their columns hold them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from promptsearch.errors import TaskError
from promptsearch.tasks.fields import ClassNumber, Row, repeated
from promptsearch.tasks.source import Source

#: How an Arrow file begins; one that does not is a stream, as the library `datasets` writes them.
_ARROW = b"ARROW1"
#: The names of types of pyarrow whose values NumPy keeps as narrow as they are.
_NARROW = {"float": "float32", "halffloat": "float16"}


class Place(Protocol):
    """Where rows come from, for messages; a `Source` is one."""

    def place(self, number: int, unit: str = ...) -> str:
        """The place of a row."""

    def refuse(self, reason: object) -> TaskError:
        """The error to raise where it cannot be read."""


def read_parquet(source: Source) -> Iterator[Row]:
    """The rows of a Parquet file.

    Raises:
        TaskError: It cannot be read; the message names the row where it is one of them.
    """
    import pyarrow.parquet

    yield from rows_of(
        _read(source, lambda: pyarrow.parquet.ParquetFile(source.file).read()), source
    )


def read_arrow(source: Source) -> Iterator[Row]:
    """The rows of an Arrow or Feather file, or of a stream of Arrow in a file.

    Raises:
        TaskError: It cannot be read; the message names the row where it is one of them.
    """
    import pyarrow.ipc

    def table() -> Any:
        whole = source.file.read(len(_ARROW)) == _ARROW
        source.file.seek(0)
        opened = pyarrow.ipc.open_file if whole else pyarrow.ipc.open_stream
        found = opened(source.file).read_all()
        found.validate(full=True)  # places of texts are not checked before they are followed
        return found

    yield from rows_of(_read(source, table), source)


def rows_of(table: Any, place: Place) -> Iterator[Row]:
    """The rows of a table of pyarrow.

    Floats of 32 or 16 bits become NumPy's, so that their text is as short as it can be. The numbers
    of classes get their names; a number below 0 marks a missing class on the Hub, and is no value.
    All other values stay as they are.

    Args:
        table: The table, with what `datasets` writes beside it.
        place: Where it comes from, for messages.

    Raises:
        TaskError: A value cannot be read; the message names the row.
    """
    names = table.column_names
    if twice := repeated(names):
        raise place.refuse(f"it has two columns {twice}: rename one")
    # pandas stores the numbers of its rows as columns with such names.
    kept = [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]
    features = _features(table.schema.metadata or {})
    columns = [_column(table.column(name), name, features.get(name), place) for name in kept]
    for number in range(table.num_rows):
        values = {name: column[number] for name, column in zip(kept, columns, strict=True)}
        yield Row(values, place.place(number + 1, "row"))


def _read(source: Source, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # what a file holds makes pyarrow raise errors of many kinds
        raise source.refuse(f"{type(error).__name__}: {error}") from error


def _class(names: tuple[str, ...], value: Any) -> Any:
    if not isinstance(value, int):
        return value
    return ClassNumber(value, names) if 0 <= value < len(names) else None


def _narrow(kind: str, value: Any) -> Any:
    import numpy as np

    return None if value is None else np.dtype(kind).type(value)


def _column(column: Any, name: str, feature: Any, place: Place) -> list[Any]:
    values: list[Any] = []
    try:
        values.extend(scalar.as_py() for scalar in column)
    except Exception as error:  # text that is no UTF-8, a time that Python's types do not reach
        where = f"row {len(values) + 1}, field '{name}'"
        raise place.refuse(f"{where}: {type(error).__name__}: {error}") from error
    return list(map(_reading(column.type, feature), values))


def _reading(kind: Any, feature: Any = None) -> Callable[[Any], Any]:
    """How the values of a type of pyarrow are read, those within lists and structs, too.

    Args:
        kind: The type.
        feature: What `datasets` says of it; None where it says nothing.
    """
    import pyarrow.types as types

    if feature is None and "float" not in str(kind):  # nothing in it is named or narrowed
        return lambda value: value
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return partial(_parts, _reading(kind.value_type, _within(feature, "feature")))
    if types.is_struct(kind):
        parts = {field.name: _within(feature, field.name) for field in kind}
        return partial(_fields, {f.name: _reading(f.type, parts[f.name]) for f in kind})
    if _within(feature, "_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        return partial(_class, tuple(map(str, feature["names"])))
    if str(kind) in _NARROW:
        return partial(_narrow, _NARROW[str(kind)])
    return lambda value: value


def _within(feature: Any, name: str) -> Any:
    return feature.get(name) if isinstance(feature, Mapping) else None


def _parts(read: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else list(map(read, value))


def _fields(read: Mapping[str, Callable[[Any], Any]], value: Any) -> Any:
    return None if value is None else {name: read[name](part) for name, part in value.items()}


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """What `datasets` says of columns beside a table, where it names classes; else nothing."""
    said = metadata.get(b"huggingface", b"")
    if b"ClassLabel" not in said:
        return {}
    try:
        features = json.loads(said)["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}  # a note of strangers, which may say anything
    return features if isinstance(features, dict) else {}
