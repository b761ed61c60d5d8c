"""What lm-evaluation-harness reads in a document: the question, the choices and the target.

These are the rules of its `ConfigurableTask`, version 0.4.13: a key names a field of the documents,
or is a Jinja template. What a rendered template is read as (a number, a list) follows it, too.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from promptsearch.errors import FieldError, TaskError
from promptsearch.importing import strangers
from promptsearch.printable import brief
from promptsearch.tasks.answers import in_words
from promptsearch.tasks.fields import text_of
from promptsearch.tasks.jinja import JinjaTemplate
from promptsearch.tasks.lm_eval.config import TaskFile

Document = Mapping[str, Any]


class Reading:
    """Reads documents as a task's file says.

    Args:
        file: The task's file.
        fields: The names of the fields of the documents that are scored.
    """

    def __init__(self, file: TaskFile, fields: frozenset[str]) -> None:
        self._file, self._fields = file, fields
        self._templates: dict[tuple[str, str], JinjaTemplate] = {}

    def question(self, document: Document, place: str, given: str | int | None = None) -> str:
        """The text that asks.

        Args:
            document: The document.
            place: Where it stands, for messages.
            given: What takes the place of the file's `doc_to_text`; None for that itself.

        Raises:
            TaskError: There is no text.
        """
        wanted = self._file.config.doc_to_text if given is None else given
        found = (
            wanted
            if isinstance(wanted, int)
            else self._value("doc_to_text", wanted, document, place)
        )
        choices = self._file.config.doc_to_choice is not None
        if isinstance(found, int) or (isinstance(found, str) and found.isdigit() and choices):
            raise TaskError(
                f"{place}: doc_to_text gives the number {found}, so that each choice would stand "
                "in a text of its own; expected one text, and choices behind it"
            )
        if not isinstance(found, str):
            raise self._wrong("doc_to_text", "a text", found, place)
        return found

    def choices(self, document: Document, place: str, given: Any = None) -> list[str]:
        """The answers to choose from.

        Args:
            document: The document.
            place: Where it stands, for messages.
            given: What takes the place of the file's `doc_to_choice`; None for that itself.

        Raises:
            TaskError: There is no list of texts.
        """
        wanted = self._file.config.doc_to_choice if given is None else given
        if isinstance(wanted, str):
            found = self._value("doc_to_choice", wanted, document, place)
            if wanted not in self._fields:
                found = self._literal("doc_to_choice", found, place)
        else:
            found = list(wanted.values()) if isinstance(wanted, Mapping) else wanted
        listed = isinstance(found, (list, tuple)) and all(isinstance(c, str) and c for c in found)
        if not listed or not found:
            raise self._wrong("doc_to_choice", "a list of texts", found, place)
        return list(found)

    def options(self, document: Document, place: str) -> list[str]:
        """The choices of a document of which one is to be chosen.

        Raises:
            TaskError: There are no two, or nothing could tell two of them apart.
        """
        found = self.choices(document, place)
        words = {in_words(choice) for choice in found} - {""}
        if len(found) < 2 or len(words) < len(found):
            wanted = (
                "at least two texts, no two of which differ by spaces alone; mend the document, or "
                "take it out of the data"
            )
            raise self._wrong("doc_to_choice", wanted, found, place)
        return found

    def target(self, document: Document, place: str, given: Any = None) -> Any:
        """The right answer: a place among the choices, a text, or a list of either.

        Args:
            document: The document.
            place: Where it stands, for messages.
            given: What takes the place of the file's `doc_to_target`; None for that itself.
        """
        wanted = self._file.config.doc_to_target if given is None else given
        if not isinstance(wanted, str):
            return wanted
        found = self._value("doc_to_target", wanted, document, place)
        if wanted in self._fields:
            return found
        if found.isdigit() and self._file.config.doc_to_choice is not None:
            return self._literal("doc_to_target", found, place)
        if len(found) > 1 and found[0] == "[" and found[-1] == "]":
            try:
                return self._literal("doc_to_target", found, place)
            except TaskError:
                return found
        return found

    def right(self, document: Document, choices: Sequence[str], place: str) -> int:
        """The place of the right answer among the choices.

        Raises:
            TaskError: There is none, or more than one.
        """
        target = self.target(document, place)
        if isinstance(target, list) and len(target) == 1:
            (target,) = target
        if isinstance(target, str) and target in choices:
            return list(choices).index(target)
        if isinstance(target, int) and 0 <= target < len(choices):
            return int(target)
        if isinstance(target, list):
            raise self._wrong("doc_to_target", "one right choice", target, place)
        wanted = f"one of the {len(choices)} choices, or its place from 0"
        raise self._wrong("doc_to_target", wanted, target, place)

    def answers(self, document: Document, place: str) -> list[str]:
        """The texts of the right answers, where the answer is a text.

        Raises:
            TaskError: There is none.
        """
        target = self.target(document, place)
        if self._file.config.doc_to_choice is not None:
            choices = self.choices(document, place)
            return [choices[self.right(document, choices, place)]]
        found = list(target) if isinstance(target, (list, tuple)) else [target]
        if not found:
            raise self._wrong("doc_to_target", "a text, or a list of texts", target, place)
        try:
            return list(dict.fromkeys(text_of(each) for each in found))
        except FieldError as reason:
            where = f"{place}: doc_to_target of {self._file.path.name}"
            raise TaskError(f"{where} {reason}") from reason

    def identity(self, document: Document, place: str) -> str:
        """The text by which documents are the same: what is read of one, and its choices.

        The solved examples before it are none of it.
        """
        parts = [each(document, place) for each in (self.description, self.question, self.prefix)]
        chosen = self._file.config.output_type == "multiple_choice"
        return "\0".join([*parts, *(sorted(self.choices(document, place)) if chosen else ())])

    def description(self, document: Document, place: str) -> str:
        """The text that stands before everything else."""
        wanted = self._file.config.description
        found = document.get(wanted)
        if found is None:
            found = self._rendered("description", wanted, document, place) if wanted else ""
        return str(found)

    def prefix(self, document: Document, place: str, given: str | None = None) -> str:
        """The text with which an answer begins, which is given to the model."""
        wanted = self._file.config.gen_prefix if given is None else given
        return "" if wanted is None else str(self._value("gen_prefix", wanted, document, place))

    def _value(self, key: str, wanted: str, document: Document, place: str) -> Any:
        """A field's value, or a rendered template."""
        if wanted in self._fields:
            if wanted not in document:
                raise TaskError(f"{place}: there is no field '{wanted}', which {key} names")
            return document[wanted]
        return self._rendered(key, wanted, document, place)

    def _rendered(self, key: str, source: str, document: Document, place: str) -> str:
        if (key, source) not in self._templates:
            what = f"{key} of {self._file.path.name}"
            self._templates[key, source] = JinjaTemplate(source, what)
        return self._templates[key, source].render(document, place)

    def _literal(self, key: str, text: str, place: str) -> Any:
        """The value that a text writes down as Python does: numbers, texts and lists alone."""
        with strangers(lambda error: self._wrong(key, "a list or a number", text, place)):
            return ast.literal_eval(text)

    def _wrong(self, key: str, wanted: str, found: Any, place: str) -> TaskError:
        name = self._file.path.name
        return TaskError(f"{place}: {key} of {name} gives {brief(found)}: expected {wanted}")
