"""Pages of HTML: each from its template, with the style that all share, in one file."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from promptsearch.printable import printable


def page_of(name: str, **names: Any) -> Template:
    """A page, to be rendered.

    Args:
        name: The name of its template in this folder.
        names: What the template may use besides what it is rendered with.
    """
    # Prompts and errors may be hostile text: everything is escaped, except for the figures, whose
    # text matplotlib escapes, and for our own style.
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(names, style=Markup(_text("style.css")))  # noqa: S704 - our own
    return environment.from_string(_text(name))


def _text(name: str) -> str:
    return files("promptsearch.report").joinpath(name).read_text(encoding="utf-8")


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
