"""What a study file may hold at most, in whatever form it is written.

No study that anyone means to run is near these limits. What lies beyond them is a slip of the
keyboard or an attempt to fill the memory, and is refused before it costs time or memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from promptsearch.errors import StudyError

#: The most characters in a study file, and in a value on the command line.
CHARACTERS = 262_144
#: The most values in a study: keys, texts, numbers, lists and mappings. What an alias names counts
#: each time that the alias stands there.
VALUES = 10_000
#: The most levels of lists and mappings within each other.
DEPTH = 20
#: The most digits of a whole number.
DIGITS = 100

#: The way from the top of a document to a value: keys of mappings and places in lists.
KeyPath = tuple[Hashable, ...]

TOO_LONG = (
    f"it is longer than the {CHARACTERS:,} characters that a study may have: "
    "put prompts and words into files"
)
TOO_MANY = (
    f"a study may have {VALUES:,} values at most, aliases counted as what they name: "
    "put long lists into files"
)
TOO_DEEP = f"lists and mappings stand within each other at most {DEPTH} deep"
TOO_LARGE = (
    f"a whole number may have {DIGITS} digits at most; a text of digits needs quotes around it"
)


def check_plain(data: Any, where: Callable[[KeyPath], str]) -> None:
    """Refuse plain values beyond the limits.

    Values of other types pass: whoever knows these types checks them.

    Args:
        data: Mappings, lists and single values.
        where: Gives the name that messages use for the value at a path of keys.

    Raises:
        StudyError: The values are too many, too deep or too large, or a text holds half a
            character or a NUL character.
    """
    count = 0
    waiting: list[tuple[KeyPath, Any]] = [((), data)]
    while waiting:
        path, value = waiting.pop()
        count += 1
        if count + len(waiting) > VALUES:
            raise StudyError(f"{where(path[:1])}: {TOO_MANY}")
        if len(path) > DEPTH:
            raise StudyError(f"{where(path)}: {TOO_DEEP}")
        if isinstance(value, int) and abs(value) >= 10**DIGITS:
            raise StudyError(f"{where(path)}: {TOO_LARGE}")
        if isinstance(value, str):
            _check_text(value, path, where)
        elif isinstance(value, Mapping):
            if len(value) > VALUES:
                raise StudyError(f"{where(path)}: {TOO_MANY}")
            waiting += [((*path, key), each) for key, each in value.items()]
        elif isinstance(value, (list, tuple)):
            if len(value) > VALUES:
                raise StudyError(f"{where(path)}: {TOO_MANY}")
            waiting += [((*path, place), each) for place, each in enumerate(value)]


def _check_text(text: str, path: KeyPath, where: Callable[[KeyPath], str]) -> None:
    if len(text) > CHARACTERS:
        raise StudyError(f"{where(path)}: {TOO_LONG}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise StudyError(
            f"{where(path)}: the text holds half a character (a lone surrogate), "
            "which no file can hold"
        )
    if "\0" in text:
        raise StudyError(f"{where(path)}: the text holds a NUL character")
