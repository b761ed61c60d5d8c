"""The answers of an example as the LM is to give them: texts and ids, a text answer with its end.

A text answer ends: with the text that the template has behind `{answer}`, or else with a token, the
one with which the chat template ends the assistant's turn or the model ends a text. What ends an
answer is trained and scored with it, and generation stops there. Answers to choose from have no
end: they are compared with each other as they stand. A masked model's answers have none either:
what stands behind them is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from promptsearch.errors import PromptError, TemplateError
from promptsearch.models import LanguageModel
from promptsearch.prompts.prompt import AnswerWords
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template

#: Why nothing stands behind an answer, without and with a decoder.
_WHY = (
    "reads from left to right",
    "is an encoder-decoder model, whose decoder writes the answer behind all else",
)
#: The ids of an answer, or of what stands in a slot or segment.
Tokens = tuple[int, ...]
#: What tells an answer from others: its characters or its ids.
Spelled = TypeVar("Spelled", str, Tokens)


def options_of(example: Example, choices: Sequence[str] | None) -> tuple[str, ...] | None:
    """The answers that an example is to be answered with one of; None for text answers.

    Args:
        example: The example.
        choices: The task's choices; None where they differ by row, and for text answers.
    """
    if example.options is not None:
        return example.options
    return None if choices is None else tuple(choices)


def answer_texts(
    template: Template, example: Example, choices: Sequence[str] | None
) -> tuple[str, ...]:
    """The texts whose tokens are scored, without an end token.

    Args:
        template: The template.
        example: The example.
        choices: As for `options_of`.

    Returns:
        The answers to choose from, or each right answer with the template's `end`.
    """
    options = options_of(example, choices)
    if options is not None:
        return options
    return tuple(reference + template.end for reference in example.references)


def solved_texts(
    template: Template, examples: Sequence[Example], answers: Sequence[str] | None
) -> list[str]:
    """Examples as demonstrations, see `Template.solved`.

    Args:
        template: The template.
        examples: The examples.
        answers: The answer of each, as it stands behind the template; None: the right one.
    """
    told = answers or [example.answer for example in examples]
    return [template.solved(e.fields, answer) for e, answer in zip(examples, told, strict=True)]


def end_ids(template: Template, lm: LanguageModel) -> Tokens:
    """The token that ends a text answer; none where a text of the template does, or nothing.

    Args:
        template: The template.
        lm: The model.

    Raises:
        TemplateError: The model's tokenizer has no such token.
        ModelError: The model has no token that ends a text.
    """
    if template.end or not lm.family.ends:
        return ()
    if not template.end_token:
        return (lm.end,)
    found = lm.special.id_of(template.end_token)
    if found is None or found >= lm.rows:
        raise TemplateError(
            f"an answer ends with the token {template.end_token[:60]!r} here, which the model "
            f"'{lm.name}' does not have"
        )
    return (found,)


def answer_ids(
    template: Template, lm: LanguageModel, example: Example, choices: Sequence[str] | None
) -> tuple[Tokens, ...]:
    """The ids of the answers that are scored, a text answer up to and with its end.

    Args:
        template: The template.
        lm: The model, for its tokenizer.
        example: The example.
        choices: As for `options_of`.

    Raises:
        TemplateError: As in `end_ids`, and so is `ModelError`.
    """
    end = end_ids(template, lm) if options_of(example, choices) is None else ()
    texts = answer_texts(template, example, choices)
    return tuple((*lm.encode_answer(text), *end) for text in texts)


def told_ids(
    lm: LanguageModel, answers: AnswerWords, choices: Sequence[str] | None
) -> tuple[Tokens, ...]:
    """The ids of the words that stand for each class, see `VerbalizedPrompt`.

    Args:
        lm: The model, for its tokenizer.
        answers: The words of each class.
        choices: The task's choices; None where they differ by row, and for text answers.

    Raises:
        PromptError: They do not stand for the classes of the task, one word is not a single token,
            or two words are the same one.
    """
    if choices is None or len(answers) != len(choices):
        has = "no classes" if choices is None else f"{len(choices)} classes"
        raise PromptError(
            f"answer words stand for {len(answers)} classes of a task, and this one has {has}"
        )
    found = [tuple(lm.encode_answer(word)) for some in answers for word in some]
    words = [word for some in answers for word in some]
    for word, ids in zip(words, found, strict=True):
        if len(ids) != 1 or found.count(ids) > 1:
            raise PromptError(
                f"expected answer words of one token of '{lm.name}' each, all of them different, "
                f"got {word!r} with the tokens {list(ids)}"
            )
    each = len(answers[0])
    return tuple(
        tuple(ids[0] for ids in found[begin : begin + each]) for begin in range(0, len(found), each)
    )


def check_ends(template: Template, split: Split, choices: Sequence[str] | None) -> None:
    """Refuse answers that cannot end as the template says.

    A right answer must not hold what ends an answer: generation would stop within it. Answers to
    choose from have no end.

    Args:
        template: The template.
        split: The examples.
        choices: As for `options_of`.

    Raises:
        TemplateError: There is such an answer; the message names it.
    """
    if not template.end:
        return
    for example in split.examples:
        if options_of(example, choices) is not None:
            raise TemplateError(
                f"the template {template.text!r} has {template.end!r} behind {{answer}}, which "
                "ends text answers, but this task has answers to choose from, which have no end: "
                "leave it out, or make it a part of each answer"
            )
        for text in example.references:
            if template.ends_within(text):
                raise TemplateError(
                    f"the answer {text[:60]!r} of {split.name} example {example.id} holds "
                    f"{template.end!r}, with which the template ends an answer: end it with "
                    "something else, or leave that out so that the model's end token does"
                )


def check_beginnings(answers: Mapping[Spelled, str], place: str) -> None:
    """Refuse answers to choose from of which one can never be the more probable one.

    Args:
        answers: Their texts, by what tells them apart.
        place: Where they stand, for the message.

    Raises:
        TemplateError: One is the beginning of another.
    """
    # In order, an answer stands right before those that begin with it.
    for one, other in pairwise(sorted(answers)):
        if other[: len(one)] == one:
            raise TemplateError(
                f"the answer {answers[one]!r} is the beginning of {answers[other]!r}{place}, which "
                "can then never be the more probable one: end both, for example with a full stop, "
                "take other answers, or normalise scores by length"
            )


def check_last(template: Template, reader: str, *, decodes: bool = False) -> None:
    """Refuse a template that goes on behind the answer, for a model that reads nothing there.

    Args:
        template: The template.
        reader: The model in words, for the message.
        decodes: Whether it has a decoder, which writes the answer.

    Raises:
        TemplateError: It does.
    """
    if template.behind or template.one_by_one:
        raise TemplateError(
            f"the template {template.text!r} goes on behind {{answer}} or has {{answer:pll}}, but "
            f"{reader} {_WHY[decodes]}: its answer comes last, and only the text that "
            "ends it may follow, without fields or slots. Write {answer} at the end, or take a "
            "masked model, such as BERT"
        )


def single_words(lm: LanguageModel, choices: Sequence[str] | None) -> dict[str, int]:
    """The words that are a single token as an answer, as they stand behind the template.

    Args:
        lm: The model.
        choices: The task's choices, which say whether a space stands before an answer.
    """
    found = dict[int, str]()
    bare = any(not text.startswith(" ") for text in choices or ())
    for token in lm.words:
        word = lm.decode([token])
        ids = lm.encode_answer(word := word.removeprefix(" ") if bare else word)
        if len(ids) == 1:
            found.setdefault(ids[0], word)
    return {word: token for token, word in found.items()}
