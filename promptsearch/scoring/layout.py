"""An example as token segments around the slots, and the check that ids and text agree.

The lead of an example is its tokens before the first slot. Prompts that stand apart from the text
(prefixes, gated prompts and changed weights) put no tokens into the slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.errors import TemplateError
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.models.special_tokens import Special
from promptsearch.prompts.prompt import HardPrompt, TextPrompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Piece, Template

#: The ids that fill one slot, or stand in one segment; those below zero stand for vectors.
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """One example under a template, as token ids.

    Args:
        segments: The ids before, between and after the slots. The first segment begins with the
            leading special tokens; where the first slot is in front of the whole row, the second
            one does.
        answers: The ids of each answer: the choices in their order, or the right answer and then
            its aliases.
    """

    segments: tuple[Ids, ...]
    answers: tuple[Ids, ...]

    @property
    def lead(self) -> int:
        """The number of tokens before the first slot."""
        return len(self.segments[0])

    @property
    def context(self) -> int:
        """The number of tokens behind the lead.

        They reach from the first slot to the end of each answer, without the prompt's own tokens.
        """
        return sum(map(len, self.segments[1:])) + sum(map(len, self.answers))

    def join(self, slots: Sequence[Ids]) -> list[int]:
        """All ids of a row up to the answer.

        Args:
            slots: The ids in each slot.
        """
        joined = list(self.segments[0])
        for slot, segment in zip(slots, self.segments[1:], strict=True):
            joined += slot
            joined += segment
        return joined


def leading(template: Template, lm: LanguageModel) -> Ids:
    """The special tokens before a row.

    They are the tokenizer's; there are none where a chat template writes what a row begins with.
    """
    return () if template.messages else lm.lead


def encode(lm: LanguageModel, pieces: Sequence[Piece], *, begins: bool = True) -> list[int]:
    """The ids of text in pieces.

    Special tokens are found in what a chat template wrote, and nowhere else.

    Args:
        lm: The model, for its tokenizer.
        pieces: The pieces of a row, one after the other.
        begins: Whether nothing stands before them.
    """
    ids: list[int] = []
    for run, at, special in _runs(lm, pieces, begins):
        ids += lm.encode(run, begins=at) if run else []
        ids += [lm.tokenizer.convert_tokens_to_ids(special.content)] if special else []
    return ids


def _runs(
    lm: TextModel, pieces: Sequence[Piece], begins: bool
) -> Iterator[tuple[str, bool, Special | None]]:
    """The runs of text in pieces, which is cut at its special tokens.

    Yields:
        A run of text, whether the tokenizer takes it for the beginning of a row, and the special
        token behind it; at the end, the text behind the last special token, with None.
    """
    run, strips = "", False
    for text, marked in pieces:
        for part in _parts(lm, text) if marked else [text]:
            if isinstance(part, str):
                run += part
                run = run.lstrip() if strips else run
                continue
            yield run.rstrip() if part.lstrip else run, begins, part
            # Some special tokens swallow the whitespace next to them.
            run, strips, begins = "", part.rstrip, lm.anew
    yield run, begins, None


def _parts(lm: TextModel, text: str) -> list[str | Special]:
    assert isinstance(lm, LanguageModel)  # a server is sent no messages
    return lm.special.cut(text)


def _begins_behind(lm: TextModel, pieces: Sequence[Piece], begins: bool) -> bool:
    """Whether the tokenizer takes what stands behind these pieces for the beginning of a row."""
    *_, (run, at, _) = _runs(lm, pieces, begins)
    return at and not run


def _filled(template: Template, slots: Sequence[Ids | str] | None) -> list[bool]:
    """Whether each slot holds something that stands in the row.

    Args:
        template: The template, bound.
        slots: As for `lay_out`.
    """
    found = (
        [bool(slot.length) for slot in template.slots] if slots is None else list(map(bool, slots))
    )
    return [full and not (i == 0 and template.kind != "slots") for i, full in enumerate(found)]


def lay_out(
    template: Template,
    lm: LanguageModel,
    example: Example,
    choices: Sequence[str] | None,
    slots: Sequence[Ids | str] | None = None,
) -> Layout:
    """The token segments of an example.

    Args:
        template: The template, bound.
        lm: The model, for its tokenizer.
        example: An example of a task.
        choices: The task's choices; None for text answers.
        slots: The ids or the text that the prompt puts into each slot; left out: the slots are
            full. Behind an empty slot the text may be the beginning of the row, which many
            tokenizers cut in a different way.

    Raises:
        TemplateError: The template's messages were not rendered, or a text holds a mark of the chat
            template that the tokenizer cannot read as plain text.
    """
    if not template.rendered:
        raise TemplateError(
            "the template's messages have not met a model: "
            "render them with promptsearch.scoring.chat_template.render"
        )
    filled = template.pieces(example.fields)
    _check_plain(template, lm, [text for pieces in filled for text, marked in pieces if not marked])
    segments: list[Ids] = []
    begins = True
    for pieces, full in zip(filled, [*_filled(template, slots), True], strict=True):
        segments.append(tuple(encode(lm, pieces, begins=begins)))
        begins = not full and _begins_behind(lm, pieces, begins)
    answers = choices if choices is not None else (example.answer, *example.aliases)
    above, below = (
        (leading(template, lm), ()) if template.kind == "slots" else ((), leading(template, lm))
    )
    first, second, *rest = segments
    return Layout(
        ((*above, *first), (*below, *second), *rest), tuple(tuple(lm.encode(a)) for a in answers)
    )


def _check_plain(template: Template, lm: LanguageModel, texts: Sequence[str]) -> None:
    """Refuse text that the tokenizer would take for a mark of the chat template.

    Raises:
        TemplateError: There is such a text; the message names the mark.
    """
    marks = [
        mark for mark in lm.special.always if any(mark in written for written, *_ in template.marks)
    ]
    for text in texts:
        if found := next((mark for mark in marks if mark in text), None):
            raise TemplateError(
                f"the text {text[:60]!r} holds {found!r}, which the chat template writes, and this "
                "tokenizer cannot read as plain text: take it out of the text"
            )


def split_slots(template: Template, ids: Sequence[int]) -> tuple[Ids, ...]:
    """The prompt's tokens, cut into the template's slots: one tuple for each slot.

    Args:
        template: The template, bound.
        ids: The ids over all slots, shape `(length,)`.
    """
    cuts = np.cumsum([0, *(slot.length or 0 for slot in template.slots)])
    return tuple(tuple(ids[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True))


def slots_of(
    template: Template, lm: LanguageModel, prompt: HardPrompt | TextPrompt
) -> tuple[Ids, ...]:
    """The ids that a prompt puts into each slot."""
    if isinstance(prompt, HardPrompt):
        return split_slots(template, prompt.ids)
    texts = template.slot_texts(prompt.texts)
    _check_plain(template, lm, texts)
    beginnings = begins_row(template, lm, texts)
    return tuple(
        tuple(lm.encode(t, begins=at)) if t else () for t, at in zip(texts, beginnings, strict=True)
    )


def prompt_texts(
    template: Template, lm: TextModel, prompt: HardPrompt | TextPrompt
) -> tuple[str, ...]:
    """The text that a prompt puts into each slot, with its spaces."""
    if isinstance(prompt, HardPrompt):
        slots = split_slots(template, prompt.ids)
        beginnings = begins_row(template, lm, slots)
        return tuple(lm.decode(ids, begins=at) for ids, at in zip(slots, beginnings, strict=True))
    return template.slot_texts(prompt.texts)


def begins_row(
    template: Template, lm: TextModel, slots: Sequence[Ids | str] | None = None
) -> list[bool]:
    """Whether the tokenizer takes what stands in a slot for the beginning of a row, for each slot.

    Args:
        template: The template, bound.
        lm: The model, for its tokenizer.
        slots: As for `lay_out`.
    """
    found, begins = [], True
    pieces = template.pieces(dict.fromkeys(template.fields, "a"))
    for before, full in zip(pieces, _filled(template, slots), strict=False):
        begins = _begins_behind(lm, before, begins)
        found.append(begins)
        begins = begins and not full
    return found


def broken_joint(
    template: Template,
    lm: LanguageModel,
    example: Example,
    layout: Layout,
    prompt: HardPrompt | TextPrompt,
    answers: Sequence[str],
) -> str | None:
    """A message that says where ids and text of an example disagree; None where they agree.

    They agree if encoding the whole text gives the ids of the segments and slots, one after the
    other.

    Args:
        template: The template, bound.
        lm: The model.
        example: The example.
        layout: The example's layout.
        prompt: The prompt in the slots.
        answers: The texts of the layout's answers, in the same order.
    """
    slots, texts = slots_of(template, lm, prompt), prompt_texts(template, lm, prompt)
    for ids, answer in zip(layout.answers, answers, strict=True):
        ours = [*layout.join(slots), *ids][len(leading(template, lm)) :]
        theirs = encode(lm, template.row(example.fields, texts, answer))
        if ours != theirs:
            place = next(
                (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                min(len(ours), len(theirs)),
            )
            around = slice(max(0, place - 3), place + 3)
            return (
                f"in example {example.id} the text ...{lm.decode(ours[around])!r}... "
                f"is cut into {_cut(lm, theirs[around])}, not into {_cut(lm, ours[around])}"
            )
    return None


def _cut(lm: LanguageModel, ids: Sequence[int]) -> str:
    return "|".join(lm.decode([i]) for i in ids)


def check_joints(
    template: Template,
    lm: LanguageModel,
    split: Split,
    choices: Sequence[str] | None,
    space: PromptSpace,
) -> None:
    """Check law 2: the whole text of every example gives its ids back.

    The slots hold a prompt of the pool, or an empty text under templates whose prompts stand apart.

    Raises:
        TemplateError: A joint does not hold; the message names the first one.
    """
    prompts: Sequence[HardPrompt | TextPrompt] = space.sample(np.random.default_rng(0), len(split))
    if template.apart:
        prompts = [TextPrompt("")] * len(split)
    for example, prompt in zip(split.examples, prompts, strict=True):
        layout = lay_out(template, lm, example, choices)
        answers = choices if choices is not None else (example.answer, *example.aliases)
        fault = broken_joint(template, lm, example, layout, prompt, answers)
        if fault:
            joined = "its answers without a prompt" if template.apart else "prompts of the pool"
            advice = (
                "Put a space before slots and answer, "
                "or take words into the pool that begin with a space."
            )
            if template.stripped(texts := prompt_texts(template, lm, prompt)) != texts:
                advice = (
                    "The chat template strips the space with which a prompt's first word begins: "
                    "put a word before the slot, such as 'Task: {prompt}'."
                )
            raise TemplateError(
                f"the template {template.text!r} does not join with {joined} on the "
                f"{split.name} split: {fault}. {advice}"
            )


def check_answers(lm: LanguageModel, choices: Sequence[str] | None, split: Split) -> None:
    """Refuse answers without tokens, and choices that the tokenizer does not keep apart.

    No choice may have the tokens of another choice, or begin with them.

    Raises:
        TemplateError: There are such answers; the message names them.
    """
    if choices is None:
        for example in split.examples:
            if not all(lm.encode(answer) for answer in (example.answer, *example.aliases)):
                raise TemplateError(
                    f"an answer of {split.name} example {example.id} is empty: expected text"
                )
        return
    seen: dict[Ids, str] = {}
    for text in choices:
        ids = tuple(lm.encode(text))
        if not ids:
            raise TemplateError(f"the answer {text!r} is empty: expected text")
        if ids in seen:
            raise TemplateError(
                f"the tokenizer maps the answers {seen[ids]!r} and {text!r} to the same tokens "
                f"{list(ids)}: take answers that it can tell apart"
            )
        seen[ids] = text
    for longer in seen:
        for cut in range(1, len(longer)):
            if longer[:cut] in seen:
                raise TemplateError(
                    f"the answer {seen[longer[:cut]]!r} is the beginning of {seen[longer]!r}, "
                    "which can then never be the more probable one: end both, for example with a "
                    "full stop, or take other answers"
                )
