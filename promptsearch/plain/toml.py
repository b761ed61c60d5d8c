"""TOML with the line of each key, which Python's own reader does not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from promptsearch.errors import StudyError
from promptsearch.plain.limits import TOO_DEEP, TOO_LARGE, KeyPath

_KEY = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
_TABLE = re.compile(rf"^\s*(\[\[?)\s*({_KEY})\s*\]")
#: A dotted key that is too long for Python's reader, whose time grows with its length squared.
_CHAIN = re.compile(r"(?<![\w-])(?:[\w-]+\s*\.\s*){100}")
_PAIR = re.compile(rf"^\s*({_KEY})\s*=")


def read_toml(text: str, source: str) -> tuple[Any, dict[KeyPath, str]]:
    """Plain values from TOML, and the line of each key that begins a line.

    Args:
        text: A TOML document.
        source: What to call it in messages.

    Returns:
        The values, and where each stands: `("task", "splits") -> "line 7"`.

    Raises:
        StudyError: It is no TOML, is nested too deep, or holds a number that is too large.
    """
    if _CHAIN.search(text):
        raise StudyError(f"{source}: {TOO_DEEP}")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{source}: this is not TOML: {error}") from error
    except RecursionError as error:
        raise StudyError(f"{source}: {TOO_DEEP}") from error
    except ValueError as error:  # Python itself limits the digits of a number
        raise StudyError(f"{source}: {TOO_LARGE}") from error
    return data, {path: f"line {number}" for path, number in _lines(text) if _has(data, path)}


def _lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """The paths of keys that begin a line; inside a text of several lines, one may be no key."""
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _TABLE.match(line):
            table = tuple(header[2].split("."))
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            yield table, number
        elif pair := _PAIR.match(line):
            yield (*table, *pair[1].split(".")), number


def _has(data: Any, path: KeyPath) -> bool:
    for key in path:
        places = (
            range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        )
        if key not in places:
            return False
        data = data[key]
    return True
