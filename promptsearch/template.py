"""Templates: literal text, fields of the data, prompt slots and the answer.

`"{prompt:2} capital {prompt:1} {name} is {answer}"` has two slots, of two tokens and one. The literal text among
the slots ("capital") are anchors in the sense of P-tuning (Liu et al. 2021, arXiv:2103.10385, section 4.2): real
words that stay fixed beside the pseudo tokens. One literal space before a slot or before the answer belongs to it,
because a token that begins a word carries its space.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from promptsearch.errors import TemplateError

PROMPT, ANSWER = "prompt", "answer"
#: What a template takes: prompts that fill its slots, alone or with changed weights (`tuned`), or one of the kinds that stand
#: apart from the text: a prefix in front of it, vectors that layers read beside it, changed weights.
Kind = Literal["slots", "tuned", "prefix", "gated", "weights"]


@dataclass(frozen=True)
class Slot:
    """A place for a prompt.

    Args:
        length: Its tokens; None until the study's `length` is bound to it.
        space: Whether a literal space stood before it, which a text put here brings back.
    """

    length: int | None
    space: bool


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Args:
        text: As the user wrote it.
        segments: What stands before, between and after the slots: n slots have n + 1 segments. Each is a format
            string with the fields' braces left in.
        slots: In their order.
        answer_space: Whether a literal space stood before `{answer}`.
        kind: Of the prompts that it takes. For all but those of `slots`, the first slot is in front of the whole row, the
            tokenizer's special tokens too: that of `weights` and `tuned` is empty. Below it, `tuned` has the slots of `slots`,
            and those that stand apart from the text have none.
    """

    text: str
    segments: tuple[str, ...]
    slots: tuple[Slot, ...]
    answer_space: bool
    kind: Kind = "slots"

    @staticmethod
    def parse(text: str) -> Template:
        """Read a template.

        Args:
            text: Literal text with `{field}`s, at least one `{prompt}` or `{prompt:3}`, and `{answer}` at the end;
                `{{` and `}}` stand for braces.

        Raises:
            TemplateError: No slot, no answer, text behind the answer, or a field that is no plain name.
        """
        segments, slots, answers, current = [], [], 0, ""
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise TemplateError(f"cannot read the template {text!r}: {error}. A literal brace is written twice.") from error
        space = False
        for literal, name, spec, conversion in parts:
            if answers and (literal or name is not None):
                raise TemplateError(f"the template {text!r} goes on behind {{answer}}: the answer comes last")
            current += _braces(literal)
            if name is None:
                continue
            if conversion or (spec and name != PROMPT) or not name.isidentifier():
                raise TemplateError(f"the template {text!r} has the field {{{name}}}: expected a plain name, like {{text}}")
            if name in (PROMPT, ANSWER):
                space = current.endswith(" ")
                segments.append(current.removesuffix(" "))
                current = ""
            if name == PROMPT:
                slots.append(Slot(_length(spec or "", text), space))
            elif name == ANSWER:
                answers += 1
            else:
                current += f"{{{name}}}"
        if not answers:
            raise TemplateError(f"the template {text!r} has no {{answer}}: put it where the model is to answer, at the end")
        if not slots:
            raise TemplateError(f"the template {text!r} has no slot: put {{prompt}} where prompts belong")
        return Template(text, tuple(segments), tuple(slots), space)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the data's fields that the template uses, each once."""
        return tuple(dict.fromkeys(name for segment in self.segments for name in _fields(segment)))

    @property
    def fixed(self) -> int:
        """How many segments from the left are the same for all inputs; the last one is never counted.

        A prompt stands in front of the input where it is the number of the slots.
        """
        return next((i for i, segment in enumerate(self.segments[:-1]) if _fields(segment)), len(self.slots))

    @property
    def length(self) -> int:
        """Prompt tokens over all slots of a bound template."""
        return sum(slot.length or 0 for slot in self.slots)

    def bind(self, length: int) -> Template:
        """The template with `length` tokens in each slot that does not fix its own."""
        return replace(self, slots=tuple(replace(s, length=length if s.length is None else s.length) for s in self.slots))

    @property
    def apart(self) -> bool:
        """Whether its prompts stand apart from the text."""
        return self.kind not in ("slots", "tuned")

    def taking(self, kind: Kind) -> Template:
        """The template for prompts of a kind; for those apart from the text: one slot in front, then the text of an empty prompt.

        The keys of a prefix belong to a row's first positions, so that nothing can stand before it (PEFT puts it there, too):
        what stood before a slot stands below the prefix. A gated prompt stands nowhere; only the length of its slot counts.
        With changed weights nothing of a row stays the same, so that nothing may stand above their empty slot either: what stands
        above the first slot is computed once and kept. With vectors beside them, the slots follow as they are.

        Args:
            kind: Of the prompts.
        """
        if kind == "slots":
            return self
        slot = Slot(0 if kind in ("weights", "tuned") else self.length, space=False)
        if kind == "tuned":
            return replace(self, segments=("", *self.segments), slots=(slot, *self.slots), kind=kind)
        return replace(self, segments=("", "".join(self.segments)), slots=(slot,), kind=kind)

    def fill(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """The segments with an example's fields in them, one more than there are slots."""
        return tuple(segment.format(**fields) for segment in self.segments)

    def slot_texts(self, texts: Sequence[str]) -> tuple[str, ...]:
        """What a text prompt puts into each slot, with the slot's own space where the text is not empty.

        Args:
            texts: One a slot; missing ones are empty.

        Raises:
            TemplateError: There are more texts than slots.
        """
        if len(texts) > len(self.slots):
            raise TemplateError(
                f"a text prompt has {len(texts)} pieces, but the template {self.text!r} has {len(self.slots)} slots"
            )
        padded = [*texts, *[""] * (len(self.slots) - len(texts))]
        return tuple((" " if slot.space and text else "") + text for slot, text in zip(self.slots, padded, strict=True))

    def answer_text(self, answer: str) -> str:
        """The answer with the space that the template puts before it."""
        return (" " if self.answer_space else "") + answer

    def render(self, fields: Mapping[str, Any], slots: Sequence[str], answer: str) -> str:
        """The whole text.

        Args:
            fields: The example's fields.
            slots: What stands in each slot, spaces included.
            answer: As `answer_text` gives it.
        """
        segments = self.fill(fields)
        return "".join(s + t for s, t in zip(segments, [*slots, answer], strict=True))


def _braces(literal: str) -> str:
    """Literal text as it stands in a format string."""
    return literal.replace("{", "{{").replace("}", "}}")


def _fields(segment: str) -> list[str]:
    """The names of the fields in a segment."""
    return [name for _, name, _, _ in string.Formatter().parse(segment) if name is not None]


def _length(spec: str, text: str) -> int | None:
    if not spec:
        return None
    if not spec.isdecimal() or int(spec) < 1:
        raise TemplateError(f"the template {text!r} has a slot {{prompt:{spec}}}: expected a number of tokens, like {{prompt:3}}")
    return int(spec)
