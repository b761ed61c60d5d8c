"""Pages of HTML: each from its template, with the style that all share, in one file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from promptsearch.printable import printable


def page_of(name: str, **names: Any) -> Template:
    """A page, to be rendered.

    Args:
        name: The name of its template in this folder.
        names: What the template may use besides what it is rendered with.
    """
    return _environment().get_template(name, globals=names)


@cache
def _environment() -> Environment:
    """What makes the pages; it keeps their templates, which take a fifth of a second to compile."""
    # Prompts and errors may be hostile text: everything is escaped, except for the figures, whose
    # text matplotlib escapes, and for our own style.
    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = Markup(_text("style.css"))  # noqa: S704 - our own
    return environment


def _text(name: str) -> str:
    return files("promptsearch.report").joinpath(name).read_text(encoding="utf-8")


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
