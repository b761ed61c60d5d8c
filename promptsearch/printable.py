"""Text of strangers on a terminal: nothing in it moves the cursor, changes colours or turns the reading direction."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment


def printable(text: str) -> str:
    """Text in which each character that cannot be seen is written as Python writes it, but for line breaks.

    Args:
        text: Anything: labels, prompts, file names, what a server answered.

    Returns:
        The same without control characters, marks of direction and halves of characters.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def printable_json(value: Any, default: Callable[[Any], str] | None = None) -> str:
    """JSON on one line, the same values when it is read again, and safe to look at.

    Args:
        value: What JSON can hold.
        default: The text of what it cannot hold.
    """
    text = json.dumps(value, ensure_ascii=False, default=default)
    # Characters that cannot be seen stand within strings only, where JSON's own escape means the same.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def brief(value: object, limit: int = 80) -> str:
    """A value as a message shows it: its Python form, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**limit:
        return f"a number of more than {limit} digits"
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class Terminal(Console):
    """A rich console that shows no control character but its own, whatever is printed on it."""

    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends alike whoever wrote."""
        raise BrokenPipeError

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Escape all text on its way out; colours and movements that rich itself makes are no text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
