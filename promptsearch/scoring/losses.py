"""The losses of prompts on the examples of a split, by the LM.

Prompts and numbers are checked, put into their places and sent through the rows of the split; what
comes out is graded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from promptsearch.errors import PromptError, PromptSearchError
from promptsearch.models import LanguageModel
from promptsearch.prompts.numbers import VECTORS, Numbers
from promptsearch.prompts.prompt import AnswerWords, Prompt
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.answer_ids import Tokens, single_words, told_ids
from promptsearch.scoring.answers import Graded, exact, grade_choices, grade_texts, table_of_choices
from promptsearch.scoring.beginnings import Beginnings
from promptsearch.scoring.choice_lengths import choice_lengths
from promptsearch.scoring.joints import first_fault
from promptsearch.scoring.kinds import PLACINGS, Placed, Sharing, check_bias, place, place_numbers
from promptsearch.scoring.layout import slots_of
from promptsearch.scoring.rows import TokenRows
from promptsearch.scoring.split_layout import SplitLayout
from promptsearch.scoring.tree import Path
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.task import Split
from promptsearch.tasks.template import Template


class Losses:
    """What computes the losses of prompts on one split under one template.

    Args:
        lm: The model, in the dtype to score in.
        template: The template, bound to the lengths of its slots.
        split: The examples.
        choices: The task's choices; None where they differ by row, and for text answers.
        normalise: See `Engine`.
        memory: See `Engine`.
        keep: See `Engine`.

    Attributes:
        placing: The way in which the template's prompts go through the LM.
        layout: The layouts of the examples, for prompts that fill all slots.
        rows: The rows of such prompts.
        begun: The layouts and rows of all prompts.
    """

    def __init__(
        self,
        lm: LanguageModel,
        template: Template,
        split: Split,
        choices: Sequence[str] | None,
        *,
        normalise: Normalise = "none",
        memory: int | None,
        keep: bool,
    ) -> None:
        self._lm, self._template, self._split, self._choices = lm, template, split, choices
        self._right = np.array([-1 if e.choice is None else e.choice for e in split.examples])
        self.placing = placing = PLACINGS[template.kind]
        self.layout = layout = SplitLayout(template, lm, split, choices, normalise=normalise)
        self._lengths = choice_lengths(normalise, template, lm, split, choices, layout)
        # The last prompt that is another one before each example: these, and their lengths.
        self._before: dict[str, tuple[Sequence[Prompt], Sequence[int]]] = {}
        if placing.given:
            _ = lm.prefix_shape  # a model that takes no prefix says so before anything is scored

        def make(layout: SplitLayout, keep: bool = False) -> TokenRows:
            return TokenRows(
                lm,
                layout.layouts,
                placing,
                one_token=layout.one_token,
                name=split.name,
                memory=memory,
                keep=keep,
            )

        def laid_out(slots: Sequence[Path]) -> SplitLayout:
            return SplitLayout(template, lm, split, choices, slots, normalise=normalise)

        self.rows = make(layout, keep)
        cut_anew = lm.tokens.marks_beginnings and not template.apart
        self.begun = Beginnings(layout, self.rows, laid_out if cut_anew else None, make)

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens in a row that belong to a prompt that is trained."""
        return 0 if self.placing.beside else self._template.length

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt that the template does not take.

        Raises:
            PromptError: It is of another kind or shape, or corrects other choices.
        """
        if prompt.placement != self._template.kind:
            raise PromptError(
                f"under this template {self.placing.noun} are scored, got a {type(prompt).__name__}"
            )
        _check_fit(prompt.misfit(self._template.length, self._lm))
        check_bias(prompt, self._choices)

    def before(self, prompt: Prompt) -> Sequence[Prompt] | None:
        """The prompt before each example of the split; None where it is the same before all."""
        if prompt.written or prompt.trained:
            return None
        if prompt.key not in self._before:
            if (met := prompt.before(self._lm)) is None:
                return None
            own = [met(example.fields) for example in self._split.examples]
            self._before = {prompt.key: (own, [self.length(each) for each in own])}
        return self._before[prompt.key][0]

    def length(self, prompt: Prompt) -> int:
        """The number of tokens that a prompt puts into the slots.

        It is the mean over the examples, rounded up, where it differs from one to the other.

        Raises:
            PromptError: The template takes no such prompt, or one of another shape.
        """
        return math.ceil(np.mean(self.lengths(prompt)))

    def lengths(self, prompt: Prompt) -> int | ExampleIds:
        """The same number for each example, shape `(examples,)`, where it differs; else one."""
        self.check(prompt)
        if prompt.length is not None:
            return prompt.length
        if self.before(prompt) is not None:
            return np.array(self._before[prompt.key][1])
        return sum(map(len, slots_of(self._template, self._lm, prompt)))

    def own_lengths(self, prompt: Prompt) -> ExampleIds:
        """The number for each example where it differs, shape `(examples,)`; else none."""
        lengths = np.asarray(self.lengths(prompt))
        return lengths if lengths.ndim else np.zeros(0, dtype=np.int64)

    def faults(self, prompts: Sequence[Prompt], examples: ExampleIds) -> dict[int, str]:
        """The places of prompts that cannot be read, each with the reason.

        Args:
            prompts: The prompts; only those are looked at that may have any length, or have answer
                words of their own.
            examples: Ids, shape `(examples,)`.
        """
        return {
            i: fault
            for i, prompt in enumerate(prompts)
            if (prompt.length is None or prompt.answers) and (fault := self.fault(prompt, examples))
        }

    def fault(self, prompt: Prompt, examples: ExampleIds) -> str | None:
        """The reason why a prompt of words cannot be scored, or None.

        Args:
            prompt: A prompt whose length only the tokenizer knows, or one with answer words.
            examples: Ids, shape `(examples,)`.
        """
        try:
            prompt.fill(self._template)
            self.layout.check_length(self.lengths(prompt))
            self._told(prompt)
        except PromptSearchError as error:
            return str(error)
        if (own := self.before(prompt)) is not None:
            return next((why for e in examples if (why := self._unread(own[e], [e]))), None)
        return self._unread(prompt, examples)

    def _unread(self, prompt: Prompt, examples: Iterable[int]) -> str | None:
        """The reason why a prompt that goes into the template cannot be scored, or None."""
        slots = slots_of(self._template, self._lm, prompt)
        layouts, choices = self.begun.layout(slots).layouts, self._choices
        if (told := self._told(prompt)) is not None:
            ids = [(token,) for some in told for token in some]
            choices = [word for some in prompt.answers or () for word in some]
            layouts = [replace(layout, answers=tuple(ids)) for layout in layouts]
        return first_fault(
            self._template, self._lm, self._split, layouts, prompt, slots, choices, examples
        )

    def placed(self, prompts: Sequence[Prompt]) -> Placed:
        """The prompts, ready to go through the LM.

        Raises:
            PromptError: The template takes no such prompt, or one of another shape.
        """
        for prompt in prompts:
            self.check(prompt)
        return place(self._template, self._lm, prompts)

    def of_prompts(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Graded:
        """The losses of prompts.

        Changed weights go one after the other, prompts with the same answer words together, and a
        prompt that differs by row with its own rows.

        Args:
            prompts: The prompts.
            examples: Ids, shape `(examples,)`.

        Raises:
            PromptError: The template takes no such prompt, or one of another shape.
        """
        if by_row := {i: own for i, p in enumerate(prompts) if (own := self.before(p)) is not None}:
            same = [i for i in range(len(prompts)) if i not in by_row]
            found = [self._by_row(own, examples) for own in by_row.values()]
            if same:
                found.append(self.of_prompts([prompts[i] for i in same], examples))
            return Graded.joined(found, [*by_row, *same])
        if self.placing.trained.frozen:
            return self._by_answers(prompts, examples)
        parts = []
        for prompt in prompts:
            placed = self.placed([prompt])
            with self._lm.changed(prompt.parts.weights or {}):
                parts.append(self._score(placed, examples))
        return Graded.joined(parts)

    @cached_property
    def words(self) -> dict[str, int]:
        """The words that are a single token as an answer, as they stand behind the template."""
        return single_words(self._lm, self._choices)

    def word_logits(self, prompt: Prompt, examples: ExampleIds) -> tuple[tuple[str, ...], Tensor]:
        """All `words`, and their logits in the place of the answer.

        Args:
            prompt: A prompt of words.
            examples: Ids, shape `(examples,)`.

        Returns:
            The words, and their logits, float32 on the CPU, shape `(examples, words)`.

        Raises:
            PromptError: The prompt cannot be read.
        """
        if fault := self.faults([prompt], examples):
            raise PromptError(fault[0])
        unique, back = np.unique(examples, return_inverse=True)
        placed = replace(self.placed([prompt]), told=tuple(self.words.values()))
        with torch.inference_mode():
            flat, _, _ = self.begun.compute(placed, unique, None)
        return tuple(self.words), flat[0][torch.from_numpy(back)].clone()

    def _by_row(self, own: Sequence[Prompt], examples: ExampleIds) -> Graded:
        """The losses of a prompt that is another one before each example of the split."""
        unique, back = np.unique(examples, return_inverse=True)
        placed = replace(self.placed([own[e] for e in unique]), paired=True)
        return self._score(placed, unique).at(back.tolist())

    def of_numbers(self, numbers: Numbers, examples: ExampleIds) -> Graded:
        """The losses of a prompt that is being trained, with gradients.

        Args:
            numbers: The prompt's numbers.
            examples: Ids, shape `(examples,)`.
        """
        placed, sharing = self.placed_numbers(numbers)
        with self._lm.changed(self.placing.trained.parts_of(numbers).weights or {}):
            return self._score(placed, examples, sharing)

    def placed_numbers(self, numbers: Numbers) -> tuple[Placed, Sharing]:
        """A prompt that is being trained, ready to go through the LM, and what its rows share."""
        trained = self.placing.trained
        if not trained.takes(numbers):
            named = isinstance(numbers, Mapping) and VECTORS in numbers
            got = f"{type(numbers).__name__}{' with vectors' if named else ''}"
            raise PromptError(f"under this template {self.placing.noun} are trained, got a {got}")
        tensors = trained.sized_tensors(numbers)
        _check_fit(trained.misfit_of(tensors, self._template.length, self._lm))
        # No gradient reaches what stands before the prompt: it is computed beforehand, as a trunk.
        led = self._lm.passes.trees and self.layout.lead.any()
        sharing: Sharing = "input" if led else self.placing.training
        return place_numbers(self._template, self._lm, numbers), sharing

    def _told(self, prompt: Prompt) -> tuple[Tokens, ...] | None:
        """The ids of a prompt's own answer words, those of each class; None where it has none."""
        if prompt.answers is None:
            return None
        return told_ids(self._lm, prompt.answers, self._choices)

    def _by_answers(self, prompts: Sequence[Prompt], examples: ExampleIds) -> Graded:
        """The losses of prompts of words, those with the same answer words together."""
        together: dict[AnswerWords | None, list[int]] = {}
        for i, prompt in enumerate(prompts):
            together.setdefault(prompt.answers, []).append(i)
        parts = []
        for places in together.values():
            some = [prompts[i] for i in places]
            parts.append(self._score(self.placed(some), examples, told=self._told(some[0])))
        return Graded.joined(parts, [i for places in together.values() for i in places])

    def _score(
        self,
        placed: Placed,
        examples: ExampleIds,
        sharing: Sharing | None = None,
        told: tuple[Tokens, ...] | None = None,
    ) -> Graded:
        """The losses of prompts on examples; an id that is asked for twice is computed once.

        With `told`, the ids of the words of each class, the probabilities of a class's words are
        added up (AutoPrompt, equation 1). Each is one token, so nothing is divided by lengths.
        """
        places = {e: i for i, e in enumerate(dict.fromkeys(map(int, examples)))}
        unique = np.array(list(places))
        if told is not None:
            placed = replace(placed, told=tuple(token for some in told for token in some))
        flat, begins, computed = self.begun.compute(placed, unique, sharing)
        if told is not None:
            table = exact(flat).unflatten(-1, (len(told), -1)).logsumexp(-1)
            graded = grade_choices(table, torch.from_numpy(self._right[unique]), computed)
        elif not self.layout.options:
            graded = grade_texts(flat, begins, computed)
        else:
            one = self.layout.one_token
            table = flat if one else table_of_choices(flat[..., 0], begins, self.layout.options)
            right = torch.from_numpy(self._right[unique])
            lengths = None if self._lengths is None else self._lengths[unique]
            graded = grade_choices(table, right, computed, lengths, placed.bias)
        if len(places) == len(examples):
            return graded
        return graded.at([places[int(e)] for e in examples])


def _check_fit(misfit: tuple[str, str] | None) -> None:
    if misfit:
        has = f"shape {misfit[0]} under this template and model"
        raise PromptError(f"a trained prompt has {has}, got {misfit[1]}")
