"""Rows of files that store columns, Parquet and Arrow, and values as their columns hold them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from promptsearch.tasks.fields import ClassNumber, Row, repeated
from promptsearch.tasks.source import Source

#: How an Arrow file begins; one that does not is a stream, as the library `datasets` writes them.
_ARROW = b"ARROW1"


def read_parquet(source: Source) -> Iterator[Row]:
    """The rows of a Parquet file.

    Raises:
        TaskError: It cannot be read; the message names the row where it is one of them.
    """
    import pyarrow.parquet

    return _rows(source, lambda: pyarrow.parquet.ParquetFile(source.file).read())


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

    return _rows(source, table)


def reading(kind: str, names: Sequence[str] | None = None) -> Callable[[Any], Any]:
    """How the values of a column are read.

    Floats of 32 or 16 bits become NumPy's, so that their text is as short as it can be. The numbers
    of classes get their names; a number below 0 marks a missing class on the Hub, and is no value.
    All other values stay as they are.

    Args:
        kind: The name that pyarrow or `datasets` gives to the type of the column.
        names: The names of the classes that whole numbers stand for; None where they stand for
            none.
    """
    if names:
        return partial(_class, tuple(names))
    if kind in ("float", "float32"):
        return partial(_narrow, "float32")
    if kind in ("halffloat", "float16"):
        return partial(_narrow, "float16")
    return lambda value: value


def _class(names: tuple[str, ...], value: Any) -> Any:
    if not isinstance(value, int):
        return value
    return ClassNumber(value, names) if 0 <= value < len(names) else None


def _narrow(kind: str, value: Any) -> Any:
    import numpy as np

    return None if value is None else np.dtype(kind).type(value)


def _rows(source: Source, read: Callable[[], Any]) -> Iterator[Row]:
    try:
        table = read()
    except Exception as error:  # what a file holds makes pyarrow raise errors of many kinds
        raise source.refuse(f"{type(error).__name__}: {error}") from error
    names = table.column_names
    if twice := repeated(names):
        raise source.refuse(f"it has two columns {twice}: rename one")
    # pandas stores the numbers of its rows as columns with such names.
    kept = [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]
    classes = _classes(table.schema.metadata or {})
    columns = [_column(table.column(name), name, classes.get(name), source) for name in kept]
    for number in range(table.num_rows):
        values = {name: column[number] for name, column in zip(kept, columns, strict=True)}
        yield Row(values, source.place(number + 1, "row"))


def _column(column: Any, name: str, classes: list[str] | None, source: Source) -> list[Any]:
    values: list[Any] = []
    try:
        values.extend(scalar.as_py() for scalar in column)
    except Exception as error:  # text that is no UTF-8, a time that Python's types do not reach
        where = f"row {len(values) + 1}, field '{name}'"
        raise source.refuse(f"{where}: {type(error).__name__}: {error}") from error
    return list(map(_reading(column.type, classes), values))


def _reading(kind: Any, classes: Sequence[str] | None = None) -> Callable[[Any], Any]:
    """How the values of a type of pyarrow are read, those within lists and structs, too."""
    import pyarrow.types as types

    if "float" not in str(kind):  # nothing in it is narrowed
        return reading(str(kind), classes)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return partial(_parts, _reading(kind.value_type))
    if types.is_struct(kind):
        return partial(_fields, {field.name: _reading(field.type) for field in kind})
    return reading(str(kind), classes)


def _parts(read: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else list(map(read, value))


def _fields(read: Mapping[str, Callable[[Any], Any]], value: Any) -> Any:
    return None if value is None else {name: read[name](part) for name, part in value.items()}


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes by column, which `datasets` writes beside a table; none of others."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            name: [str(each) for each in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}  # a note of strangers, which may say anything
