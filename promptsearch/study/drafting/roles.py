"""What each field of a file is for: the right answer, the input, the options, the groups.

Names say most: `label`, `question`, `author`. Where they say nothing, the values do, and the order
of the fields, whose last one is the answer in most tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from promptsearch.errors import TaskError, UnknownName
from promptsearch.study.drafting.columns import Column
from promptsearch.tasks.fields import listed, shown
from promptsearch.tasks.notation import ANSWER, PROMPT

#: The most answers to choose from, and the fewest rows that each has on average.
CHOICES, ROWS_EACH = 20, 4
#: The most words, on average, of a short text.
SHORT = 4
#: Names of fields that hold the right answer, the surest first.
LABELS = (
    *("label", "labels", "gold", "gold_label", "references", "reference", "target", "targets"),
    *("answer", "answers", "answerkey", "answer_key", "correct", "correct_answer"),
    *("class", "category", "sentiment", "intent", "emotion", "topic", "relation", "rating"),
    *("stars", "output", "outputs", "response", "completion", "translation", "summary"),
    *("highlights", "headline"),
)
#: Names of fields that hold an input, or a part of it.
INPUTS = (
    *("text", "sentence", "sentence1", "sentence2", "premise", "hypothesis", "question"),
    *("question1", "question2", "query", "passage", "context", "document", "article", "dialogue"),
    *("input", "inputs", "source", "src", "instruction", "review", "title", "content", "body"),
    *("abstract", "description", "tweet", "comment", "message", "utterance", "mr", "fact", "name"),
    *("word", "claim", "evidence", "snippet", "text_a", "text_b"),
)
#: Names of fields that list the answers to choose from.
OPTIONS = ("options", "choices", "choices.text", "endings", "candidates")
#: What options are called by, such as A, (b) or 3.
MARKS = re.compile(r"\(?(?:[A-Za-z]|\d{1,2})[.)]?")
#: Names of fields whose equal values make a group, unless each is of its own.
GROUPS = re.compile(
    r"(?:.*_)?(?:group|author|user|speaker|writer|patient|subject|session|doc|document|passage|"
    r"article|source|conversation|dialog|dialogue|thread|family|pair|stem)(?:_?id)?",
    re.IGNORECASE,
)
#: Names of fields that only number rows.
NUMBERS = re.compile(
    r"(?:.*[_.])?(?:id|idx|index|guid|uuid|qid|row|key|url|link|timestamp)", re.IGNORECASE
)
#: The least number of groups, and the largest group's greatest share of all rows.
_GROUPS, _LARGEST = 10, 0.1


@dataclass(frozen=True)
class Roles:
    """What the fields of a file are for.

    Args:
        label: The field of the right answer.
        inputs: The fields of the input, in their order; at least one.
        options: The list of answers to choose from; None where rows have none.
        marks: The list of what these are called by, such as A to D, where the label is one of
            them; else None.
        names: A field that names each value of the label in words; None where there is none.
        group: The field whose equal values make a group; None where there is none.
        grouped: Why it is that.
        said: What was taken for what, and why.
        checks: What a reader should look at, with what to do.
    """

    label: Column
    inputs: tuple[Column, ...]
    options: Column | None = None
    marks: Column | None = None
    names: Column | None = None
    group: Column | None = None
    grouped: str = ""
    said: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)


def find_roles(columns: Sequence[Column], label: str | None, inputs: Sequence[str]) -> Roles:
    """Find out what the fields are for.

    Args:
        columns: All fields.
        label: The name of the label field; None: it is to be found.
        inputs: The names of the input fields; empty: they are to be found.

    Raises:
        UnknownName: A field that was named is not there.
        TaskError: No field can be the label or the input, or the label has one value only.
    """
    said: list[str] = []
    checks: list[str] = []
    asked = [_input(columns, name) for name in inputs]
    answer = _label(columns, label, asked, said, checks)
    if answer in asked:
        raise TaskError(f"'{answer.name}' is named as the text and as the label: expected two")
    others = [column for column in columns if column is not answer]
    options, marks = _options(others, answer)
    if options is not None:
        others = [column for column in others if column not in (options, marks)]
        held = f"names in '{marks.name}'" if marks else "lists"
        said.append(f"options: '{options.name}', whose {held} hold the right answers of all rows")
    elif like := next((c for c in others if c.kind == "texts" and c.name.lower() in OPTIONS), None):
        checks.append(
            f"'{like.name}', which looks like options: '{answer.name}' is not in every row a text "
            "of these, or its place from 0; change it in the data, and draft again"
        )
    names = next((c for c in others if c not in asked and _names(c, answer)), None)
    if names is not None:
        others.remove(names)
        said.append(f"names of the labels: '{names.name}', which has one text for each label")
    texts = tuple(asked) or _inputs(others, said, checks)
    for column in texts:
        _check_name(column.name)
    group, grouped = _group([c for c in others if c not in texts], texts)
    if group is None and len(texts) == 1 and (turned := _turned(texts[0], answer)):
        checks.append(
            f"{turned:,} rows that stand in the data in both directions, so that one may be "
            "searched on and the other tested: a field that is the same for both, under group, "
            "keeps them together"
        )
    return Roles(answer, texts, options, marks, names, group, grouped, said, checks)


def _named(columns: Sequence[Column], name: str) -> Column:
    for column in columns:
        if column.name == name:
            if column.kind == "other":
                raise TaskError(f"the field '{name}' has no text: expected text, numbers or lists")
            return column
    raise UnknownName("field", name, [column.name for column in columns])


def _input(columns: Sequence[Column], name: str) -> Column:
    """The field of an input, by its name."""
    column = _named(columns, name)
    if column.kind == "texts":
        raise TaskError(
            f"the field '{name}' holds lists: expected text, numbers or flags in the input; the "
            "study file can join a list to one text"
        )
    return column


def _check_name(name: str) -> None:
    """Refuse a field that cannot stand in braces in a template."""
    if name in (PROMPT, ANSWER) or not all(part.isidentifier() for part in name.split(".")):
        better = re.sub(r"\W+", "_", name).strip("_") if name not in (PROMPT, ANSWER) else "text"
        raise TaskError(
            f"the field {shown(name)} cannot stand in a template: rename it in the data, such as "
            f"to {better or 'text'}"
        )


def _label(
    columns: Sequence[Column],
    name: str | None,
    asked: Sequence[Column],
    said: list[str],
    checks: list[str],
) -> Column:
    """The field of the right answer."""
    if name is not None:
        return _several(_named(columns, name))
    # Numbers are no texts, although all cells of a CSV file are written as such.
    words = [c for c in columns if c.kind == "text" and not c.numeric]
    texts = [c for c in words if not (_numbering(c) or _groups(c))]
    # The only text is the input, unless its values are classes.
    taken = asked or (texts if len(texts) == 1 and not few(texts[0]) else [])
    able = [column for column in columns if column not in taken and _answers(column)]
    found = [c for label in LABELS for c in able if _label_name(c.name) == label]
    why = "its name says so"
    if not found:
        whole = [c for c in reversed(able) if not c.missing and c.distinct > 1 and not _groups(c)]
        # The last field is the answer in most tables; a long text is the input where it can be.
        found = sorted(whole, key=lambda c: (c.kind == "texts", c.words > SHORT))
        why = "no name says it, and it is the last field that can be one"
    if not found:
        raise TaskError(
            f"no field can be the right answer among {listed(c.name for c in columns)}: expected "
            "a field beside the text with two different values at least; name it with --label FIELD"
        )
    said.append(f"label: '{found[0].name}', since {why}")
    if others := [column for column in found[1:] if _last(column.name) not in INPUTS]:
        checks.append(
            f"whether '{found[0].name}' is the right answer: it could also be "
            f"{listed(c.name for c in others)} (--label FIELD takes another)"
        )
    return _several(found[0])


def few(column: Column) -> bool:
    """Whether the values are so few that they are answers to choose from."""
    return column.distinct <= CHOICES and column.rows >= ROWS_EACH * column.distinct


def _several(column: Column) -> Column:
    """The column, if it has more than one value."""
    if column.distinct < 2:
        value = next(iter(column.counts), "no text")
        raise TaskError(
            f"the label '{column.name}' has one value only in all {column.rows:,} rows "
            f"({shown(value)}): expected two at least; name another field with --label FIELD"
        )
    return column


def _answers(column: Column) -> bool:
    """Whether the values can be answers: no numbering of rows, no date, no fraction."""
    if column.kind in ("date", "other") or _numbering(column):
        return False
    return not column.numeric or (column.whole and column.distinct <= CHOICES)


def _numbering(column: Column) -> bool:
    """Whether the values only number the rows, or name each of them."""
    unique = column.distinct == column.rows - column.missing
    return column.kind != "texts" and unique and bool(NUMBERS.fullmatch(column.name))


def _groups(column: Column) -> bool:
    """Whether the name says that equal values make a group."""
    name = _last(column.name)
    return bool(GROUPS.fullmatch(name)) and name not in (*LABELS, *INPUTS)


def _last(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _label_name(name: str) -> str:
    """The name that may say that a field is the label: of `answers.text`, `answers`."""
    first, point, last = name.lower().partition(".")
    return first if not point or last in ("text", "texts", "value", "answer") else ""


def _options(columns: Sequence[Column], label: Column) -> tuple[Column | None, Column | None]:
    """The field of the options, and the one of what they are called by where labels say that."""
    lists = _lists_first(columns)
    for marks in lists:
        if not (_are_marks(marks) and _lists(marks, label)):
            continue
        lengths = [len(texts or ()) for texts in marks.lists]
        for texts in lists:
            if not _are_marks(texts) and [len(each or ()) for each in texts.lists] == lengths:
                return texts, marks
    return next((column for column in lists if holds(column, label)), None), None


def _are_marks(column: Column) -> bool:
    """Whether a list holds nothing but what options are called by."""
    return all(MARKS.fullmatch(text) for text in column.counts)


def _lists_first(columns: Sequence[Column]) -> list[Column]:
    """The fields of lists, those first that are called as options are."""
    lists = [column for column in columns if column.kind == "texts"]
    return sorted(lists, key=lambda column: column.name.lower() not in OPTIONS)


def holds(options: Column, label: Column) -> bool:
    """Whether each row's label is a text of the row's options, or its place among them from 0."""
    pairs = list(zip(options.lists, label.texts, strict=False))
    if not pairs or any(texts is None or len(texts) < 2 for texts, _ in pairs):
        return False
    places = label.whole and all(
        text is not None and 0 <= float(text) < len(texts or ()) for texts, text in pairs
    )
    return places or _lists(options, label)


def _lists(options: Column, label: Column) -> bool:
    """Whether each row's label is a text of the row's list."""
    pairs = list(zip(options.lists, label.texts, strict=False))
    return bool(pairs) and all(texts and text in texts for texts, text in pairs)


def _names(column: Column, label: Column) -> bool:
    """Whether a field has one text for each label, and the label is no word of its own."""
    if column.kind != "text" or column.numeric or not label.numeric or label.distinct > CHOICES:
        return False
    pairs = set(zip(label.texts, column.texts, strict=True))
    return len(pairs) == label.distinct == column.distinct and not column.missing


def _inputs(columns: Sequence[Column], said: list[str], checks: list[str]) -> tuple[Column, ...]:
    """The fields of the input."""
    able = [
        column
        for column in columns
        if column.kind == "text" and not _numbering(column) and column.distinct > 1
    ]
    able = [column for column in able if not column.numeric] or able
    taken = [column for column in able if _last(column.name) in INPUTS]
    why = "by name"
    if not taken:
        taken = [column for column in able if column.distinct * 2 >= column.rows]
        why = "most of its values differ" if len(taken) == 1 else "most of their values differ"
    if not taken:
        taken = sorted(able, key=lambda column: -column.distinct)[:1]
        why = "it has the most different values"
    if not taken:
        raise TaskError(
            f"no field of text is left for the input among {listed(c.name for c in columns)}: "
            "name one with --text FIELD"
        )
    said.append(f"input: {listed(column.name for column in taken)} ({why})")
    if others := [column.name for column in able if column not in taken]:
        checks.append(
            f"whether the input lacks {listed(others)} (--text FIELD, once for each field, "
            "takes others)"
        )
    return tuple(taken)


def _group(others: Sequence[Column], inputs: Sequence[Column]) -> tuple[Column | None, str]:
    """The field whose equal values make a group, and why; rows of one stay in one split."""
    named = [c for c in others if _groups(c) and _grouping(c)]
    if named:
        return named[0], f"by its name ({named[0].distinct:,} groups)"
    parts = [column for column in inputs if len(inputs) > 1 and _grouping(column)]
    repeated = [column for column in parts if column.distinct <= 0.9 * column.rows]
    if not repeated:
        return None, ""
    longest = max(repeated, key=lambda column: column.words)
    return longest, (
        f"since {longest.rows - longest.distinct:,} rows repeat one, and what stands in several "
        "splits would be known before the test"
    )


def _turned(text: Column, label: Column) -> int:
    """The number of rows whose answer is another row's input, and the other way round."""
    pairs = set(zip(text.texts, label.texts, strict=False))
    return sum(one != other and (other, one) in pairs for one, other in pairs)


def _grouping(column: Column) -> bool:
    """Whether a field splits the rows into many groups, none of them large, some of several."""
    if column.kind in ("texts", "other") or column.missing:
        return False
    largest = max(column.counts.values(), default=0)
    return _GROUPS <= column.distinct < column.rows and largest <= _LARGEST * column.rows
