"""Answers to choose from that all rows share: written down, or the label's own values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from promptsearch.errors import FieldError, TaskError
from promptsearch.tasks.answers import Answers, in_words, stated
from promptsearch.tasks.examples import Example, Read
from promptsearch.tasks.fields import (
    ClassNumber,
    Row,
    listed,
    plain_value,
    shown,
    text_in,
    value_in,
)
from promptsearch.tasks.template import Template

#: The most values of a label that are taken for answers to choose from without a word.
MOST_LABELS = 64


class Choices(Answers):
    """Labels that stand for the task's answers to choose from.

    Args:
        template: The template, which may put a space before answers.
        field: The field that holds labels.
        answers: Label value -> answer text.
        classes: The names of the classes whose numbers the labels are, in each order in which
            they come; empty for other labels.

    Raises:
        TaskError: There are fewer than two answers, two answers differ by spaces at most, an answer
            has no text, or the labels' classes are given neither by names nor by numbers.
    """

    def __init__(
        self,
        template: Template,
        field: str,
        answers: Mapping[Any, Any],
        classes: Sequence[tuple[str, ...]] = (),
    ) -> None:
        super().__init__(template, field)
        texts = _texts(answers)
        self._labels = list(texts)
        self._numbered = bool(classes) and _numbered(self._labels, field, classes)
        self._choices = tuple(map(template.answer_text, texts.values()))
        self.choices = self._choices

    def read(self, row: Row, fields: Mapping[str, str], group: str) -> Read:
        """The example of a row, see `Answers.read`."""
        label = self._label(row)
        number = self._number(label, row.place)
        example = Example(-1, fields, self._choices[number], number, group=group)
        return self.made(row.place, (label,), example)

    def notes(self, rows: Sequence[Row], read: Sequence[Read]) -> list[str]:
        """Labels that are spelled otherwise than in `answers`."""
        labels = dict.fromkeys(each.labels[0] for each in read)
        if not (other := [each for each in labels if each not in self._labels]):
            return []
        count = sum(each.labels[0] in other for each in read)
        found = f"{count} label{'s' * (count != 1)}"
        return [f"{found} in another spelling than in 'answers': {listed(other)}"]

    def _label(self, row: Row) -> str:
        value = value_in(row, self.field, row.place)
        if self._numbered and isinstance(value, ClassNumber):
            return str(int(value))
        return text_in(row, self.field, row.place)

    def _number(self, label: str, place: str) -> int:
        """The place of a label's answer, whose key has the same text, or else the same value."""
        if label in self._labels:
            return self._labels.index(label)
        same = [i for i, key in enumerate(self._labels) if plain_value(key) == plain_value(label)]
        if len(same) == 1:
            return same[0]
        if not label:
            raise self.empty(place, f"one of {listed(self._labels)}")
        hint = ""
        if label.lstrip("0") in self._labels:
            hint = f". Quotes keep a label of a study file as it is written: '{label}'"
        known = f"answers are given for {listed(self._labels)}"
        raise FieldError(f"{place}: the label {shown(label)} has no answer; {known}{hint}")


class OwnLabels(Choices):
    """Labels whose own values are the task's answers to choose from, in order.

    Args:
        template: The template, which may put a space before answers.
        field: The field that holds labels.
        rows: All rows.

    Raises:
        TaskError: There are fewer than two values, or more than `MOST_LABELS`, or one value has two
            spellings.
    """

    def __init__(self, template: Template, field: str, rows: Sequence[Row]) -> None:
        met = sorted({text_in(row, field, row.place) for row in rows}, key=_order)
        if "" in met:
            place = next(row.place for row in rows if text_in(row, field, row.place) == "")
            raise FieldError(f"{place}: the field '{field}' is empty: expected a label")
        if len(met) > MOST_LABELS:
            raise TaskError(
                f"the field '{field}' has {len(met):,} values: expected at most {MOST_LABELS} "
                f"answers to choose from; leave 'answers' out where the label is free text. They "
                f"are {listed(met)}"
            )
        spelled: dict[str, str] = {}
        for text in met:
            if (first := spelled.setdefault(plain_value(text), text)) != text:
                raise TaskError(
                    f"the field '{field}' has one value in two spellings, {shown(first)} and "
                    f"{shown(text)}, which would be two answers: write one of them, or give "
                    "'answers' as a mapping with one of them, under which both are found"
                )
        super().__init__(template, field, {text: text for text in met})
        listing = ", ".join(map(shown, met))
        self.told = (f"the answers are the {len(met)} values of the field '{field}': {listing}",)


def _order(text: str) -> tuple[bool, float, str]:
    """What labels are sorted by: numbers by their size and first, then texts."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return (False, number, text) if math.isfinite(number) else (True, 0.0, text)


def classes_in(rows: Sequence[Row], field: str) -> list[tuple[str, ...]]:
    """The names of the classes whose numbers stand in a field, in each order in which they come."""
    values = (value_in(row, field, row.place) for row in rows)
    return list(dict.fromkeys(value.names for value in values if isinstance(value, ClassNumber)))


def _numbered(labels: Sequence[str], field: str, classes: Sequence[tuple[str, ...]]) -> bool:
    """Whether labels name classes by their numbers, not by their names.

    Names come first: where these are digits, such as 1 to 5 stars, a digit is a name.

    Raises:
        TaskError: Some do neither, or a number means one class here and another one there.
    """
    names = {name for each in classes for name in each}
    if not (strange := [label for label in labels if label not in names]):
        return False
    first, *others = classes
    if any(label not in map(str, range(len(first))) for label in labels):
        raise TaskError(
            f"the label {shown(strange[0])} of 'answers' is no class of the data set: expected "
            f"their names or numbers ({_in_order(first)})"
        )
    if others:
        raise TaskError(
            f"the numbers under 'answers' mean several classes, which the sources of the field "
            f"'{field}' have in several orders ({_in_order(first)}; and {_in_order(others[0])}): "
            "give the answers by the names of the classes"
        )
    return True


def _in_order(classes: Sequence[str]) -> str:
    """The numbers and names of classes, for a message."""
    named = ", ".join(f"{i}: {shown(name)}" for i, name in enumerate(classes[:20]))
    return named + ", ..." * (len(classes) > 20)


def _texts(answers: Mapping[Any, Any]) -> dict[str, str]:
    """The text of each label -> the text of its answer."""
    found: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for key, value in answers.items():
        label, text = stated(key, "answers"), stated(value, "answers")
        words = in_words(text)
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
