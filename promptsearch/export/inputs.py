"""An input of a user, read and checked: a row of data below its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from promptsearch.errors import FieldError, PromptError, UnknownName
from promptsearch.models import LanguageModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring.answer_ids import Tokens, answer_ids, told_ids
from promptsearch.scoring.ready import InputRow
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.fields import text_in
from promptsearch.tasks.normalise import Normalise
from promptsearch.tasks.options import options_in
from promptsearch.tasks.task import Example
from promptsearch.tasks.template import Template


class Found(Protocol):
    """A found prompt with all that its use needs, such as a `SavedPrompt`."""

    @property
    def prompt(self) -> Prompt:
        """The prompt."""

    @property
    def template(self) -> Template:
        """The template that it stands in, bound to its lengths."""

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The answers to choose from; None where they differ by row, and for text answers."""

    @property
    def options(self) -> str | None:
        """The field that holds a row's own answers to choose from; None where there is none."""

    @property
    def normalise(self) -> Normalise:
        """The length by which log-probabilities of answers to choose from are divided."""

    @property
    def decoding(self) -> Decoding:
        """How text answers are generated."""

    def model(self, given: LanguageModel | None = None) -> LanguageModel:
        """The model that the prompt was found for, see `Certificate.model`."""


@dataclass(frozen=True)
class Input:
    """A row that the user gave, read and checked.

    Args:
        place: Where the row stands, for messages.
        given: The row as the user gave it.
        saved: The row's prompt.
        row: The row's tokens below the prompt.
    """

    place: str
    given: Mapping[str, Any]
    saved: Found
    row: InputRow

    @property
    def answer(self) -> str:
        """The answer that the user gave.

        Raises:
            PromptError: There is none.
        """
        try:
            return text_in(self.given, "answer", self.place)
        except FieldError as error:
            raise PromptError(str(error)) from error

    @cached_property
    def choices(self) -> tuple[str, ...] | None:
        """The answers to choose from, as they stand behind the template; None for text answers.

        Raises:
            PromptError: The row should hold its own ones, and does not.
        """
        if self.saved.options is None:
            return self.saved.choices
        try:
            texts = options_in(self.given, self.saved.options, self.place)
        except FieldError as error:
            raise PromptError(str(error)) from error
        return tuple(map(self.saved.template.answer_text, texts))

    def scored(self, lm: LanguageModel) -> tuple[Tokens, ...]:
        """The ids of the answers that the row is scored with: those to choose from, or the given.

        Where words of the prompt stand for the classes, they are these, class by class.

        Args:
            lm: The model, for its tokenizer.

        Raises:
            PromptError: No answer was given, or one is empty.
        """
        if (told := self.saved.prompt.answers) is not None:
            ids = told_ids(lm, told, self.saved.choices)
            return tuple((token,) for some in ids for token in some)
        template, options = self.saved.template, self.choices
        texts = options or (template.answer_text(self.answer),)
        if not all(map(lm.encode_answer, texts)):
            raise PromptError(f"{self.place}: its answer is empty: expected text")
        return answer_ids(template, lm, Example(0, {}, texts[0], None, options=options), None)

    @property
    def answer_place(self) -> int:
        """The place of the given answer among the answers to choose from; 0 where there are none.

        Raises:
            PromptError: No answer was given.
            UnknownName: It is none of those to choose from.
        """
        if (choices := self.choices) is None:
            return 0
        answer, names = self.answer, [text.strip() for text in choices]
        if (whole := self.saved.template.answer_text(answer)) in choices:
            return choices.index(whole)
        if answer.strip() not in names:
            raise UnknownName("answer", answer.strip(), names)
        return names.index(answer.strip())

    def check_length(self, more: int, limit: int | None) -> None:
        """See that the model can read the row.

        Args:
            more: The tokens that stand below it.
            limit: The most tokens that the model reads; None where there is no limit.

        Raises:
            PromptError: It cannot.
        """
        tokens = self.row.longest(more)
        if limit is not None and tokens > limit:
            raise PromptError(
                f"{self.place} has {tokens} tokens with its prompt and answer, but the model reads "
                f"at most {limit}: shorten it (it is never cut silently)"
            )
