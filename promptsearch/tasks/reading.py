"""Examples from rows of data: one of each text, and notes about what is done to the data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from promptsearch.errors import FieldError, TaskError
from promptsearch.printable import brief
from promptsearch.tasks.answers import Answers, TextAnswers, options_of
from promptsearch.tasks.choices import Choices, OwnLabels, classes_in
from promptsearch.tasks.drawing import WHOLE
from promptsearch.tasks.examples import Read, content_of
from promptsearch.tasks.fields import Row, pointed, shown, text_in, value_in
from promptsearch.tasks.options import Options
from promptsearch.tasks.template import Template


def make_answers(
    template: Template,
    field: str,
    rows: Sequence[Row],
    answers: Mapping[Any, Any] | Literal["labels"] | None = None,
    aliases: Mapping[Any, Any] | None = None,
    references: int | None = None,
) -> Answers:
    """What the labels of a task stand for.

    Args:
        template: The template, which may put a space before answers.
        field: The field that holds labels.
        rows: All rows.
        answers: Label value -> answer text; `labels` for the label's own values; `{"field": NAME}`
            for the answers that a field of each row lists, with `"names": NAME` beside it for the
            field that lists their names; None where the label's text is the answer.
        aliases: See `TextAnswers`.
        references: See `TextAnswers`.

    Raises:
        TaskError: They do not fit each other, or the rows.
    """
    if answers is None:
        return TextAnswers(template, field, aliases, references)
    if aliases:
        raise TaskError("aliases belong to text answers; this task has answers to choose from")
    if references is not None:
        raise TaskError("references belong to text answers; this task has answers to choose from")
    if answers == "labels":
        return OwnLabels(template, field, rows)
    if not isinstance(answers, Mapping):
        raise TaskError(
            f"answers are {brief(answers)}: expected a mapping of labels to answers, or 'labels'"
        )
    options = options_of(answers)
    if options is not None:
        return Options(template, field, rows, *options)
    return Choices(template, field, answers, classes_in(rows, field))


def read_rows(
    rows: Sequence[Row],
    answers: Answers,
    group: str | None = None,
    identity: str | None = None,
) -> list[Read]:
    """The example of each row.

    Args:
        rows: Rows of the data.
        answers: What their labels stand for, and the template, which says what fields are needed.
        group: The field whose value names the group of rows that a row belongs to; None where rows
            stand alone.
        identity: The field whose text makes rows the same; None for what the template says of them.

    Raises:
        FieldError: A row lacks something; the message says where the row stands.
    """
    read = []
    for row in rows:
        fields = {name: text_in(row, name, row.place) for name in answers.template.fields}
        named = "" if group is None else text_in(row, group, row.place)
        if group is not None and not named.strip():
            raise FieldError(f"{row.place}: the field '{group}' is empty: expected a group's name")
        one = answers.read(row, fields, named)
        same = one.text if identity is None else text_in(row, identity, row.place)
        read.append(one._replace(text=same))
    return read


def one_of_each(
    read: Mapping[str, Sequence[Read]], answers: Answers
) -> tuple[dict[str, list[Read]], list[str]]:
    """One example of each text in each source, and notes about rows that have the same text.

    Text answers to the same text are references of one example. Of rows with answers to choose
    from, one is kept, but an official test split keeps all of them.

    Args:
        read: Name of a source -> the examples of all its rows.
        answers: What the rows' labels stand for.
    """
    found: dict[str, list[Read]] = {}
    notes: list[str] = []
    for source, some in read.items():
        if isinstance(answers, TextAnswers):
            found[source], told = _joined(some, answers)
        elif source == "test":
            found[source], told = list(some), _kept(some)
        else:
            found[source], told = _unique(some)
        notes += told if source == WHOLE else [f"{source}: {text}" for text in told]
    return found, notes


def _joined(read: Sequence[Read], answers: TextAnswers) -> tuple[list[Read], list[str]]:
    """One example of each text, with the right answers of all its rows."""
    kept = {
        text: same[0] if len(same) == 1 else answers.joined(same)._replace(text=text)
        for text, same in _by_text(read).items()
    }
    if not (joined := len(read) - len(kept)):
        return list(kept.values()), []
    several = sum(len(each.labels) > 1 for each in kept.values())
    told = f"{_count(joined, 'row')} joined with another row of the same text"
    return list(kept.values()), [f"{told}: {_count(several, 'text')} with several right answers"]


def _kept(read: Sequence[Read]) -> list[str]:
    """A note about rows of an official test split that have the same text."""
    again = len(read) - len({each.text for each in read})
    told = f"{_count(again, 'row')} with the text of another one"
    return [f"{told}: an official test split keeps all of its rows"] if again else []


def _by_text(read: Sequence[Read]) -> dict[str, list[Read]]:
    rows: dict[str, list[Read]] = {}
    for each in read:
        rows.setdefault(each.text, []).append(each)
    return rows


def _unique(read: Sequence[Read]) -> tuple[list[Read], list[str]]:
    """One example of each text; the answer of most rows is kept, and content breaks a tie."""
    rows = _by_text(read)
    kept = {text: same[0] if len(same) == 1 else _most(same) for text, same in rows.items()}
    pairs = [(each, kept[text]) for text, same in rows.items() for each in same]
    lost = [(each, one) for each, one in pairs if _right(each) != _right(one)]
    notes = []
    if dropped := len(read) - len(kept):
        text = f"{dropped} rows dropped whose text stands in another row"
        notes.append(f"{text} ({len(lost)} of them with another label)")
    if lost:
        other, one = lost[0]
        texts = len({id(first) for _, first in lost})
        rule = "the label of most rows is kept, in a tie one picked by a hash, never by the order"
        kept_one, lost_one = (f"{shown(each.labels[0])} ({each.place})" for each in (one, other))
        differing = f"{_count(texts, 'text')} with different labels"
        notes.append(f"{differing}: {rule}; such as {kept_one}, not {lost_one}")
    return list(kept.values()), notes


def spelling(rows: Sequence[Row], read: Sequence[Read], answers: Answers) -> list[str]:
    """Notes about values that were read in another spelling than they have, and empty fields.

    Args:
        rows: All rows.
        read: Their examples.
        answers: What their labels stand for.
    """
    notes = []
    fields = answers.template.fields
    for name in dict.fromkeys((*fields, answers.field)):
        if count := sum(pointed(value_in(row, name, row.place)) for row in rows):
            numbers = _count(count, "number")
            notes.append(f"{numbers} in the field '{name}' like 1.0, read as whole ones like 1")
    for name in fields:
        if empty := [each.place for each in read if not each.example.fields[name]]:
            found = _count(len(empty), "row")
            notes.append(f"the field '{name}' is empty in {found}, such as {empty[0]}")
    return [*notes, *answers.notes(rows, read)]


def _most(same: Sequence[Read]) -> Read:
    """The row whose answer is the most frequent for its text; content breaks a tie, never order."""
    votes = Counter(map(_right, same))

    def rank(each: Read) -> tuple[int, bytes, str]:
        example = each.example
        content = json.dumps([dict(example.fields), example.answer], sort_keys=True)
        hashed = hashlib.sha256(content.encode()).digest()
        return -votes[_right(each)], hashed, json.dumps(content_of(example), sort_keys=True)

    return min(same, key=rank)


def _right(each: Read) -> tuple[str, ...]:
    return each.example.references


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
