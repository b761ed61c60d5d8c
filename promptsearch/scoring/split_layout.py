"""The layouts of all examples of a split, and the sizes that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import TemplateError
from promptsearch.models import LanguageModel
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.layout import Tokens, lay_out
from promptsearch.scoring.tree import common
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.task import Split
from promptsearch.tasks.template import Template


class SplitLayout:
    """The layouts of a split's examples.

    Args:
        template: The template, bound.
        lm: The model, for its tokenizer.
        split: The examples.
        choices: The task's choices; None where they differ by row, and for text answers.
        slots: The tokens that the prompt puts into each slot; left out: the slots are full.
        normalise: The length by which log-probabilities of answers to choose from are divided.

    Attributes:
        layouts: The layout of each example.
        context: The number of each example's tokens behind its lead, without the prompt's own,
            shape `(examples,)`.
        lead: The number of each example's tokens before the first slot, shape `(examples,)`.
        tail: The number of each example's tokens from there up to the answer, or of all that stand
            around it, likewise.
        readings: The number of times that an example is read with one prompt, likewise.
        one_token: Whether each answer is one token, the same ones in all examples, and their logits
            say as much as their log-probabilities.
        options: The largest number of answers to choose from; 0 for text answers.

    Raises:
        TemplateError: Prompts stand apart from the text, and no text stands before the answer of an
            example: such a prompt predicts nothing itself.
    """

    def __init__(
        self,
        template: Template,
        lm: LanguageModel,
        split: Split,
        choices: Sequence[str] | None,
        slots: Sequence[Tokens] | None = None,
        *,
        normalise: Normalise = "none",
    ) -> None:
        self._lm, self._split = lm, split
        self.layouts = [
            lay_out(template, lm, example, choices, slots) for example in split.examples
        ]
        self.context = np.array([layout.context for layout in self.layouts])
        self.lead = np.array([layout.lead for layout in self.layouts])
        self.tail = np.array([layout.tail for layout in self.layouts])
        self.readings = np.array([layout.readings for layout in self.layouts])
        by_row = any(example.options is not None for example in split.examples)
        self.one_token = (
            choices is not None
            and not by_row
            and normalise in ("none", "tokens")  # of one token each
            and all(len(answer) == 1 for answer in self.layouts[0].answers)
        )
        to_choose = choices is not None or by_row
        self.options = max(len(x.answers) for x in self.layouts) if to_choose else 0
        answers = np.array([max(map(len, x.answers)) for x in self.layouts])
        begun = np.array([len(x.start) for x in self.layouts])
        self._lengths = self.tail + self.lead + (-begun if begun.any() else answers)
        if begun.any():
            self._check_written(begun + answers)
        if template.apart:
            self._check_apart()

    def check_length(self, prompt: int | ExampleIds) -> None:
        """Refuse a prompt with which the longest example is longer than the model's context.

        Args:
            prompt: The number of the prompt's tokens, or that of each example, shape `(examples,)`.

        Raises:
            TemplateError: The example is too long.
        """
        lengths = self._lengths + prompt
        longest = int(lengths.argmax())
        tokens, limit = int(lengths[longest]), self._lm.context
        prompt = tokens - int(self._lengths[longest])
        if limit is not None and tokens > limit:
            advice = "the prompt" if prompt > tokens - prompt else "the example or leave it out"
            raise TemplateError(
                f"{self._split.name} example {longest} has {tokens} tokens with a prompt of "
                f"{prompt}, but the model reads at most {limit}: shorten {advice} "
                "(nothing is cut silently)"
            )

    def _check_written(self, lengths: NDArray[np.int64]) -> None:
        """Refuse answers that are longer than the rows of a decoder."""
        longest, limit = int(lengths.argmax()), self._lm.context
        if limit is not None and lengths[longest] > limit:
            raise TemplateError(
                f"an answer of {self._split.name} example {longest} has {lengths[longest]} tokens "
                f"with its beginning, but the decoder of '{self._lm.name}' writes at most {limit}: "
                "shorten it or leave it out (nothing is cut silently)"
            )

    def anatomy(self) -> dict[str, float]:
        """The tokens of a row by what they belong to, mean over the examples, without the prompt's.

        Returns:
            `static` (before the first slot, the same in all examples), `input`, and `answer` (the
            tokens of all answers, or the masks that stand for them); each as often as it is read.
        """
        static = min(common(x.segments[0], self.layouts[0].segments[0]) for x in self.layouts)
        answer = float((self.context - self.tail * self.readings).mean())
        return {
            "static": static,
            "input": float((self.lead + self.context).mean()) - static - answer,
            "answer": answer,
        }

    def _check_apart(self) -> None:
        for example, layout in zip(self._split.examples, self.layouts, strict=True):
            if not any(layout.segments):
                raise TemplateError(
                    f"no text stands before the answer of {self._split.name} example {example.id}: "
                    "expected at least a token"
                )
