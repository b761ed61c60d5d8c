"""Fields that hold lists of texts, such as the triples of a record, joined to one text.

A list is never turned into text silently: a task says what stands between its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptsearch.errors import FieldError
from promptsearch.tasks.fields import Row, as_list, text_of, value_in

#: The most lists within one another.
DEPTH = 4


def joined(rows: Iterable[Row], fields: Mapping[str, str | Sequence[str]]) -> list[Row]:
    """The rows with some fields joined to texts.

    Args:
        rows: The rows.
        fields: The name of a field that holds a list -> the text between its parts; for lists of
            lists, the texts from the outermost list to the innermost.

    Raises:
        FieldError: A row lacks a field, or its value is no list of texts of that depth.
    """
    found = []
    for row in rows:
        texts = {
            name: _text(
                value_in(row, name, row.place),
                [between] if isinstance(between, str) else between,
                f"{row.place}: the field '{name}'",
            )
            for name, between in fields.items()
        }
        found.append(Row({**row, **texts}, row.place))
    return found


def _text(value: Any, between: Sequence[str], place: str) -> str:
    """The text of a list, or of a part of it where no more texts stand between."""
    parts = as_list(value)
    if not between:
        if parts is not None:
            raise FieldError(
                f"{place} holds lists deeper within one another than 'join' has texts: name one "
                "more, for the innermost"
            )
        try:
            return text_of(value)
        except FieldError as reason:
            raise FieldError(f"{place} {reason}") from reason
    if parts is None:
        raise FieldError(
            f"{place} is no list, or no list of lists, as 'join' says: name one text for each "
            "list within another"
        )
    return between[0].join(_text(part, between[1:], place) for part in parts)
