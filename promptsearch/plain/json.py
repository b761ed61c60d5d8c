"""JSON within limits: no key twice, only finite numbers, no deeper nesting than people write."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

from promptsearch.errors import StudyError
from promptsearch.plain.limits import DIGITS, TOO_DEEP, TOO_LARGE

#: The most levels of lists and objects within one another.
DEPTH = 100
_STEP = {ord(mark): 1 if mark in "[{" else -1 for mark in "[]{}"}
_OTHER = bytes(set(range(256)) - {*_STEP, ord('"')})


class Twice(ValueError):
    """A key stands twice in one object.

    Args:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} stands there twice")
        self.key = key


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some pairs, as an `object_pairs_hook`.

    Raises:
        Twice: A key stands there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Twice(next(key for key in found if sum(key == other for other, _ in pairs) > 1))
    return found


def parse_json(content: bytes | str) -> Any:
    """Read JSON.

    Args:
        content: Bytes in UTF-8, or text.

    Raises:
        ValueError: It is no JSON, is nested deeper than `DEPTH`, gives a key twice, or holds a
            number that is not finite or takes more than 64 bits.
    """
    if too_deep(content):
        raise ValueError(f"nested deeper than {DEPTH} levels")
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    return json.loads(
        text,
        parse_constant=_refuse,
        parse_float=_float,
        parse_int=_int,
        object_pairs_hook=once,
    )


def read_json(text: str, source: str) -> Any:
    """Plain values from a study in JSON, whose whole numbers may have as many digits as in YAML.

    Args:
        text: A JSON document.
        source: What to call it in messages.

    Raises:
        StudyError: It is no JSON, is nested too deep, gives a key twice, or holds a number that is
            not finite or too large.
    """
    if too_deep(text):
        raise StudyError(f"{source}: {TOO_DEEP}")
    try:
        return json.loads(
            text,
            parse_constant=_refuse,
            parse_float=_float,
            parse_int=_digits,
            object_pairs_hook=once,
        )
    except json.JSONDecodeError as error:
        raise StudyError(f"{source}, line {error.lineno}: this is not JSON: {error.msg}") from error
    except ValueError as error:
        raise StudyError(f"{source}: {error}") from error


def too_deep(content: bytes | str) -> bool:
    """Whether JSON is nested deeper than `DEPTH`, told without reading it.

    A reader that goes down until Python's own limit ends it leaves no room for whatever else runs
    at that moment, such as the collector of garbage.

    Args:
        content: Bytes, or text, which may be no JSON at all.
    """
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    # Nothing but brackets and quotation marks matters, and no bracket within a text.
    marks = re.sub(rb"\\.", b"", raw, flags=re.DOTALL).translate(None, _OTHER)
    steps = map(_STEP.get, re.sub(rb'"[^"]*"?', b"", marks))
    return max(accumulate(step or 0 for step in steps), default=0) > DEPTH


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _int(digits: str) -> int:
    number = int(digits) if len(digits) < 21 else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"the number {digits[:20]}... takes more than 64 bits")
    return number


def _digits(digits: str) -> int:
    if len(digits) > DIGITS + 1:  # with a sign
        raise ValueError(TOO_LARGE)
    return int(digits)
