"""Marks: what a chat template writes before each message, and pieces of rows between them."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from promptsearch.tasks.fields import text_of


class Mark(NamedTuple):
    """What a chat template writes before a message.

    Args:
        text: The text written; special tokens are read as such in it, and nowhere else.
        strips_before: Whether whitespace at the end of the message before is removed.
        strips_behind: Whether whitespace at the beginning of the message behind is removed.
    """

    text: str
    strips_before: bool = False
    strips_behind: bool = False


class Piece(NamedTuple):
    """A run of a row's text.

    Args:
        text: The text, with fields filled in.
        marked: Whether a chat template wrote it, so that special tokens in it are read as such.
    """

    text: str
    marked: bool


def filled(segment: str, fields: Mapping[str, Any], mark: Callable[[str], Mark]) -> list[Piece]:
    """A segment of a template in pieces, with an example's fields filled in.

    Args:
        segment: A format string of the fields, and of numbers for the marks.
        fields: The example's fields.
        mark: Gives the mark of a number.
    """
    found: list[Piece] = []
    run, strips = "", False
    for literal, name, _, _ in string.Formatter().parse(segment):
        run += literal
        if name is None:
            continue
        if not name.isdecimal():
            run += text_of(fields[name])
            continue
        written = mark(name)
        run = run.lstrip() if strips else run
        found += [
            Piece(run.rstrip() if written.strips_before else run, False),
            Piece(written.text, True),
        ]
        run, strips = "", written.strips_behind
    return [*found, Piece(run.lstrip() if strips else run, False)]


def stripped(text: str, above: str, below: str, mark: Callable[[str], Mark]) -> str:
    """What the chat template leaves of a text in a slot, which may begin or end a message.

    Args:
        text: The text.
        above: The segment above the slot.
        below: The segment below it.
        mark: Gives the mark of a number.
    """
    before, behind = re.search(r"{(\d+)}\s*$", above), re.match(r"\s*{(\d+)}", below)
    text = text.lstrip() if before and mark(before[1]).strips_behind else text
    return text.rstrip() if behind and mark(behind[1]).strips_before else text
