"""The one rule by which a value of the data becomes text.

The rule holds for every format of files, for data sets of the Hub, for rows given in Python, for
labels, for the keys of `answers` in a study file, and for inputs of found prompts:

- Text is text as it stands: `007`, `1.50`, `TRUE` and empty text, too. All cells of CSV and TSV
  files are text.
- Whole numbers are their digits. Other numbers have the fewest digits that give the same number,
  and no point where nothing stands behind it: 1.50 is `1.5`, and 1.0 is `1`. Decimal numbers keep
  the digits that they were stored with.
- Booleans are `true` and `false`; dates and times are as ISO 8601 writes them.
- The number of a class, where a data set names its classes, is the name.
- All other values have no text: null, NaN and infinity, lists, mappings and bytes, and also text
  that holds half a character.

A label means the answer whose key is the same text, or else the answer whose key has the same value
in another spelling (`plain_value`): the cells `1.0` and `True` are found under 1 and true.

A field within a mapping is named with a point: `translation.en`. A field whose own name has the
point in it comes first.
"""

from __future__ import annotations

import datetime
import math
import numbers
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from promptsearch.errors import FieldError

#: The limit below which whole numbers are exact as floating-point numbers.
_EXACT = 2**53
#: The number of digits of the longest number that Python turns into text.
_DIGITS = 4300
_LONG = f"is a number of more than {_DIGITS:,} digits: write it as text"
_WANTED = "expected text, a number, a boolean or a date"


class Row(dict[str, Any]):
    """A row of the data: values by field, and the place where they stand.

    Args:
        values: Field name -> value, as the file has it.
        place: Where the row stands, such as `reviews.csv, line 81`.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        super().__init__(values)
        self.place = place


class ClassNumber(int):
    """The number of a class that has a name, as a data set of the Hub stores labels.

    Args:
        number: The number, from 0.
        names: The names of all classes.
    """

    names: tuple[str, ...]

    def __new__(cls, number: int, names: tuple[str, ...]) -> ClassNumber:
        """The number, with the names beside it: an `int` is made here, not in `__init__`."""
        made = super().__new__(cls, number)
        made.names = names
        return made

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.names[self]


def place_of(row: Mapping[str, Any], otherwise: str) -> str:
    """The place where a row stands, or `otherwise` for a row that comes from no file."""
    return row.place if isinstance(row, Row) else otherwise


def text_in(row: Mapping[str, Any], name: str, place: str) -> str:
    """The text of a field.

    Args:
        row: Values by field.
        name: The field.
        place: Where the row stands, for messages.

    Raises:
        FieldError: There is no such field, or its value has no text.
    """
    value = value_in(row, name, place)
    try:
        return text_of(value)
    except FieldError as reason:
        raise FieldError(f"{place}: the field '{name}' {reason}") from reason


def texts_in(row: Mapping[str, Any], name: str, place: str) -> tuple[str, ...]:
    """The texts of a field that holds one, or a list of them.

    Args:
        row: Values by field.
        name: The field.
        place: Where the row stands, for messages.

    Raises:
        FieldError: There is no such field, its value has no text, or its list is empty or holds
            something else than texts.
    """
    values = as_list(value_in(row, name, place))
    if values is None:
        return (text_in(row, name, place),)
    if not values:
        raise FieldError(f"{place}: the field '{name}' is an empty list: expected at least 1 text")
    found = []
    for number, each in enumerate(values, start=1):
        which = f"{place}: number {number} in the list '{name}'"
        if not isinstance(each, str):
            raise FieldError(f"{which} is no text: {shown(repr(each))}")
        try:
            found.append(text_of(each))
        except FieldError as reason:
            raise FieldError(f"{which} {reason}") from reason
    return tuple(found)


def value_in(row: Mapping[str, Any], name: str, place: str) -> Any:
    """The value of a field, or of a field within a field.

    Args:
        row: Values by field.
        name: The field, such as `text` or `translation.en`.
        place: Where the row stands, for messages.

    Raises:
        FieldError: There is no such field.
    """
    if name in row:
        return row[name]
    value: Any = row
    outer = ""
    for part in name.split("."):
        if not isinstance(value, Mapping):
            raise FieldError(f"{place} lacks the field '{name}': '{outer}' holds no fields")
        if part not in value:
            owner = f"'{outer}' has" if outer else "it has"
            raise FieldError(f"{place} lacks the field '{name}'; {owner} {listed(value) or 'none'}")
        value, outer = value[part], f"{outer}.{part}".lstrip(".")
    return value


def as_list(value: Any) -> Sequence[Any] | None:
    """The parts of a list, a tuple or a NumPy array; None for a value that is no list."""
    if isinstance(value, (list, tuple)):
        return value
    return value.tolist() if type(value).__name__ == "ndarray" else None


def is_missing(value: Any) -> bool:
    """Whether a value says that there is none: null, NaN, or what pandas writes instead."""
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, numbers.Real) and value != value


def text_of(value: Any) -> str:
    """The text of a value, by the rule above.

    Raises:
        FieldError: The value has no text; the message goes on behind the value's name.
    """
    if isinstance(value, str):
        return _whole(str.__str__(value))  # also of an enum's member
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_missing(value):
        told = "null" if value is None else "NaN" if isinstance(value, numbers.Number) else value
        raise FieldError(f"has no value ({told}): {_WANTED}")
    if isinstance(value, ClassNumber):
        return _whole(value.name)
    if isinstance(value, int):
        return _digits(int(value))
    if isinstance(value, float):
        return _number(float(value))
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    return _other(value)


def has_other_text(value: Any) -> bool:
    """Whether a value becomes text by the rule, but is none: a number, a boolean, a date."""
    return not isinstance(value, (str, ClassNumber)) and as_list(value) is None


def plain_value(text: str) -> str:
    """The text in the spelling of the rule: `1.0` becomes `1`, `True` and `TRUE` become `true`."""
    if text in ("True", "TRUE", "False", "FALSE"):
        return text.lower()
    return re.sub(r"^(-?[0-9]+)\.0+$", r"\1", text)


def pointed(value: Any) -> bool:
    """Whether a value is a floating-point number that the rule writes without its point."""
    floating = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    return floating and float(value).is_integer()


def repeated(names: Iterable[str]) -> str | None:
    """The first name that stands twice, for a message; None where all differ."""
    return next((shown(name) for name, count in Counter(names).items() if count > 1), None)


def shown(text: str) -> str:
    """A text for a message: a plain word as it stands, others in quotes, at most 60 characters."""
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return short if re.fullmatch(r"[\w.+-]+", short) else repr(short)


def listed(texts: Iterable[Any]) -> str:
    """A list of texts for a message, which shows at most 20 of them."""
    words = [shown(str(text)) for text in texts]
    return ", ".join(words[:20]) + f", ... ({len(words)} in all)" * (len(words) > 20)


def _whole(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise FieldError(
            f"holds half a character ({half}), as text does that was cut within one: "
            "mend it, or leave it out"
        ) from error
    return text


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError as error:  # Python's own limit
        raise FieldError(_LONG) from error


def _number(value: float) -> str:
    if math.isinf(value):
        raise FieldError(f"is an infinite number: {_WANTED}")
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        return _number(math.inf)
    if abs(value.adjusted()) > _DIGITS:
        raise FieldError(_LONG)
    return f"{value:f}"


def _other(value: Any) -> str:
    """The text of a NumPy scalar, the same as for Python's; other values are refused."""
    import numpy as np

    if isinstance(value, np.floating):
        # The fewest digits in the value's own width: 1.1, not 1.10000002384.
        return _number(float(str(value)))
    if isinstance(value, (np.bool_, np.integer)):
        return text_of(value.item())
    if isinstance(value, Mapping):
        raise FieldError(f"is a mapping: {_WANTED}; name a field in it, as FIELD.KEY")
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        raise FieldError(f"is a list: {_WANTED}; join its parts to one text first")
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise FieldError(f"holds bytes: {_WANTED}; decode them to text first")
    raise FieldError(f"is of the kind {type(value).__name__}: {_WANTED}")
