"""A template of messages, rendered through the model's own chat template.

Only the tokenizer's chat template knows what stands between messages. It writes the messages once
with names in place of their contents, and once more with whitespace around the names. What stands
between the names are its marks; whitespace that is gone is whitespace that it strips. From then on
the marks are part of the template: text of the data and of prompts never goes through the chat
template, and special tokens in such text stay plain text. The first special token that it writes
behind an assistant's content ends the turn, and with it a text answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from promptsearch.errors import ModelError, TemplateError
from promptsearch.models import LanguageModel
from promptsearch.models.special_tokens import Special
from promptsearch.scoring.layout import encode, meeting
from promptsearch.tasks.marks import Mark
from promptsearch.tasks.template import Template

#: The word that stands for a message's content; no chat template takes it for anything else.
_NAME = "promptsearch{}content"
#: The whitespace that is put around contents, to see whether the chat template strips it.
_SPACE = " \n "


def render(template: Template, lm: LanguageModel) -> Template:
    """The template with what the model writes around an answer: marks of a chat, and an end token.

    Args:
        template: A template of messages or, where only the end token is missing, of a single text.
        lm: The model.

    Raises:
        ModelError: The model has no chat template.
        TemplateError: The chat template refuses the messages, or does something to them that a
            template cannot hold; or the template does not fit the model's family, see `meeting`.
    """
    template = meeting(template, lm)
    if not template.messages:
        return template if template.behind else replace(template, end_token=_own_end(lm))
    roles = [role for role, _ in template.messages[:-1]]
    plain, wide = _between(roles, lm, ""), _between(roles, lm, _SPACE)
    marks = [
        _mark(one, other, i == 0, i == len(roles))
        for i, (one, other) in enumerate(zip(plain, wide, strict=True))
    ]
    if None in marks:
        raise TemplateError(
            f"the chat template of the model '{lm.name}' changes whitespace around the contents of "
            "messages, but does not strip it: write the task's template as one text"
        )
    rendered = replace(template, marks=tuple(mark for mark in marks if mark is not None))
    _check(template, rendered, lm)
    return replace(rendered, end_token=_end_of_turn(roles, lm) or _own_end(lm))


def _own_end(lm: LanguageModel) -> str:
    """The token with which the model ends a text; empty where it has none."""
    try:
        return lm.special.text_of(lm.end)
    except ModelError:  # only text answers need one, and say so
        return ""


def _end_of_turn(roles: Sequence[str], lm: LanguageModel) -> str:
    """The first special token behind the assistant's content; empty where none is written.

    Args:
        roles: The roles of the messages before.
        lm: The model.
    """
    said = [(role, _NAME.format(i)) for i, role in enumerate([*roles, "assistant"])]
    try:
        text = lm.special.chat(said, go_on=False)
    except TemplateError:  # no assistant may speak last: only the model's own end is known
        return ""
    behind = text.partition(said[-1][1])[2]
    found = (part for part in lm.special.cut(behind) if isinstance(part, Special))
    return next((special.content for special in found), "")


def _between(roles: Sequence[str], lm: LanguageModel, space: str) -> list[str]:
    """The texts that the chat template writes before, between and behind the contents of messages.

    Args:
        roles: The messages' roles.
        lm: The model.
        space: Whitespace to put around each content.

    Raises:
        TemplateError: A content is missing, stands there twice, or stands at another place.
    """
    names = [_NAME.format(i) for i in range(len(roles))]
    text = lm.special.chat(
        [(role, space + name + space) for role, name in zip(roles, names, strict=True)]
    )
    found = re.findall("|".join(map(re.escape, names)), text)
    if found != names:
        wrong = next((i for i, name in enumerate(names) if found.count(name) != 1), None)
        what = "puts the messages into another order"
        if wrong is not None:
            how = "leaves out or changes" if names[wrong] not in found else "repeats"
            what = f"{how} the content of message {wrong + 1}, the {roles[wrong]}'s"
        raise TemplateError(
            f"the chat template of the model '{lm.name}' {what}: "
            "put the text into another message, the user's for instance"
        )
    return re.split("|".join(map(re.escape, names)), text)


def _mark(plain: str, wide: str, first: bool, last: bool) -> Mark | None:
    """The mark for a text between two contents: the text, and which whitespace it strips.

    None where the text changes whitespace in another way than by stripping it.

    Args:
        plain: The text.
        wide: The text with what is left of the whitespace around both contents.
        first: Whether no content stands before it.
        last: Whether no content that the chat template writes stands behind it.
    """
    for before, behind in product((False, True), repeat=2):
        left = "" if first or before else _SPACE
        if wide == left + plain + ("" if last or behind else _SPACE):
            return Mark(plain, before, behind)
    return None


def _check(template: Template, rendered: Template, lm: LanguageModel) -> None:
    """Check that the rendered template gives the ids that the chat template's own text has.

    This is tried with words in all fields and slots.

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
    theirs = list(lm.tokenizer(lm.special.chat(said) + begun, add_special_tokens=False).input_ids)
    ours = encode(lm, rendered.row(fields, slots, answer))
    if ours != theirs:
        raise TemplateError(
            f"the tokenizer of the model '{lm.name}' reads its own chat template in a way that is "
            f"not known here: {lm.decode(theirs)!r} as {theirs}, not as {ours}. "
            "Write the task's template as one text"
        )
