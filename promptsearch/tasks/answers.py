"""Answers: what the label of a row stands for.

A label is the answer itself, or several texts that are all right (references); or it stands for one
of the answers to choose from, those of the task (`promptsearch.tasks.choices`) or of its row
(`promptsearch.tasks.options`). A label that holds a list, a mapping or a number where a text is
wanted is never turned into text in silence.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from promptsearch.errors import FieldError, TaskError
from promptsearch.printable import brief
from promptsearch.tasks.examples import Example, Read, content_of
from promptsearch.tasks.fields import (
    Row,
    as_list,
    has_other_text,
    is_missing,
    listed,
    shown,
    text_of,
    texts_in,
    value_in,
)
from promptsearch.tasks.template import Template


class Answers(ABC):
    """What labels stand for.

    Args:
        template: The template, which may put a space before answers.
        field: The field that holds labels.
    """

    #: The answers to choose from that all rows share, as they stand behind the template.
    choices: tuple[str, ...] | None = None
    #: The field that lists a row's own answers to choose from; None where rows have none.
    options: str | None = None
    #: What a reader should know of the answers that nobody wrote down.
    told: tuple[str, ...] = ()

    def __init__(self, template: Template, field: str) -> None:
        self.template, self.field = template, field

    @abstractmethod
    def read(self, row: Row, fields: Mapping[str, str], group: str) -> Read:
        """The example of a row.

        Args:
            row: The row.
            fields: The texts of the template's fields.
            group: The group of rows that it belongs to.

        Raises:
            FieldError: The label is missing or empty, or has no answer.
        """

    @abstractmethod
    def notes(self, rows: Sequence[Row], read: Sequence[Read]) -> list[str]:
        """What a reader should know of labels and answers.

        Args:
            rows: All rows.
            read: What `read` gave for them.
        """

    def made(self, place: str, labels: tuple[str, ...], example: Example) -> Read:
        """What `read` gives: the example with the text that makes it the same as another."""
        # Joined over slots, since a prompt in front leaves nothing between them.
        text = "".join(self.template.fill(example.fields))
        return Read(place, labels, example, "\0".join([text, *sorted(example.options or ())]))

    def empty(self, place: str, wanted: str) -> FieldError:
        """The error to raise where a label is empty."""
        return FieldError(f"{place}: the field '{self.field}' is empty: expected {wanted}")


class TextAnswers(Answers):
    """Labels that are right answers themselves: a text, or a list of texts that are all right.

    Args:
        template: The template, which may put a space before answers.
        field: The field that holds labels.
        aliases: Answer -> another text that counts as right, or several; or `{"field": NAME}`, a
            field that holds such texts, or null, or nothing.
        references: How many of a row's right answers count in the loss; the others count as aliases
            do. None for all.

    Raises:
        TaskError: An alias has no text, or is empty.
    """

    def __init__(
        self,
        template: Template,
        field: str,
        aliases: Mapping[Any, Any] | None = None,
        references: int | None = None,
    ) -> None:
        super().__init__(template, field)
        if references is not None and references < 1:
            raise TaskError(f"expected at least 1 of the references in the loss, got {references}")
        self._references = references
        self._others = field_of(aliases)
        self._aliases = _mapped(aliases or {}) if self._others is None else {}

    def read(self, row: Row, fields: Mapping[str, str], group: str) -> Read:
        """The example of a row, see `Answers.read`."""
        labels = texts_in(row, self.field, row.place)
        if not all(text.strip() for text in labels):
            if len(labels) == 1:
                raise self.empty(row.place, "the right answer")
            raise FieldError(
                f"{row.place}: the field '{self.field}' lists an empty text: expected right answers"
            )
        labels = tuple(dict.fromkeys(labels))
        others = [text for answer in labels for text in self._aliases.get(answer, ())]
        aliases = map(self.template.answer_text, [*self._of_row(row), *others])
        return self._example(row.place, labels, fields, group, tuple(aliases))

    def joined(self, same: Sequence[Read]) -> Read:
        """One example for rows of the same text: what each calls right is right.

        The answer of most rows comes first. A hash orders what as many say, and content says whose
        fields are kept, never the rows' order.

        Args:
            same: What `read` gave for the rows.
        """
        votes = Counter(label for each in same for label in each.labels)
        labels = sorted(votes, key=lambda label: (-votes[label], sha256(label.encode()).digest()))
        aliases = {alias for each in same for alias in each.example.aliases}
        first = min(same, key=_place)
        given = first.example
        return self._example(
            first.place, tuple(labels), given.fields, given.group, tuple(sorted(aliases))
        )

    def _example(
        self,
        place: str,
        labels: tuple[str, ...],
        fields: Mapping[str, str],
        group: str,
        aliases: tuple[str, ...],
    ) -> Read:
        """The example of one row or several, of whose labels the first ones count in the loss."""
        texts = tuple(map(self.template.answer_text, labels))
        kept = texts[: self._references]
        others = dict.fromkeys([*texts[len(kept) :], *aliases])
        example = Example(
            -1,
            fields,
            kept[0],
            None,
            tuple(text for text in others if text not in kept),
            kept[1:],
            group=group,
        )
        return self.made(place, labels, example)

    def notes(self, rows: Sequence[Row], read: Sequence[Read]) -> list[str]:
        """Labels that are no texts, and aliases that no row has use for or no answer can be."""
        notes = []
        met = {text for each in read for text in each.labels}
        if unused := [text for text in self._aliases if text not in met]:
            notes.append(f"aliases without a row: of {listed(unused)}")
        ended = [
            (text, each.place)
            for each in read
            for text in each.example.aliases
            if self.template.ends_within(text)
        ]
        if ended:
            count, (text, place) = len({text for text, _ in ended}), ended[0]
            notes.append(
                f"{count} alias{'es' * (count != 1)} that no answer can be, since the template "
                f"ends answers at {self.template.end!r}: such as {brief(text)} ({place})"
            )
        written = [
            each
            for row, each in zip(rows, read, strict=True)
            if has_other_text(value_in(row, self.field, row.place))
        ]
        if written:
            such = f"such as {shown(written[0].labels[0])} ({written[0].place})"
            notes.append(
                f"the field '{self.field}' holds no text in {len(written)} row"
                f"{'s' * (len(written) != 1)}, but numbers or the like, whose text is the answer; "
                + such
            )
        return notes

    def _of_row(self, row: Row) -> tuple[str, ...]:
        if self._others is None:
            return ()
        value = value_in(row, self._others, row.place)
        # An empty cell is how a table says that there is none.
        empty = not value.strip() if isinstance(value, str) else as_list(value) in ([], ())
        if empty or is_missing(value):
            return ()
        texts = texts_in(row, self._others, row.place)
        if not all(text.strip() for text in texts):
            raise FieldError(
                f"{row.place}: the field '{self._others}' lists an empty text, and no empty answer "
                "counts as right: expected texts"
            )
        return texts


def _place(each: Read) -> tuple[bytes, str]:
    """What rows of the same text are put in order by: a hash of the group, then all content."""
    content = json.dumps(content_of(each.example), sort_keys=True)
    return sha256(each.example.group.encode()).digest(), content


def _mapped(aliases: Mapping[Any, Any]) -> dict[str, tuple[str, ...]]:
    """The other texts of each answer that a mapping gives.

    Raises:
        TaskError: It is none, or gives something else than texts.
    """
    if not isinstance(aliases, Mapping):
        raise TaskError(
            f"aliases are {brief(aliases)}: expected {{ANSWER: TEXTS}}, or {{'field': NAME}}"
        )
    found = {}
    for answer, given in aliases.items():
        key, texts = stated(answer, "aliases"), [given] if isinstance(given, str) else given
        if not isinstance(texts, (list, tuple)):
            raise TaskError(
                f"the aliases of {shown(key)} are {brief(given)}: expected a text, or a list of "
                "texts"
            )
        found[key] = tuple(stated(text, "aliases") for text in texts)
        if not all(text.strip() for text in found[key]):
            raise TaskError(
                f"an alias of {shown(key)} is empty, and no empty answer counts as right: expected "
                "text"
            )
    return found


def field_of(given: object) -> str | None:
    """The field that `{"field": NAME}` names; None for anything else."""
    if isinstance(given, Mapping) and set(given) == {"field"} and isinstance(given["field"], str):
        return given["field"]
    return None


def options_of(given: object) -> tuple[str, str | None] | None:
    """The fields of options and of their names that `{"field": NAME, "names": NAME}` names.

    The second one may be left out, and is None then; None for anything else.
    """
    if not isinstance(given, Mapping):
        return None
    names = given.get("names")
    field = field_of({key: value for key, value in given.items() if key != "names"})
    return (field, names) if field and (names is None or isinstance(names, str)) else None


def stated(value: Any, key: str) -> str:
    """The text of what a study file states under a key.

    Raises:
        TaskError: It has none.
    """
    try:
        return text_of(value)
    except FieldError as reason:
        raise TaskError(f"under {key}, {shown(repr(value))} {reason}") from reason


def in_words(text: str) -> str:
    """A text without what two answers may not differ by alone: spaces."""
    return " ".join(text.split())
