"""A template of messages, through the model's own chat template.

The tokenizer's chat template is the only one that knows what stands between messages. It writes them once, with names in place
of their contents, and once more with whitespace around the names: what stands between the names are its marks, and whitespace
that is gone is whitespace that it strips. From then on the marks are part of the template: text of the data and of prompts
never goes through the chat template, and special tokens in it stay plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from promptsearch.errors import TemplateError
from promptsearch.models import LanguageModel
from promptsearch.scoring.layout import encode
from promptsearch.tasks.template import Mark, Template

#: Stands for a message's content: a word that no chat template takes for anything else.
_NAME = "promptsearch{}content"
_SPACE = " \n "


def render(template: Template, lm: LanguageModel) -> Template:
    """The template with what the model's chat template writes between its messages; one of a single text as it is.

    Args:
        template: Of messages, or not.
        lm: The model.

    Raises:
        ModelError: The model has no chat template.
        TemplateError: The chat template refuses the messages, or does something to them that a template cannot hold.
    """
    if not template.messages:
        return template
    roles = [role for role, _ in template.messages[:-1]]
    plain, wide = _between(roles, lm, ""), _between(roles, lm, _SPACE)
    marks = [
        _mark(one, other, i == 0, i == len(roles))
        for i, (one, other) in enumerate(zip(plain, wide, strict=True))
    ]
    if None in marks:
        raise TemplateError(
            f"the chat template of the model '{lm.name}' changes whitespace around the contents of messages, but does not strip "
            "it: write the task's template as one text"
        )
    rendered = replace(template, marks=tuple(mark for mark in marks if mark is not None))
    _check(template, rendered, lm)
    return rendered


def _between(roles: Sequence[str], lm: LanguageModel, space: str) -> list[str]:
    """What the chat template writes before, between and behind the contents of messages.

    Raises:
        TemplateError: A content is missing, is there twice, or at another place.
    """
    names = [_NAME.format(i) for i in range(len(roles))]
    text = lm.chat([(role, space + name + space) for role, name in zip(roles, names, strict=True)])
    found = re.findall("|".join(map(re.escape, names)), text)
    if found != names:
        wrong = next((i for i, name in enumerate(names) if found.count(name) != 1), None)
        what = "puts the messages into another order"
        if wrong is not None:
            how = "leaves out or changes" if names[wrong] not in found else "repeats"
            what = f"{how} the content of message {wrong + 1}, the {roles[wrong]}'s"
        raise TemplateError(
            f"the chat template of the model '{lm.name}' {what}: put the text into another message, the user's for instance"
        )
    return re.split("|".join(map(re.escape, names)), text)


def _mark(plain: str, wide: str, first: bool, last: bool) -> Mark | None:
    """A text between two contents, and what it does to them.

    Args:
        plain: The text.
        wide: The text with what is left of the whitespace around both contents.
        first: Whether no content is before it.
        last: Whether no content of the chat template's is behind it.
    """
    for before, behind in product((False, True), repeat=2):
        left = "" if first or before else _SPACE
        if wide == left + plain + ("" if last or behind else _SPACE):
            return Mark(plain, before, behind)
    return None


def _check(template: Template, rendered: Template, lm: LanguageModel) -> None:
    """See that words in all fields and slots give the ids that the tokenizer gives the chat template's own text.

    Raises:
        TemplateError: They do not.
    """
    fields, slots, answer = (
        dict.fromkeys(template.fields, "one"),
        ["two"] * len(template.slots),
        template.answer_text("three"),
    )
    slots = [" " * slot.space + text for slot, text in zip(template.slots, slots, strict=True)]
    *said, (_, begun) = template.contents(fields, slots, answer)
    theirs = list(lm.tokenizer(lm.chat(said) + begun, add_special_tokens=False).input_ids)
    ours = encode(lm, rendered.row(fields, slots, answer))
    if ours != theirs:
        raise TemplateError(
            f"the tokenizer of the model '{lm.name}' reads its own chat template in a way that is not known here: "
            f"{lm.decode(theirs)!r} as {theirs}, not as {ours}. Write the task's template as one text"
        )
