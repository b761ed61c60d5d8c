"""The notation of templates: what the text of a template, or its messages, say.

The parser leaves format strings of the data's fields alone, split at the slots.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from promptsearch.errors import TemplateError, UnknownName
from promptsearch.printable import brief

#: Literal text, and the name, the format and the conversion in the braces behind it, if any.
Part: TypeAlias = tuple[str, str | None, str | None, str | None]
#: The names in braces that stand for a slot and for the answer.
PROMPT, ANSWER = "prompt", "answer"
#: `{answer:pll}`: a masked model reads the tokens of an answer one by one, the others in place.
ONE_BY_ONE = "pll"
#: The roles of those who speak in a chat.
ROLES = ("system", "user", "assistant")
#: The most slots of a template, and the most tokens of a slot: far more than a prompt needs.
MOST_SLOTS, LONGEST_PROMPT = 64, 10_000


@dataclass(frozen=True)
class Slot:
    """A place for a prompt.

    Args:
        length: Its number of tokens; None until the study's `length` is bound to it.
        space: Whether a literal space stood before it, which returns with a text put here.
    """

    length: int | None
    space: bool

    @property
    def notation(self) -> str:
        """The slot as a template writes it, with its space."""
        length = "" if self.length is None else f":{self.length}"
        return self.holding(f"{{{PROMPT}{length}}}")

    def holding(self, text: str) -> str:
        """A text as it stands in this slot: after the slot's space, unless it is empty."""
        return f" {text}" if self.space and text else text

    def held(self, standing: str) -> str:
        """The text of which this stands in this slot: reverses `holding`."""
        return standing.removeprefix(" ") if self.space else standing


class Parsed(NamedTuple):
    """A template as it was written; the fields are those of `Template`."""

    text: str
    segments: tuple[str, ...]
    slots: tuple[Slot, ...]
    answer_space: bool
    end: str
    messages: tuple[tuple[str, str], ...]
    behind: tuple[str, ...] = ()
    one_by_one: bool = False


def parse_template(source: str | Sequence[Mapping[str, str]]) -> Parsed:
    """Read a template, see `Template.parse`.

    Args:
        source: Its text, or its messages.

    Raises:
        TemplateError: It is not of the form that is expected.
    """
    messages: list[tuple[str, str]] = []
    parts: list[Part] = []
    if isinstance(source, str):
        text = source
        parts = _parts(source, f"the template {brief(text, 200)}")
    else:
        messages = _messages(source)
        text = "\n".join(f"{role}: {content}" for role, content in messages)
        for number, (_, content) in enumerate(messages):
            parts += [("", str(number), "", None), *_parts_of(content, number + 1)]
    segments: list[str] = []
    behind: list[str] = []  # the segments behind the answer
    slots, current, shown = [], "", brief(text, 200)
    end: str | None = None  # the text behind the answer, once that was met
    space = one_by_one = False
    for literal, name, spec, conversion in parts:
        current += braces(literal)
        if end is not None:
            end += literal
        if name is None:
            continue
        if messages and end is not None:
            raise TemplateError(
                f"the template {shown} goes on behind {{answer}}: in messages the answer comes "
                "last, and only the text that ends it may follow, without fields, slots or messages"
            )
        if messages and name.isdecimal():  # a mark's, since a message has no number
            current += f"{{{name}}}"
            continue
        if conversion or (spec and name not in (PROMPT, ANSWER)) or not _names(name):
            raise TemplateError(
                f"the template {shown} has the field {{{name}}}: "
                "expected a plain name, like {text}, or one within a field, like {translation.en}"
            )
        if name == ANSWER:
            one_by_one = _one_by_one(spec or "", end is not None, shown)
            space, end = current.endswith(" "), ""
            segments.append(current.removesuffix(" "))
            current = ""
        elif name == PROMPT:
            slots.append(Slot(_length(spec or "", text), current.endswith(" ")))
            (segments if end is None else behind).append(current.removesuffix(" "))
            current = ""
        else:
            current += f"{{{name}}}"
    if end is None:
        raise TemplateError(
            f"the template {shown} has no {{answer}}: "
            "put it where the model is to answer, at the end"
        )
    if behind or data_fields(current):  # more than an end stands behind the answer
        behind, end = [*behind, current], ""
    if end and not end.strip(" "):
        raise TemplateError(
            f"the template {shown} goes on with spaces behind {{answer}}: the text there ends the "
            "answer, which would end with its first word. Take them out, or end it with a newline"
        )
    if not slots:
        raise TemplateError(
            f"the template {shown} has no slot: put {{prompt}} where prompts belong"
        )
    if len(slots) > MOST_SLOTS:
        raise TemplateError(
            f"the template {brief(text)} has {len(slots):,} slots: expected at most {MOST_SLOTS}"
        )
    return Parsed(
        text, tuple(segments), tuple(slots), space, end, tuple(messages), tuple(behind), one_by_one
    )


def _parts(text: str, what: str) -> list[Part]:
    """The parts of a text.

    Args:
        text: The text.
        what: The words for it in a message.

    Raises:
        TemplateError: Its braces are not closed.
    """
    try:
        return list(string.Formatter().parse(text))
    except ValueError as error:
        raise TemplateError(
            f"cannot read {what}: {error}. A literal brace is written twice."
        ) from error


def _parts_of(content: str, number: int) -> list[Part]:
    """The parts of a message, read by itself: no other message closes its braces.

    Raises:
        TemplateError: It cannot be read, or has a number in braces, which stands for a mark.
    """
    parts = _parts(content, f"message {number} of the template, {brief(content, 200)}")
    for _, name, _, _ in parts:
        if name is not None and name.isdecimal():
            raise TemplateError(
                f"message {number} of the template has the field {{{name}}}: expected a plain name"
            )
    return parts


def _messages(source: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """The role and the content of each message.

    Raises:
        TemplateError: A message is not of the form `{role: content}`, or the last one is not the
            assistant's.
    """
    found: list[tuple[str, str]] = []
    for number, message in enumerate(source, start=1):
        if (
            not isinstance(message, Mapping)
            or len(message) != 1
            or not isinstance(content := next(iter(message.values())), str)
        ):
            raise TemplateError(
                f"message {number} of the template is {message!r}: expected {{ROLE: TEXT}}"
            )
        (role,) = message
        if role not in ROLES:
            raise TemplateError(
                f"message {number} of the template: {UnknownName('role', str(role), ROLES)}"
            )
        found.append((role, content))
    if len(found) < 2 or found[-1][0] != "assistant":
        raise TemplateError(
            "a template of messages ends with the assistant's, behind at least one other: expected "
            "assistant: '{answer}' at its end, "
            f"got {', '.join(role for role, _ in found) or 'no message'}"
        )
    return found


def _names(name: str) -> bool:
    """Whether a name in braces can be that of a field, or of one within a field."""
    return all(part.isidentifier() for part in name.split("."))


def _one_by_one(spec: str, again: bool, shown: str) -> bool:
    """What `{answer}` or `{answer:pll}` says.

    Raises:
        TemplateError: Something else stands there, or it stands there twice.
    """
    if again:
        raise TemplateError(f"the template {shown} has {{answer}} twice: expected it once")
    if spec not in ("", ONE_BY_ONE):
        raise TemplateError(
            f"the template {shown} has {{answer:{spec[:20]}}}: expected {{answer}}, or "
            f"{{answer:{ONE_BY_ONE}}}, with which a masked model reads its tokens one by one"
        )
    return spec == ONE_BY_ONE


def _length(spec: str, text: str) -> int | None:
    """The number in `{prompt:3}`; None in `{prompt}`."""
    if not spec:
        return None
    if not spec.isdecimal() or len(spec) > 9 or not 1 <= int(spec) <= LONGEST_PROMPT:
        raise TemplateError(
            f"the template {brief(text)} has a slot {{prompt:{spec[:20]}}}: "
            f"expected a number of tokens, like {{prompt:3}}, at most {LONGEST_PROMPT:,}"
        )
    return int(spec)


def braces(literal: str) -> str:
    """Literal text as it stands in a format string, with its braces doubled."""
    return literal.replace("{", "{{").replace("}", "}}")


def data_fields(segment: str) -> list[str]:
    """The names of the data's fields in a segment, the numbers of marks left out."""
    names = (name for _, name, _, _ in string.Formatter().parse(segment))
    return [name for name in names if name is not None and not name.isdecimal()]
