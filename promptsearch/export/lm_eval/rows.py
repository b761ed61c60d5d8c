"""Rows of the task folder: the texts of an example's fields, and its right answer.

The answers stand there without the space that the template puts before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptsearch.export.certificate import Certificate
from promptsearch.export.variables import variables
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template

#: The fields of a row beside those of the template.
GOLD, OPTIONS, REFERENCES, ALIASES, GROUP = "gold", "options", "references", "aliases", "group"
OWN = (GOLD, OPTIONS, REFERENCES, ALIASES, GROUP)


def names_of(template: Template) -> dict[str, str]:
    """The field of a row that holds the text of each field of a template.

    Args:
        template: The template.
    """
    return variables(template.fields, OWN)


def row_of(example: Example, template: Template) -> dict[str, Any]:
    """The row of an example.

    Args:
        example: The example.
        template: Its template.
    """
    row: dict[str, Any] = {
        name: example.fields[field] for field, name in names_of(template).items()
    }
    if example.choice is None:
        row[REFERENCES] = [bare(text, template) for text in example.references]
        row[ALIASES] = [bare(text, template) for text in example.aliases]
    else:
        row[GOLD] = example.choice
    if example.options is not None:
        row[OPTIONS] = [bare(text, template) for text in example.options]
    return row | ({GROUP: example.group} if example.group else {})


def bare(text: str, template: Template) -> str:
    """An answer without the space that the template puts before it.

    Args:
        text: The answer, as it stands behind the template.
        template: The template.
    """
    return text.removeprefix(" ") if template.answer_space else text


def example_of(row: Mapping[str, Any], certificate: Certificate, number: int) -> Example:
    """The example of a row: the reverse of `row_of`.

    Args:
        row: The row, as `datasets` reads it.
        certificate: The certificate, which says what the answers are.
        number: The example's place in its split.

    Raises:
        ValueError: A value is of another type than it should be.
    """
    put = certificate.template.answer_text
    names = names_of(certificate.template)
    fields = {field: _text(row.get(name), name) for field, name in names.items()}
    group = _text(row.get(GROUP) or "", GROUP)
    if certificate.text:
        answer, *also = map(put, _list(row.get(REFERENCES), REFERENCES))
        aliases = tuple(map(put, _list(row.get(ALIASES), ALIASES)))
        return Example(number, fields, answer, None, aliases, tuple(also), group=group)
    own = None if certificate.options is None else _list(row.get(OPTIONS), OPTIONS)
    options = None if own is None else tuple(map(put, own))
    place = row.get(GOLD)
    among = options or certificate.choices or ()
    if not isinstance(place, int) or not 0 <= place < len(among):
        raise ValueError(f"the field '{GOLD}' is {place!r}: expected a place among the answers")
    return Example(number, fields, among[place], place, options=options, group=group)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ValueError(f"`datasets` reads the field '{name}' as {kind}: expected text")
    return value


def _list(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not (value or name == ALIASES):
        raise ValueError(f"the field '{name}' is {value!r}: expected a list of texts")
    return [_text(each, name) for each in value]
