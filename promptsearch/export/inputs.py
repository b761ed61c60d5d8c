"""An input of a user, read and checked: a row of data below its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from promptsearch.errors import FieldError, PromptError, UnknownName
from promptsearch.models import LanguageModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring.ready import InputRow
from promptsearch.tasks.fields import text_in
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
        """The answers to choose from; None for text answers."""

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

    @property
    def answer_place(self) -> int:
        """The place of the given answer among the answers to choose from; 0 where there are none.

        Raises:
            PromptError: No answer was given.
            UnknownName: It is none of those to choose from.
        """
        if self.saved.choices is None:
            return 0
        answer, names = self.answer, [text.strip() for text in self.saved.choices]
        if (whole := self.saved.template.answer_text(answer)) in self.saved.choices:
            return self.saved.choices.index(whole)
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
        tokens = self.row.tokens + more
        if limit is not None and tokens > limit:
            raise PromptError(
                f"{self.place} has {tokens} tokens with its prompt and answer, but the model reads "
                f"at most {limit}: shorten it (it is never cut silently)"
            )
