"""The check that ids and text agree, and that answers can be told apart (law 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from promptsearch.errors import TemplateError
from promptsearch.models import LanguageModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring.answer_ids import answer_texts, check_beginnings, end_ids, options_of
from promptsearch.scoring.layout import (
    Tokens,
    encode,
    lay_out,
    leading,
    prompt_texts,
    slots_of,
)
from promptsearch.scoring.reading import Layout
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template


def broken_joint(
    template: Template,
    lm: LanguageModel,
    example: Example,
    layout: Layout,
    prompt: Prompt,
    choices: Sequence[str] | None,
) -> str | None:
    """A message that says where ids and text of an example disagree; None where they agree.

    They agree if encoding the whole text, with an answer and the text that ends it, gives the ids
    of the segments and slots, one after the other. An end token stands behind that text.

    Args:
        template: The template, bound.
        lm: The model.
        example: The example.
        layout: The example's layout.
        prompt: The prompt in the slots.
        choices: The task's choices; None where they differ by row, and for text answers.
    """
    slots, texts = slots_of(template, lm, prompt), prompt_texts(template, lm, prompt)
    end = 0 if options_of(example, choices) else len(end_ids(template, lm))
    for ids, answer in zip(layout.answers, answer_texts(template, example, choices), strict=True):
        before, behind = layout.join(slots), layout.join_behind(slots)
        told = ids[: len(ids) - end]
        if layout.start:  # the answer stands in a row of its own
            told, answer = (), ""
        ours = [*before, *told, *behind][len(leading(template, lm)) :]
        ours = ours[: len(ours) - len(lm.tokens.close)] if lm.family.closes else ours
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


def first_fault(
    template: Template,
    lm: LanguageModel,
    split: Split,
    layouts: Sequence[Layout],
    prompt: Prompt,
    slots: Sequence[Tokens],
    choices: Sequence[str] | None,
    examples: Iterable[int],
) -> str | None:
    """The reason why a prompt cannot be scored on the first example where it cannot; else None.

    Args:
        template: The template, bound.
        lm: The model.
        split: The examples.
        layouts: The layouts of all examples.
        prompt: The prompt in the slots.
        slots: Its ids, those of each slot.
        choices: The choices; None where they differ by row, and for text answers.
        examples: Ids of the examples to look at.
    """
    for e in examples:
        if not (lm.family.middle or layouts[e].join(slots)):
            return (
                f"nothing stands before the answer of {split.name} example {e}: "
                "the model needs at least one token"
            )
        example = split.examples[e]
        if fault := broken_joint(template, lm, example, layouts[e], prompt, choices):
            return f"the {prompt.shown} does not join with the template: {fault}"
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
    prompts: Sequence[Prompt] = space.sample(np.random.default_rng(0), len(split))
    if template.apart:
        prompts = [TextPrompt("")] * len(split)
    for example, prompt in zip(split.examples, prompts, strict=True):
        layout = lay_out(template, lm, example, choices)
        fault = broken_joint(template, lm, example, layout, prompt, choices)
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


def check_answers(
    lm: LanguageModel,
    choices: Sequence[str] | None,
    split: Split,
    normalise: Normalise = "none",
) -> None:
    """Refuse answers without tokens, and those to choose from that cannot be kept apart.

    No answer to choose from may have the tokens of another one. Nor may it begin with them, unless
    scores are normalised by length: it could then never be the more probable one.

    Args:
        lm: The model.
        choices: The task's choices; None where they differ by row, and for text answers.
        split: The examples, whose own answers are checked where the task has no choices.
        normalise: The length by which log-probabilities are divided.

    Raises:
        TemplateError: There are such answers; the message names them.
    """
    if choices is not None:
        _check_apart(lm, choices, "", normalise)
        return
    for example in split.examples:
        place = f" of {split.name} example {example.id}"
        if example.options is not None:
            _check_apart(lm, example.options, place, normalise)
        elif not all(map(lm.encode_answer, example.right)):
            raise TemplateError(f"an answer{place} is empty: expected text")


def _check_apart(
    lm: LanguageModel, options: Sequence[str], place: str, normalise: Normalise
) -> None:
    """Refuse answers to choose from among which the tokenizer makes no difference.

    Args:
        lm: The model.
        options: The answers.
        place: Where they stand, for the message.
        normalise: As in `check_answers`.
    """
    seen: dict[Tokens, str] = {}
    for text in options:
        ids = tuple(lm.encode_answer(text))
        if not ids:
            raise TemplateError(f"the answer {text!r}{place} is empty: expected text")
        if ids in seen:
            raise TemplateError(
                f"the tokenizer maps the answers {seen[ids]!r} and {text!r}{place} to the same "
                f"tokens {list(ids)}: take answers that it can tell apart"
            )
        seen[ids] = text
    # An answer of another length has other masks.
    if normalise == "none" and not lm.family.middle:
        check_beginnings(seen, place)
