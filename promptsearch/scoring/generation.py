"""Answers that a model generates: prompts and examples in, texts out.

What stands before an answer is laid out as `promptsearch.scoring.ready` does it for prompts in use,
so that what is reported of a prompt is what its user gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from promptsearch.errors import PromptError
from promptsearch.models import LanguageModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import ExampleIds, Generated
from promptsearch.scoring.continuing import Start, go_on
from promptsearch.scoring.decoding import Written
from promptsearch.scoring.ending import Ending
from promptsearch.scoring.ready import Compiled, compile_prompts
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.task import Example, Split
from promptsearch.tasks.template import Template

#: The most rows for which prompts are made ready together.
_ROWS = 256


def generate(
    lm: LanguageModel,
    template: Template,
    split: Split,
    prompts: Sequence[Prompt],
    examples: ExampleIds,
    decoding: Decoding,
    faults: Mapping[int, str],
) -> Generated:
    """The answers that a model generates under prompts.

    Args:
        lm: The model.
        template: The template, bound.
        split: The examples.
        prompts: Prompts of any kinds that the template takes.
        examples: Ids, shape `(examples,)`.
        decoding: The way in which answers are generated.
        faults: The places of prompts that cannot be read, each with the reason.
    """
    unique = [split.examples[i] for i in dict.fromkeys(map(int, examples))]
    column = {example.id: i for i, example in enumerate(unique)}
    columns = [column[int(i)] for i in examples]
    texts: list[list[tuple[str, ...]]] = [[()] * len(examples) for _ in prompts]
    ended: list[list[tuple[bool, ...]]] = [[()] * len(examples) for _ in prompts]
    tokens = np.zeros((len(prompts), len(examples)), dtype=np.int64)
    failures = dict(faults)
    ending, computed = Ending(lm, template), 0
    good = [i for i in range(len(prompts)) if i not in failures]
    for some in _together(prompts, good, len(unique)):
        with lm.changed(prompts[some[0]].parts.weights or {}):
            library = compile_prompts(lm, [(prompts[i], template) for i in some])
            computed += sum(len(each.above) for each in library.prompts)
            starts: list[Start] = []
            begun = []
            for i, compiled in zip(some, library.prompts, strict=True):
                try:
                    starts += [_start(lm, compiled, e, split.name, decoding) for e in unique]
                    begun.append(i)
                except PromptError as error:
                    failures[i] = str(error)
            found, count = go_on(lm, starts, library, ending.reached, decoding)
        computed += count
        for place, i in enumerate(begun):
            own = found[place * len(unique) : (place + 1) * len(unique)]
            if reason := _broken(own, unique, prompts[i], split.name):
                failures[i] = reason
                continue
            texts[i] = [tuple(map(ending.text, own[c].answers)) for c in columns]
            ended[i] = [own[c].ended for c in columns]
            tokens[i] = [own[c].tokens for c in columns]
    return Generated(texts, ended, tokens, computed, failures)


def _together(prompts: Sequence[Prompt], good: Sequence[int], rows: int) -> Iterator[list[int]]:
    """The prompts that are made ready together; changed weights go one after the other.

    Args:
        prompts: All prompts.
        good: The places of those to make ready.
        rows: The number of rows under each.
    """
    size = max(1, _ROWS // max(1, rows))
    frozen = [i for i in good if prompts[i].frozen]
    yield from (frozen[begin : begin + size] for begin in range(0, len(frozen), size))
    yield from ([i] for i in good if not prompts[i].frozen)


def _start(
    lm: LanguageModel, compiled: Compiled, example: Example, split: str, decoding: Decoding
) -> Start:
    """An example below its prompt, as it is to go on.

    Raises:
        PromptError: Nothing stands before its answer, or the model's context holds no answer.
    """
    place = f"{split} example {example.id}"
    try:
        row = compiled.row(lm, example.fields)
    except PromptError as error:
        raise PromptError(f"{place}: {error}") from error
    room = decoding.tokens if lm.context is None else lm.context - row.tokens
    if room < 1:
        raise PromptError(
            f"{place} has {row.tokens} tokens with its prompt, but the model reads at most "
            f"{lm.context} with the answer: shorten it (it is never cut silently)"
        )
    return Start(row, min(room, decoding.tokens), decoding.seeds(place))


def _broken(
    found: Sequence[Written], examples: Sequence[Example], prompt: Prompt, split: str
) -> str | None:
    """The reason why a prompt's answers mean nothing, or None."""
    for own, example in zip(found, examples, strict=True):
        if not own.answers:
            return (
                f"what the model computes under prompt {prompt.key} on {split} example "
                f"{example.id} is not finite"
            )
    return None
