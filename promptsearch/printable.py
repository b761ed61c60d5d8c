"""Text of strangers, made safe for a terminal.

Nothing in it moves the cursor, changes colours or turns the reading direction.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment


def printable(text: str) -> str:
    """The text with each character that cannot be seen, line breaks excepted, escaped as in Python.

    Args:
        text: Any text: labels, prompts, file names, the answer of a server.

    Returns:
        The same text without control characters, marks of direction and halves of characters.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def printable_json(value: Any, default: Callable[[Any], str] | None = None) -> str:
    """JSON on one line, which is safe to look at and holds the same values when it is read again.

    Args:
        value: A value that JSON can hold; a number that is not finite becomes null, one of numpy's
            the number that it is.
        default: A function from a value that JSON cannot hold to its text.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, default=default)
    # Characters that cannot be seen stand only within strings, where JSON's escapes mean the same.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _plain(value: Any) -> Any:
    """The same value without numbers that JSON does not know."""
    numpy = sys.modules.get("numpy")  # without it there are none of its numbers
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def cut(text: str, limit: int) -> str:
    """A text for a message, cut to `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def brief(value: object, limit: int = 80) -> str:
    """A value for a message: its Python form, cut to `limit` characters."""
    if isinstance(value, int) and abs(value) >= 10**limit:
        return f"a number of more than {limit} digits"
    return cut(re.sub(r"\s+", " ", repr(value)), limit)


def open_streams() -> None:
    """Let standard output and error take whatever is printed, however they were opened.

    What their encoding lacks is escaped as in JSON, which so stays JSON. What a caller has closed
    leads nowhere.
    """
    codecs.register_error("json", _escaped)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What stands in the place of characters that an encoding lacks, and where text goes on."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


class Terminal(Console):
    """A rich console that shows no control character but its own, whatever is printed on it."""

    def on_broken_pipe(self) -> None:
        """Leave the error to the command line, which ends in the same way whoever wrote."""
        raise BrokenPipeError

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Escape all text on its way out; the colours and movements that rich makes are no text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
