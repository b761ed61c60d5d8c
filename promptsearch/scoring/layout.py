"""An example as token segments around the slots, and what prompts put between them.

The lead of an example is its tokens before the first slot. Prompts that stand apart from the text
(prefixes, gated prompts and changed weights) put no tokens into the slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from promptsearch.errors import TemplateError
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.models.special_tokens import Special
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring.answer_ids import Tokens as Tokens
from promptsearch.scoring.answer_ids import answer_ids, check_last
from promptsearch.scoring.reading import Layout
from promptsearch.tasks.marks import Piece
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template


def leading(template: Template, lm: LanguageModel) -> Tokens:
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


def _filled(template: Template, slots: Sequence[Tokens | str] | None) -> list[bool]:
    """Whether each slot holds something that stands in the row.

    Args:
        template: The template, bound.
        slots: As for `lay_out_input`.
    """
    found = (
        [bool(slot.length) for slot in template.slots] if slots is None else list(map(bool, slots))
    )
    return [full and not (i == 0 and template.fronted) for i, full in enumerate(found)]


def lay_out(
    template: Template,
    lm: LanguageModel,
    example: Example,
    choices: Sequence[str] | None,
    slots: Sequence[Tokens | str] | None = None,
) -> Layout:
    """The token segments and the answers of an example.

    Args:
        template: The template, bound.
        lm: The model, for its tokenizer.
        example: An example of a task.
        choices: The task's choices; None where they differ by row, and for text answers.
        slots: As for `lay_out_input`.

    Raises:
        TemplateError: As in `lay_out_input`, or the tokenizer has no token that ends an answer.
        ModelError: The model has no token that ends a text answer.
    """
    row = lay_out_input(template, lm, example.fields, slots)
    return replace(row, answers=answer_ids(template, lm, example, choices))


def lay_out_input(
    template: Template,
    lm: LanguageModel,
    fields: Mapping[str, Any],
    slots: Sequence[Tokens | str] | None = None,
) -> Layout:
    """The token segments of an input, without answers.

    Args:
        template: The template, bound.
        lm: The model, for its tokenizer.
        fields: The values of the template's fields.
        slots: The ids or the text that the prompt puts into each slot; left out: the slots are
            full. Behind an empty slot the text may be the beginning of the row, which many
            tokenizers cut in a different way.

    Raises:
        TemplateError: The template's messages were not rendered, or a text holds a mark of the chat
            template that the tokenizer cannot read as plain text.
    """
    template = meeting(template, lm)
    if not template.rendered:
        raise TemplateError(
            "the template's messages have not met a model: "
            "render them with promptsearch.scoring.chat_template.render"
        )
    filled = template.pieces(fields)
    _check_plain(template, lm, [text for pieces in filled for text, marked in pieces if not marked])
    segments: list[Tokens] = []
    begins = True
    full = template.around(True, _filled(template, slots))
    for pieces, held in zip(filled, [*full, True], strict=False):
        segments.append(tuple(encode(lm, pieces, begins=begins)))
        begins = not held and _begins_behind(lm, pieces, begins)
    lead = leading(template, lm)
    above, below = ((), lead) if template.fronted else (lead, ())
    segments[0] = (*above, *segments[0])
    if template.fronted:
        segments[1] = (*below, *segments[1])
    before = len(template.segments)
    segments[-1] = (*segments[-1], *(lm.tokens.close if lm.family.closes else ()))
    if not lm.family.middle:
        return Layout(tuple(segments), (), lm.family, start=lm.passes.start)
    return Layout(
        tuple(segments[:before]),
        (),
        lm.family,
        tuple(segments[before:]),
        lm.tokens.mask,
        template.one_by_one,
    )


def meeting(template: Template, lm: LanguageModel) -> Template:
    """The template as models of a family read it.

    Args:
        template: Any template.
        lm: The model.

    Raises:
        TemplateError: Text goes on behind the answer, and the model reads none there; or a model
            that is none of chats is to read messages.
    """
    family = lm.family
    if family.both_ways and template.messages:
        raise TemplateError(
            f"the template {template.text!r} is one of messages, but '{lm.name}' is "
            f"{family.noun}, which takes part in no chat: write it as one text"
        )
    if family.middle:
        return template.in_middle
    check_last(template, f"'{lm.name}'", decodes=family.encodes)
    return template


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


def slots_of(
    template: Template, lm: LanguageModel, prompt: Prompt, first: int = 0
) -> tuple[Tokens, ...]:
    """The tokens that a prompt puts into each slot.

    Args:
        template: The template, bound.
        lm: The model, for its tokenizer.
        prompt: The prompt.
        first: The place of its first row of numbers among those of all prompts.

    Raises:
        TemplateError: The prompt's texts do not go into the template.
    """
    contents = prompt.fill(template, first)
    texts = [content for content in contents if isinstance(content, str)]
    if not texts:
        return tuple(content for content in contents if not isinstance(content, str))
    _check_plain(template, lm, texts)
    return tuple(
        (tuple(lm.encode(content, begins=at)) if content else ())
        if isinstance(content, str)
        else content
        for content, at in zip(contents, begins_row(template, lm, contents), strict=True)
    )


def prompt_texts(template: Template, lm: TextModel, prompt: Prompt) -> tuple[str, ...]:
    """The text that a prompt of words puts into each slot, with its spaces."""
    contents = prompt.fill(template)
    beginnings = begins_row(template, lm, contents)
    return tuple(
        content if isinstance(content, str) else lm.decode(content, begins=at)
        for content, at in zip(contents, beginnings, strict=True)
    )


def begins_row(
    template: Template, lm: TextModel, slots: Sequence[Tokens | str] | None = None
) -> list[bool]:
    """Whether the tokenizer takes what stands in a slot for the beginning of a row, for each slot.

    Args:
        template: The template, bound.
        lm: The model, for its tokenizer.
        slots: As for `lay_out_input`.
    """
    found, begins = [], True
    pieces = template.pieces(dict.fromkeys(template.fields, "a"))
    full = template.around(True, _filled(template, slots))
    for before, held in zip(pieces, full, strict=False):
        begins = _begins_behind(lm, before, begins)
        found.append(begins)
        begins = begins and not held
    del found[len(template.segments) - 1]  # the answer's own place
    return found
