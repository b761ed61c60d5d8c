"""Answers that a model generates: prompts and examples in, texts out.

What stands before an answer is laid out as `promptsearch.scoring.ready` does it for prompts in use,
so that what is reported of a prompt is what its user gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

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


class Generation:
    """What generates the answers to the examples of a split under a template.

    Args:
        lm: The model.
        template: The template, bound.
        split: The examples.
        memory: The bytes for keys and values; None: a part of the device's memory.
    """

    def __init__(
        self, lm: LanguageModel, template: Template, split: Split, memory: int | None = None
    ) -> None:
        self._lm, self._template, self._split, self._memory = lm, template, split, memory
        self._ending = Ending(lm, template)

    def answers(
        self,
        prompts: Sequence[Prompt],
        examples: ExampleIds,
        decoding: Decoding,
        faults: Mapping[int, str],
    ) -> Generated:
        """The answers under prompts; an example that is asked for twice is answered once.

        Args:
            prompts: Prompts of any kinds that the template takes.
            examples: Ids, shape `(examples,)`.
            decoding: The way in which answers are generated.
            faults: The places of prompts that cannot be read, each with the reason.
        """
        places = {e: i for i, e in enumerate(dict.fromkeys(map(int, examples)))}
        unique = [self._split.examples[e] for e in places]
        columns = [places[int(e)] for e in examples]
        texts: list[list[tuple[str, ...]]] = [[()] * len(columns) for _ in prompts]
        ended: list[list[tuple[bool, ...]]] = [[()] * len(columns) for _ in prompts]
        tokens = np.zeros((len(prompts), len(columns)), dtype=np.int64)
        failures, computed = dict(faults), 0
        good = [i for i in range(len(prompts)) if i not in failures]
        for some in _together(prompts, good, len(unique)):
            found, count = self._rows({i: prompts[i] for i in some}, unique, decoding, failures)
            computed += count
            for i, own in found.items():
                if reason := _broken(own, unique, prompts[i], self._split.name):
                    failures[i] = reason
                    continue
                texts[i] = [tuple(map(self._ending.text, own[c].answers)) for c in columns]
                ended[i] = [own[c].ended for c in columns]
                tokens[i] = [own[c].tokens for c in columns]
        return Generated(texts, ended, tokens, computed, failures)

    def _rows(
        self,
        prompts: Mapping[int, Prompt],
        examples: Sequence[Example],
        decoding: Decoding,
        failures: dict[int, str],
    ) -> tuple[dict[int, list[Written]], int]:
        """The answers of all examples under prompts that are made ready together.

        Args:
            prompts: The prompts by their places.
            examples: The examples.
            decoding: The way in which answers are generated.
            failures: The places of prompts that an example is too long for, with the reason; grows.

        Returns:
            The answers by the places of the prompts, and the number of tokens that went through the
            LM.
        """
        lm = self._lm
        weights = next(iter(prompts.values())).parts.weights or {}
        with lm.changed(weights):
            library = compile_prompts(lm, [(each, self._template) for each in prompts.values()])
            starts: dict[int, list[Start]] = {}
            for i, compiled in zip(prompts, library.prompts, strict=True):
                try:
                    starts[i] = [
                        _start(lm, compiled, example, self._split.name, decoding)
                        for example in examples
                    ]
                except PromptError as error:
                    failures[i] = str(error)
            every = [start for own in starts.values() for start in own]
            found, computed = go_on(
                lm, every, library, self._ending.reached, decoding, self._memory
            )
        rows = iter(found)
        answers = {i: list(islice(rows, len(own))) for i, own in starts.items()}
        return answers, computed + sum(len(each.above) for each in library.prompts)


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
    start = Start.of(lm, row, decoding, place)
    # Masks cannot be fewer than the answer that is asked for.
    if start.limit < (1 if lm.family.writes else decoding.tokens):
        raise PromptError(
            f"{place} has {row.longest()} tokens with its prompt, but the model reads at most "
            f"{lm.context} with the answer: shorten it (it is never cut silently)"
        )
    return start


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
