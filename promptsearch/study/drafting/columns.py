"""The fields of a file, each with what its values are over all rows."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from promptsearch.errors import FieldError
from promptsearch.tasks.fields import ClassNumber, is_missing, text_of

#: What the values of a field are: `other` holds what has no text, or kinds that do not go together.
Kind = Literal["text", "number", "date", "flag", "texts", "other"]
#: How deep a field may stand in another one, such as `translation.en`.
_DEPTH = 3
#: Characters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Chinese and
#: Japanese; and about how many of them make a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
    "|[\U00020000-\U0003ffff]"
)
_CHARACTERS = 3


@dataclass(frozen=True)
class Column:
    """A field over all rows.

    Args:
        name: Its name; the names of nested fields are joined by points.
        kind: What its values are.
        texts: The text of each row's value; None where a row has none. Empty for lists.
        lists: The texts of each row's list; None where a row has none. Empty for single values.
    """

    name: str
    kind: Kind
    texts: tuple[str | None, ...] = ()
    lists: tuple[tuple[str, ...] | None, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.texts or self.lists)

    @cached_property
    def missing(self) -> int:
        """The number of rows without a value."""
        return sum(not (value and any(value)) for value in self.texts or self.lists)

    @cached_property
    def counts(self) -> Counter[str]:
        """The number of rows of each value; of lists, the number of times that a text is listed."""
        if self.kind == "texts":
            return Counter(text for texts in self.lists for text in texts or ())
        return Counter(text for text in self.texts if text)

    @property
    def distinct(self) -> int:
        """The number of different values."""
        return len(self.counts)

    @cached_property
    def words(self) -> float:
        """The mean number of words of a text, 0 where there is none."""
        total = sum(_words(text) * count for text, count in self.counts.items())
        return total / max(1, self.counts.total())

    @cached_property
    def numeric(self) -> bool:
        """Whether all values are numbers, also where they are written as text."""
        if self.kind == "number":
            return True
        return self.kind == "text" and all(
            re.fullmatch(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", text) for text in self.counts
        )

    @cached_property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return self.numeric and all(re.fullmatch(r"[-+]?\d+(\.0+)?", text) for text in self.counts)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The fields of all rows, in the order in which the rows name them.

    Args:
        rows: Values by field, as `promptsearch.tasks.data` reads them.
    """
    flat = [dict(_flat(row)) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return [_column(name, [row.get(name) for row in flat]) for name in names]


def _flat(row: Mapping[str, Any], before: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping) and value and depth < _DEPTH:
            yield from _flat(value, f"{before}{name}.", depth + 1)
        else:
            yield f"{before}{name}", value


def _column(name: str, values: Sequence[Any]) -> Column:
    kinds = {_kind(value) for value in values if value is not None}
    try:
        if kinds == {"texts"}:
            lists = tuple(None if value is None else _listed(value) for value in values)
            return Column(name, "texts", lists=lists)
        if not kinds or kinds & {"texts", "other"}:
            return Column(name, "other", texts=(None,) * len(values))
        # Numbers beside words are words: `1`, `2` and `many` name three values.
        kind: Kind = next(iter(kinds)) if len(kinds) == 1 else "text"
        return Column(name, kind, tuple(map(_text, values)))
    except FieldError:  # a value without a text: bytes, a list of lists
        return Column(name, "other", texts=(None,) * len(values))


def _kind(value: Any) -> Kind:
    if isinstance(value, (str, ClassNumber)):  # a class is known by its name
        return "text"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, (list, tuple)):
        return "texts" if all(isinstance(each, str) for each in value) else "other"
    if isinstance(value, (datetime.date, datetime.time)):
        return "date"
    return "other" if isinstance(value, Mapping) else "number"


def _words(text: str) -> int:
    """About the number of words of a text, also where no spaces stand between them."""
    return max(len(text.split()), len(_UNSPACED.findall(text)) // _CHARACTERS)


def _listed(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(text_of, values))


def _text(value: Any) -> str | None:
    """The text of a value; None where the row has none, or empty text."""
    if is_missing(value):
        return None
    text = text_of(value)
    return text if text.strip() else None
