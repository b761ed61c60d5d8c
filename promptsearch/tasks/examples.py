"""Examples from rows of data, each text once, with its right answer; and notes about the data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from promptsearch.errors import FieldError, TaskError
from promptsearch.tasks.fields import (
    listed,
    place_of,
    plain_value,
    pointed,
    shown,
    text_in,
    text_of,
)
from promptsearch.tasks.template import Template


@dataclass(frozen=True)
class Example:
    """One input with its right answers.

    Args:
        id: Its place in its split.
        fields: The texts of the template's fields.
        answer: The text of the right answer, the first one where there are several, as it stands
            behind the template.
        choice: The right answer's place among those to choose from; None for text answers.
        aliases: Other texts that count as right in the metric, and never in the loss.
        also: Further right answers, which count in the loss as the first one does.
        options: The answers to choose from where they differ by row; None where they are those of
            the task, or where the answer is text.
        group: The group of rows that it belongs to, such as an author; empty where there is none.
    """

    id: int
    fields: Mapping[str, str]
    answer: str
    choice: int | None
    aliases: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    options: tuple[str, ...] | None = None
    group: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """All right answers that count in the loss, at least one."""
        return (self.answer, *self.also)


class Answers:
    """The answers for which labels stand.

    Args:
        answers: Label value -> answer text; None where the label's text is the answer.
        aliases: Answer text -> other texts that count as right.
        template: The template, which may put a space before answers.
        label: The field that holds labels.

    Raises:
        TaskError: There are fewer than two answers, two answers differ by spaces at most, an answer
            has no text, or choices have aliases.
    """

    def __init__(
        self,
        answers: Mapping[Any, str] | None,
        aliases: Mapping[Any, Sequence[str]] | None,
        template: Template,
        label: str,
    ) -> None:
        self._template, self.field = template, label
        self.texts = None if answers is None else _texts(answers)
        self.aliases = {
            _stated(answer, "aliases"): tuple(_stated(text, "aliases") for text in texts)
            for answer, texts in (aliases or {}).items()
        }
        if self.texts is not None and self.aliases:
            raise TaskError("aliases belong to text answers; this task has answers to choose from")
        #: The answers to choose from, as they stand behind the template; None for text answers.
        self.choices: tuple[str, ...] | None = None
        if self.texts is not None:
            self.choices = tuple(map(template.answer_text, self.texts.values()))
        self._labels = list(self.texts or ())

    def example(self, fields: Mapping[str, str], label: str, place: str) -> Example:
        """The example of a row.

        Args:
            fields: The texts of the template's fields.
            label: The label's text.
            place: Where the row stands, for messages.

        Raises:
            FieldError: The label is empty, or has no answer.
        """
        if self.choices is not None:
            number = self._number(label, place)
            return Example(-1, fields, self.choices[number], number)
        if not label.strip():
            raise self._empty(place, "the right answer")
        others = tuple(map(self._template.answer_text, self.aliases.get(label, ())))
        return Example(-1, fields, self._template.answer_text(label), None, others)

    def _number(self, label: str, place: str) -> int:
        """The place of a label's answer, whose key has the same text, or else the same value."""
        if label in self._labels:
            return self._labels.index(label)
        same = [i for i, key in enumerate(self._labels) if plain_value(key) == plain_value(label)]
        if len(same) == 1:
            return same[0]
        if not label:
            raise self._empty(place, f"one of {listed(self._labels)}")
        hint = ""
        if label.lstrip("0") in self._labels:
            hint = f". Quotes keep a label of a study file as it is written: '{label}'"
        known = f"answers are given for {listed(self._labels)}"
        raise FieldError(f"{place}: the label {shown(label)} has no answer; {known}{hint}")

    def _empty(self, place: str, wanted: str) -> FieldError:
        return FieldError(f"{place}: the field '{self.field}' is empty: expected {wanted}")


class Read(NamedTuple):
    """An example as a row gives it.

    Args:
        place: Where the row stands.
        label: The text of the row's label.
        example: The example, not yet numbered.
    """

    place: str
    label: str
    example: Example


def read_examples(
    rows: Sequence[Mapping[str, Any]], template: Template, answers: Answers
) -> tuple[list[Example], list[str]]:
    """An example for every text, ordered by a hash of it, and notes about what is done to the data.

    Args:
        rows: Rows of the data, each field name -> value.
        template: The template, which says what fields are needed.
        answers: The answers for which labels stand, and the field of the labels.

    Raises:
        TaskError: A row lacks something; the message says where the row stands.
    """
    read = []
    for number, row in enumerate(rows, start=1):
        place = place_of(row, f"row {number} of the data")
        fields = {name: text_in(row, name, place) for name in template.fields}
        given = text_in(row, answers.field, place)
        read.append(Read(place, given, answers.example(fields, given, place)))
    examples, notes = _unique(read, template)
    return examples, [*notes, *_spelled(rows, read, template.fields, answers)]


def _unique(read: Sequence[Read], template: Template) -> tuple[list[Example], list[str]]:
    rows: dict[str, list[Read]] = {}
    for each in read:
        rows.setdefault("".join(template.fill(each.example.fields)), []).append(each)
    kept = {text: same[0] if len(same) == 1 else _most(same) for text, same in rows.items()}
    pairs = [(each, kept[text]) for text, same in rows.items() for each in same]
    lost = [(each, one) for each, one in pairs if each.example.answer != one.example.answer]
    notes = []
    if dropped := len(read) - len(kept):
        text = f"{dropped} rows dropped whose text stands in another row"
        notes.append(f"{text} ({len(lost)} of them with another label)")
    if lost:
        other, one = lost[0]
        texts = len({id(first) for _, first in lost})
        rule = "the label of most rows is kept, in a tie one picked by a hash, never by the order"
        kept_one, lost_one = (f"{shown(each.label)} ({each.place})" for each in (one, other))
        differing = f"{_count(texts, 'text')} with different labels"
        notes.append(f"{differing}: {rule}; such as {kept_one}, not {lost_one}")
    ordered = sorted(kept, key=lambda text: hashlib.sha256(text.encode()).digest())
    return [kept[text].example for text in ordered], notes


def _most(same: Sequence[Read]) -> Read:
    """The row whose answer is the most frequent for its text; content breaks a tie, never order."""
    votes = Counter(each.example.answer for each in same)

    def rank(each: Read) -> tuple[int, bytes]:
        content = json.dumps([dict(each.example.fields), each.example.answer], sort_keys=True)
        return -votes[each.example.answer], hashlib.sha256(content.encode()).digest()

    return min(same, key=rank)


def _spelled(
    rows: Sequence[Mapping[str, Any]],
    read: Sequence[Read],
    fields: Sequence[str],
    answers: Answers,
) -> list[str]:
    """Notes about values that were read in another spelling, empty fields, and unused aliases."""
    notes = []
    for name in dict.fromkeys((*fields, answers.field)):
        if count := sum(pointed(row[name]) for row in rows):
            numbers = _count(count, "number")
            notes.append(f"{numbers} in the field '{name}' like 1.0, read as whole ones like 1")
    for name in fields:
        if empty := [each.place for each in read if not each.example.fields[name]]:
            found = _count(len(empty), "row")
            notes.append(f"the field '{name}' is empty in {found}, such as {empty[0]}")
    labels = {each.label: None for each in read}
    known = labels if answers.texts is None else answers.texts
    if other := [each for each in labels if each not in known]:
        found = _count(sum(each.label in other for each in read), "label")
        notes.append(f"{found} in another spelling than in 'answers': {listed(other)}")
    if unused := [text for text in answers.aliases if text not in labels]:
        notes.append(f"aliases without a row: of {listed(unused)}")
    return notes


def _texts(answers: Mapping[Any, str]) -> dict[str, str]:
    """The text of each label -> the text of its answer."""
    found: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for key, value in answers.items():
        label, text = _stated(key, "answers"), _stated(value, "answers")
        words = " ".join(text.split())
        if not words:
            raise TaskError(f"the answer for the label {shown(label)} is empty: expected text")
        if label in found:
            raise TaskError(f"two answers are given for the label {shown(label)}: expected one")
        if words in spelled:
            first = spelled[words]
            raise TaskError(
                f"the answers {found[first]!r} and {text!r} for the labels {shown(first)} and "
                f"{shown(label)} differ by spaces at most, so that nothing could tell them apart: "
                "expected different words"
            )
        found[label], spelled[words] = text, label
    if len(found) < 2:
        raise TaskError(f"expected at least two answers to choose from, got {list(found.values())}")
    return found


def _stated(value: Any, key: str) -> str:
    """The text of what a study file states under a key."""
    try:
        return text_of(value)
    except FieldError as reason:
        raise TaskError(f"under {key}, {shown(repr(value))} {reason}") from reason


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
