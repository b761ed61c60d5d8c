"""Answers to choose from that differ by row, as in multiple choice."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from promptsearch.errors import FieldError
from promptsearch.tasks.answers import Answers, in_words
from promptsearch.tasks.examples import Example, Read
from promptsearch.tasks.fields import Row, listed, shown, text_in, texts_in, value_in
from promptsearch.tasks.template import Template

#: The most digits of a text that is read as a place.
_DIGITS = 9


class Options(Answers):
    """Labels that point to one of the row's own answers to choose from, by place or by text.

    A whole number is a place, from 0. A text is the answer itself; where that does not hold for all
    rows, and all of them are written in digits, they are places. Or a further field names the
    answers of a row, such as A to D, and the label is one of these names.

    Args:
        template: The template, which may put a space before answers.
        field: The field that holds labels.
        rows: All rows.
        options: The field that lists a row's answers.
        names: The field that lists their names, by which labels call them; None where labels are
            places or texts.

    Raises:
        FieldError: A row has no two different answers, its label is missing, or whole numbers could
            be places or texts.
    """

    def __init__(
        self,
        template: Template,
        field: str,
        rows: Sequence[Row],
        options: str,
        names: str | None = None,
    ) -> None:
        super().__init__(template, field)
        self.options = self._options = options
        self._names, self._in_digits = names, False
        if names is None:
            self._in_digits = self._all_in_digits(rows)
            self._check_places(rows)

    def _all_in_digits(self, rows: Sequence[Row]) -> bool:
        """Whether labels that are texts are places, written in digits."""
        field = self.field
        written = [row for row in rows if not _whole(value_in(row, field, row.place))]
        texts = [in_words(text_in(row, field, row.place)) for row in written]
        named = all(
            text in map(in_words, self._answers(row))
            for text, row in zip(texts, written, strict=True)
        )
        return not named and all(text.isdecimal() and len(text) <= _DIGITS for text in texts)

    def _check_places(self, rows: Sequence[Row]) -> None:
        """See that whole numbers are not texts of the rows' answers as well as places among them.

        Raises:
            FieldError: Either reading fits all rows, and they say different things of one.
        """
        other = None
        for row in rows:
            if not _whole(value := value_in(row, self.field, row.place)):
                continue
            answers, text = self._answers(row), text_in(row, self.field, row.place)
            words = list(map(in_words, answers))
            if text not in words or not 0 <= value < len(words):
                return
            if other is None and words[int(value)] != text:
                other = (row.place, text, answers)
        if other is not None:
            place, text, answers = other
            raise FieldError(
                f"{place}: the label {text} could be a place or a text of the options in "
                f"'{self._options}' ({listed(answers)}), and so could all labels: write them as "
                "text where they are texts of the options, and give the option's text where they "
                "are places"
            )

    def read(self, row: Row, fields: Mapping[str, str], group: str) -> Read:
        """The example of a row, see `Answers.read`."""
        answers = self._answers(row)
        number = self._number(row, answers)
        options = tuple(map(self.template.answer_text, answers))
        label = text_in(row, self.field, row.place)
        example = Example(-1, fields, options[number], number, options=options, group=group)
        return self.made(row.place, (label,), example)

    def notes(self, rows: Sequence[Row], read: Sequence[Read]) -> list[str]:
        """How many answers rows have."""
        counts = [len(each.example.options or ()) for each in read]
        least, most = min(counts), max(counts)
        number = str(least) if least == most else f"{least} to {most}"
        return [f"each row has {number} answers of its own, in the field '{self._options}'"]

    def _answers(self, row: Row) -> tuple[str, ...]:
        return options_in(row, self._options, row.place)

    def _number(self, row: Row, answers: Sequence[str]) -> int:
        """The place of the right answer among the row's."""
        value = value_in(row, self.field, row.place)
        text = text_in(row, self.field, row.place)
        if self._names is not None:
            return self._named(row, text, len(answers), self._names)
        if _whole(value) or self._in_digits:
            number = int(value)
            if 0 <= number < len(answers):
                return number
            raise FieldError(
                f"{row.place}: the label {shown(text)} is no place among the row's {len(answers)} "
                f"answers in '{self._options}': expected 0 to {len(answers) - 1}"
            )
        words = [in_words(each) for each in answers]
        if in_words(text) in words:
            return words.index(in_words(text))
        if not text.strip():
            raise self.empty(row.place, f"one of the answers in '{self._options}', or its place")
        raise FieldError(
            f"{row.place}: the label {shown(text)} is none of the row's answers in "
            f"'{self._options}' ({listed(answers)}), nor a place among them, from 0"
        )

    def _named(self, row: Row, text: str, count: int, field: str) -> int:
        """The place of the answer that a label names."""
        names = texts_in(row, field, row.place)
        if len(names) != count:
            raise FieldError(
                f"{row.place}: the field '{field}' lists {len(names)} names, and '{self._options}' "
                f"{count} answers: expected a name for each"
            )
        if names.count(text) != 1:
            times = "twice" if text in names else "not"
            raise FieldError(
                f"{row.place}: the label {shown(text)} is {times} among the names of the row's "
                f"answers in '{field}' ({listed(names)}): expected it once"
            )
        return names.index(text)


def options_in(row: Mapping[str, Any], name: str, place: str) -> tuple[str, ...]:
    """A row's own answers to choose from.

    Args:
        row: Values by field.
        name: The field that lists them.
        place: Where the row stands, for messages.

    Raises:
        FieldError: There is no such field, or it does not list two different texts at least.
    """
    found = texts_in(row, name, place)
    words = [in_words(text) for text in found]
    where = f"{place}: the field '{name}'"
    if not all(words):
        raise FieldError(f"{where} lists an empty answer: expected texts")
    if len(found) < 2:
        raise FieldError(f"{where} has 1 answer: expected a list of at least 2 to choose from")
    if len(set(words)) < len(words):
        twice = next(text for i, text in enumerate(words) if text in words[:i])
        raise FieldError(
            f"{where} lists {shown(twice)} twice, so that nothing could tell the answers apart"
        )
    return found


def _whole(value: Any) -> bool:
    """Whether a value is a whole number, and no truth value."""
    if isinstance(value, (bool, str)) or type(value).__name__ in ("bool", "bool_"):
        return False
    if isinstance(value, numbers.Integral):  # which may be too large for a float
        return True
    return isinstance(value, numbers.Real) and float(value).is_integer()
