"""What a study and its workers say to each other: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import IO, Any

from promptsearch import errors
from promptsearch.errors import FileError, ModelError, PromptSearchError, Tampered
from promptsearch.plain.json import parse_json


@dataclass(frozen=True)
class Order:
    """What a worker is told at its start.

    Args:
        settings: The study, as `study.json` holds settings.
        home: What relative paths of the study are relative to.
        folder: The study's folder.
        threads: The threads of the process.
        memory: Bytes for keys and values.
        path: Where modules are looked up.
        guest: Whether it works on another machine: `path` stands behind what it looks up by
            itself there, and its places go when it ends.
    """

    settings: dict[str, Any]
    home: str
    folder: str
    threads: int
    memory: int
    path: list[str]
    guest: bool = False


def send(stream: IO[str], kind: str, content: Any) -> None:
    """Say one thing.

    Args:
        stream: The pipe to the other side.
        kind: What it is: `order`, `cell`, `ready`, `progress`, `log`, `ended`.
        content: JSON values.
    """
    stream.write(json.dumps([kind, content]) + "\n")
    stream.flush()


def heard(line: str) -> tuple[str, Any]:
    """What the other side said: its kind and content.

    Args:
        line: The line that it said it in.

    Raises:
        ValueError: It is no such line, as where whoever wrote it was killed on the way.
    """
    said = parse_json(line)
    if not isinstance(said, list) or len(said) != 2:
        raise ValueError("expected a kind and a content")
    return str(said[0]), said[1]


def told_end(error: PromptSearchError | None = None, held: object = None) -> dict[str, Any]:
    """The end of a cell, or of a worker that could make none, as it is told.

    Args:
        error: What it failed with; None where it did not.
        held: Who makes the cell instead; None where nobody does.
    """
    return {
        "error": None if error is None else told_error(error),
        "held": None if held is None else str(held),
    }


def told_error(error: PromptSearchError) -> dict[str, Any]:
    """An error as a worker tells it."""
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "everywhere": isinstance(error, FileError) and error.everywhere,
        "mended": not isinstance(error, Tampered) or error.mended,
    }


def made_error(told: dict[str, Any]) -> PromptSearchError:
    """The error that a worker told."""
    kind = getattr(errors, told["kind"], ModelError)
    if kind is FileError:
        return FileError(told["message"], told["everywhere"])
    if kind is Tampered:
        return Tampered(told["message"], mended=told["mended"])
    made = kind.__new__(kind)  # what else a class of ours takes is in its message
    Exception.__init__(made, told["message"])
    return made  # type: ignore[no-any-return]
