"""Records that say whether they are whole: JSON with a checksum as its last key.

Documents have a format, too. The checksum is over the content as JSON without spaces: a file may be
indented anew, but must otherwise say what it said when it was written. It finds damage, not malice:
whoever can write a file can write its checksum.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import RecordError
from promptsearch.files import read, shown, write_json
from promptsearch.plain.json import parse_json

CHECKSUM = "checksum"
#: Kind of document -> its version, which goes up when what it holds changes; of others it is 1.
_VERSIONS = {"study": 2, "result": 2}


def checksum(data: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of JSON values.

    Raises:
        ValueError: A number among them is not finite.
    """
    return _digest(json.dumps(data, separators=(",", ":"), allow_nan=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same data with their checksum."""
    return {**data, CHECKSUM: checksum(data)}


def sealed_line(data: Mapping[str, Any]) -> bytes:
    """A line of a log: the data and their checksum.

    Raises:
        ValueError: A number among them is not finite.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return f'{text[:-1]},"{CHECKSUM}":"{_digest(text)}"}}\n'.encode()


def unseal(data: Any) -> dict[str, Any]:
    """The data without their checksum.

    Raises:
        ValueError: They are no object, or not what the checksum was made of.
    """
    if not isinstance(data, dict):
        raise ValueError(f"expected a JSON object, got {type(data).__name__}")
    content = {key: value for key, value in data.items() if key != CHECKSUM}
    if CHECKSUM not in data:
        raise ValueError("its checksum is missing")
    if data[CHECKSUM] != checksum(content):
        raise ValueError("its checksum says that it was changed")
    return content


def write_record(path: Path, kind: str, data: Mapping[str, Any]) -> None:
    """Write a document, never half.

    Args:
        path: The file.
        kind: The document's kind: `study`, `run`, `result`, `pool` or `prompt`.
        data: JSON values.

    Raises:
        RecordError: A number among them is not finite, so that nobody could read it back.
        FileError: The file cannot be written.
    """
    try:
        # As they will be read back: keys are strings, tuples are lists.
        data = json.loads(json.dumps({"format": _format(kind), **data}, allow_nan=False))
    except ValueError as error:
        raise RecordError(
            f"{shown(path)} would hold a number that is not finite: it was not written"
        ) from error
    write_json(path, seal(data))


def as_read(data: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are read back from a file: keys are strings, tuples are lists."""
    found: dict[str, Any] = json.loads(json.dumps(data))
    return found


def read_record(path: Path, kind: str, remedy: str) -> dict[str, Any]:
    """Read a document that `write_record` wrote.

    Args:
        path: The file.
        kind: The document's kind.
        remedy: What to do where it is damaged: the one next step.

    Returns:
        The data, format and checksum left out.

    Raises:
        RecordError: It is damaged, or was written by another version.
        FileError: The file cannot be read.
    """
    try:
        found = parse_json(read(path))
        if isinstance(found, dict) and _other_version(found, kind):
            raise RecordError(
                f"{shown(path)} was written by another version of promptsearch (its format is "
                f"{str(found.get('format'))[:60]!r}, this version reads {_format(kind)!r}): use "
                "that version for this folder, or run the study again into a new one with --out"
            )
        content = unseal(found)
    except ValueError as error:
        raise damaged(path, str(error), remedy) from error
    content.pop("format", None)
    return content


def damaged(path: Path, what: str, remedy: str) -> RecordError:
    """The error that says that a record is not to be believed."""
    return RecordError(f"{shown(path)} is damaged ({what}): {remedy}")


def _format(kind: str) -> str:
    return f"promptsearch-{kind}-{_VERSIONS.get(kind, 1)}"


def _other_version(data: Mapping[str, Any], kind: str) -> bool:
    """Whether data are whole as far as can be told, but of another version.

    Documents of early versions had neither format nor checksum.
    """
    named = data.get("format")
    if named is None:
        return CHECKSUM not in data
    return (
        named != _format(kind) and re.fullmatch(rf"promptsearch-{kind}-\d+", str(named)) is not None
    )
