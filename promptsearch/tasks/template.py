"""Templates: literal text, fields of the data, prompt slots and the answer.

`"{prompt:2} capital {prompt:1} {name} is {answer}"` has two slots, the first of two tokens and the
second of one. The literal text among the slots ("capital") is an anchor in the sense of P-tuning
(Liu et al. 2021, arXiv:2103.10385, section 4.2): real words that stay fixed beside the pseudo
tokens. One literal space before a slot or before the answer belongs to it, because a token that
begins a word carries its space. Literal text behind `{answer}`, such as a newline, ends a text
answer; without it, the model's own end token does.

A masked model reads text behind the answer, too: there `{answer}` may stand anywhere, with fields
and slots behind it, and an answer has no end. Its tokens are predicted together, with a mask token
in place of each, and their log-probabilities are summed. With `{answer:pll}` each is predicted
alone, the others in place: the pseudo-log-likelihood of Salazar et al. 2020, arXiv:1910.14659,
eq. 1, of the answer's tokens.

For chat models a template is a list of messages,
`[{"system": "{prompt}"}, {"user": "{text}"}, {"assistant": "It was{answer}"}]`. The text between
the messages is up to the model: its tokenizer's chat template writes it, see
`promptsearch.scoring.chat_template`.

Most prompts fill the slots. Others stand *apart* from the text: a prefix stands in front of it,
gated vectors are read beside it by the layers, and changed weights stand nowhere. For those the
template is rewritten with a single slot in front of the whole row, see `Template.taking`. A *mark*
is what a chat template writes before a message.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from promptsearch.errors import TemplateError
from promptsearch.tasks.marks import Mark, Piece, filled, stripped
from promptsearch.tasks.notation import ANSWER, Slot, braces, data_fields, parse_template
from promptsearch.tasks.placement import PLACEMENTS, Kind

#: What stands in a slot, or for the answer.
Content = TypeVar("Content")


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Args:
        text: The template as the user wrote it; messages with a line each.
        segments: The text before the answer: before, between and after the slots there, one more
            than there are slots. Each is a format string with the fields' braces left in, and
            `{0}`, `{1}`, ... for the marks before the messages.
        slots: The slots, in their order, those behind the answer at the end.
        answer_space: Whether a literal space stood before `{answer}`.
        end: The literal text behind `{answer}`, which ends a text answer; empty where a token of
            the model ends it.
        kind: The kind of prompts that it takes. For all kinds but `slots`, the first slot is in
            front of the whole row, also of the tokenizer's special tokens; for `weights` and
            `tuned` this first slot is empty. Behind it, `tuned` has the slots that `slots` has, and
            the kinds that stand apart from the text have none.
        messages: Role and content of each message, as the user wrote them; none in a template of
            one string.
        marks: What the chat template writes before each message; none until a model is known.
        end_token: The special token that ends a text answer where the template has no `end`, as
            text; empty until a model is known, whose own end token is then meant.
        behind: The text behind the answer where more than its end may stand there: before, between
            and after the slots there. Else there is none.
        one_by_one: Whether a masked model predicts each token of an answer alone.
        slotted: Where its kind rewrote it, the template as it was, whose slots words fill.
    """

    text: str
    segments: tuple[str, ...]
    slots: tuple[Slot, ...]
    answer_space: bool
    end: str = ""
    kind: Kind = "slots"
    messages: tuple[tuple[str, str], ...] = ()
    marks: tuple[Mark, ...] = ()
    end_token: str = ""
    behind: tuple[str, ...] = ()
    one_by_one: bool = False
    slotted: Template | None = field(default=None, repr=False, compare=False)

    @staticmethod
    def parse(source: str | Sequence[Mapping[str, str]]) -> Template:
        """Read a template.

        Args:
            source: Literal text with `{field}`s, at least one `{prompt}` or `{prompt:3}`, and
                `{answer}`; `{{` and `}}` stand for braces. Literal text behind `{answer}` is the
                answer's end. Or such text in messages, `{role: content}` each, the last one the
                assistant's.

        Raises:
            TemplateError: There is no slot or no answer, or two answers, only spaces stand behind
                the answer, a field is no plain name, or the messages are not of this form.
        """
        parsed = parse_template(source)
        return Template(
            parsed.text,
            parsed.segments,
            parsed.slots,
            parsed.answer_space,
            parsed.end,
            messages=parsed.messages,
            behind=parsed.behind,
            one_by_one=parsed.one_by_one,
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the data's fields that the template uses, each once."""
        texts = (*self.segments, *self.behind)
        names = (name for segment in texts for name in data_fields(segment))
        return tuple(dict.fromkeys(names))

    @property
    def fixed(self) -> int:
        """The number of segments from the left that are the same for all inputs.

        That before the answer is never counted. Where this is the number of the slots, the prompt
        stands in front of the input.
        """
        with_data = (i for i, segment in enumerate(self.segments[:-1]) if data_fields(segment))
        return next(with_data, len(self.segments) - 1)

    @property
    def length(self) -> int:
        """The number of prompt tokens in all slots of a bound template."""
        return sum(slot.length or 0 for slot in self.slots)

    def bind(self, length: int) -> Template:
        """The template with `length` tokens in each slot that does not fix its own."""
        return replace(
            self,
            slots=tuple(
                replace(s, length=length if s.length is None else s.length) for s in self.slots
            ),
        )

    @property
    def in_middle(self) -> Template:
        """The template for a model that reads text behind the answer, which has no end there."""
        if self.behind:
            return self
        return replace(self, end="", end_token="", behind=(braces(self.end),))

    def ends_within(self, answer: str) -> bool:
        """Whether the text that ends answers begins within this one, so that it would end there."""
        return bool(self.end) and (answer + self.end).index(self.end) < len(answer)

    def around(self, answer: Content, slots: Sequence[Content]) -> list[Content]:
        """The contents of the slots with the answer among them, in the order of the row.

        Args:
            answer: What stands for the answer.
            slots: What stands in each slot.
        """
        before = len(self.segments) - 1
        return [*slots[:before], answer, *slots[before:]]

    @property
    def apart(self) -> bool:
        """Whether its prompts stand apart from the text."""
        return not PLACEMENTS[self.kind].fills

    @property
    def fronted(self) -> bool:
        """Whether its first slot is in front of the whole row, also of special tokens."""
        return PLACEMENTS[self.kind].front

    def taking(self, kind: Kind) -> Template:
        """The template for prompts of a kind.

        For prompts that stand apart from the text, it has one slot in front, and then the text of
        an empty prompt. The keys of a prefix belong to a row's first positions, so nothing can
        stand before it (PEFT puts it there, too), and all text of the template stands behind it. A
        gated prompt stands nowhere; only the length of its slot counts.

        What stands before the first slot is computed once and kept for all prompts. With changed
        weights nothing of a row stays the same, so nothing may stand before their slot, which is
        empty. `tuned` prompts have vectors beside the weights, so their slots follow as they are.

        Args:
            kind: The kind of the prompts.
        """
        placement = PLACEMENTS[kind]
        if not placement.front:
            return self
        slot = Slot(0 if placement.empty else self.length, space=False)
        new = replace(self, kind=kind, slotted=self)
        if placement.fills:
            return replace(new, segments=("", *self.segments), slots=(slot, *self.slots))
        behind = ("".join(self.behind),) if self.behind else ()
        segments = ("", "".join(self.segments))
        return replace(new, segments=segments, slots=(slot,), behind=behind)

    @property
    def rendered(self) -> bool:
        """Whether the text is complete: no mark is left for a chat template to write."""
        return len(self.marks) == len(self.messages)

    @property
    def written(self) -> tuple[str, ...]:
        """The segments as format strings of fields alone, the chat template's marks filled in."""
        return tuple(self._written(segment) for segment in (*self.segments, *self.behind))

    def _written(self, segment: str) -> str:
        text = ""
        for literal, name, _, _ in string.Formatter().parse(segment):
            text += braces(literal)
            if name is not None:
                text += braces(self._mark(name).text) if name.isdecimal() else f"{{{name}}}"
        return text

    @property
    def shown(self) -> str:
        """The whole text as the model reads it, with slots, fields and `{answer}` in braces.

        A template of one string, or without a known model, is shown as the user wrote it.
        """
        if not (self.messages and self.rendered):
            return self.text
        answer = self.answer_text(f"{{{ANSWER}}}") + braces(self.end)
        places = [*(slot.notation for slot in self.slots), answer]
        return "".join(text + place for text, place in zip(self.written, places, strict=True))

    def fill(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """The segments with an example's fields filled in, as `pieces` gives them."""
        return tuple("".join(piece.text for piece in pieces) for pieces in self.pieces(fields))

    def pieces(self, fields: Mapping[str, Any]) -> tuple[tuple[Piece, ...], ...]:
        """The filled segments in pieces, with the chat template's text apart from all other.

        There is one more than there are slots before the answer, and as many behind it as text
        stands there.
        """
        return tuple(
            tuple(filled(segment, fields, self._mark)) for segment in (*self.segments, *self.behind)
        )

    def _mark(self, number: str) -> Mark:
        return self.marks[int(number)] if self.rendered else Mark("\n")

    def stripped(self, texts: Sequence[str]) -> tuple[str, ...]:
        """What the chat template leaves of texts in slots, some of which begin or end a message.

        Literal whitespace behind an empty slot or field at the edge of a message stays: the text
        around a slot is the same for all prompts.

        Args:
            texts: The texts, one for each slot.
        """
        if not self.messages:
            return tuple(texts)
        places = zip(texts, self.segments[:-1], self.segments[1:], strict=True)
        return tuple(stripped(*place, self._mark) for place in places)

    def slot_texts(self, texts: Sequence[str]) -> tuple[str, ...]:
        """What a text prompt puts into each slot: its text, after the slot's space if it has one.

        An empty text gets no space. A chat template that strips messages also strips a text that
        begins or ends one.

        Args:
            texts: The texts, one for each slot; missing ones are empty.

        Raises:
            TemplateError: There are more texts than slots.
        """
        if len(texts) > len(self.slots):
            raise TemplateError(
                f"a text prompt has {len(texts)} pieces, "
                f"but the template {self.text!r} has {len(self.slots)} slots"
            )
        padded = [*texts, *[""] * (len(self.slots) - len(texts))]
        return self.stripped(
            [slot.holding(text) for slot, text in zip(self.slots, padded, strict=True)]
        )

    def answer_text(self, answer: str) -> str:
        """The answer with the space that the template puts before it."""
        return (" " if self.answer_space else "") + answer

    def row(
        self, fields: Mapping[str, Any], slots: Sequence[str], answer: str
    ) -> tuple[Piece, ...]:
        """The whole text in pieces.

        Args:
            fields: The example's fields.
            slots: The text in each slot, spaces included.
            answer: The answer, as `answer_text` gives it.
        """
        contents = self.around(answer, self.stripped(slots))
        contents += [""] * bool(self.behind)
        return tuple(
            p
            for some, t in zip(self.pieces(fields), contents, strict=True)
            for p in (*some, Piece(t, False))
        )

    def render(self, fields: Mapping[str, Any], slots: Sequence[str], answer: str) -> str:
        """The whole text; the arguments are those of `row`."""
        return "".join(piece.text for piece in self.row(fields, slots, answer))

    def contents(
        self, fields: Mapping[str, Any], slots: Sequence[str], answer: str
    ) -> list[tuple[str, str]]:
        """The role and the content of each message; the arguments are those of `row`."""
        contents = [""]
        for text, marked in self.row(fields, slots, answer):
            if marked:
                contents.append("")
            else:
                contents[-1] += text
        return [
            (role, content) for (role, _), content in zip(self.messages, contents[1:], strict=True)
        ]

    def solved(self, fields: Mapping[str, Any], answer: str) -> str:
        """An example as a demonstration: the text with empty slots, the right answer, and its end.

        Without the end, a model that goes on as the examples do would never end its answer.

        A template of messages gives what user and assistant say, a line each. It is plain text,
        since no prompt holds a chat template's marks. What the system says is left out: it stands
        above all examples once.

        Args:
            fields: The example's fields.
            answer: The answer, as `answer_text` gives it.
        """
        empty, answer = [""] * len(self.slots), answer + self.end
        if not self.messages:
            return self.render(fields, empty, answer).strip()
        said = [
            content.strip()
            for role, content in self.contents(fields, empty, answer)
            if role != "system"
        ]
        return "\n".join(content for content in said if content)
