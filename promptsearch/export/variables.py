"""Texts with variables in double braces, as other tools write prompts: `{{ name }}`.

Tools agree on the braces, and on nothing else: some have an escape for a text's own double braces,
some fill them in twice. So a text with double braces of its own is refused where a tool would take
them for a variable.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from promptsearch.errors import ExportError
from promptsearch.printable import brief

#: Names that mean something else in one of the tools' languages.
_RESERVED = frozenset(
    ("and", "caller", "context", "else", "env", "false", "if", "in", "is", "loop", "none", "not")
    + ("null", "or", "range", "self", "super", "true", "undefined", "varargs", "kwargs")
)
#: What begins something in Jinja, Nunjucks or MLflow's templates.
_MARKS = ("{{", "{%", "{#")
_VARIABLE = re.compile(r"\{\{ (\w+) \}\}")


def variables(fields: Iterable[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """A name for each field that every tool reads as a plain name, mostly the field's own.

    Args:
        fields: The names of fields, which may hold dots and letters of any alphabet.
        taken: Names that stand for something else.
    """
    names: dict[str, str] = {}
    for field in fields:
        name = re.sub(r"\W", "_", field, flags=re.ASCII)
        while name.lower() in _RESERVED or name in taken or name in names.values():
            name += "_"
        names[field] = name
    return names


def winner_name(about: Mapping[str, Any]) -> str:
    """A name for a winner that every tool takes: of its task and its label in the study.

    Args:
        about: What the certificate says of it.
    """
    parts = [str(about[key]) for key in ("task", "label") if about.get(key)] or ["prompt"]
    return re.sub(r"\W", "_", "_".join(parts), flags=re.ASCII)


def pieces(whole: str) -> Iterator[tuple[str, str | None]]:
    """The literal texts of a format string, each with the field behind it; None behind the last.

    Args:
        whole: A text with `{field}`s in it and other braces doubled.
    """
    text = ""
    for literal, name, _, _ in string.Formatter().parse(whole):
        text += literal
        if name is not None:
            yield text, name
            text = ""
    yield text, None


def with_variables(whole: str, names: Mapping[str, str], tool: str) -> str:
    """A text with `{{ name }}` in the place of each field.

    Args:
        whole: A text with `{field}`s in it and other braces doubled.
        names: The name of each field's variable.
        tool: The tool that reads it, for the message.

    Raises:
        ExportError: The text itself holds what the tool would take for something else.
    """
    written = ""
    for literal, field in pieces(whole):
        mark = next((mark for mark in _MARKS if mark in literal), None)
        if mark is None and field is not None and literal.endswith("{"):
            mark = "{"
        if mark is not None:
            raise ExportError(
                f"the text {brief(literal)} holds {mark!r}, which {tool} would take for the "
                "beginning of a variable: export it as text or lm-eval"
            )
        written += literal + ("" if field is None else f"{{{{ {names[field]} }}}}")
    return written


def fill_variables(text: str, fields: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A text with fields in the places of its variables.

    Args:
        text: What `with_variables` gives.
        fields: The fields.
        names: The name of each field's variable.

    Raises:
        ValueError: A variable stands for no field.
    """
    values = {names[field]: str(value) for field, value in fields.items() if field in names}

    def put(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ValueError(
                f"{match[0][:40]!r} is the place of no field; the probe has {', '.join(values)}"
            )
        return values[match[1]]

    return _VARIABLE.sub(put, text)
