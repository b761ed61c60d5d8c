"""Text in Markdown: no prompt, label or error can be read as a sign of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from promptsearch.report.notation import visible


def table_lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, whose heads and cells are Markdown already."""
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def escape(text: str, limit: int | None = 2000) -> str:
    """The text with every character escaped that Markdown could read as a sign of its own.

    A `_` inside a word is none.

    Args:
        text: Any text.
        limit: The most characters shown, see `visible`.

    Returns:
        One line.
    """
    shown = visible(text, limit)
    return re.sub(r"([\\`*{}\[\]<>|~#$&!]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", shown)


def code(text: str, *, in_table: bool = False) -> str:
    """The text as a piece of code that neither a backtick nor, in a table, a pipe can end.

    Args:
        text: Any text.
        in_table: Whether it stands in a table's cell.

    Returns:
        One line; `*(empty)*` for no text.
    """
    shown = visible(text)
    if not shown:
        return "*(empty)*"
    if not set(shown) & set("`|\\" if in_table else "`"):
        return f"`{shown}`"
    # In HTML, references stand for characters before anything else is read, so a pipe ends no cell.
    return (
        "<code>"
        + re.sub(r"[!-/:-@\[-`{-~]", lambda mark: f"&#{ord(mark.group())};", shown)
        + "</code>"
    )
