"""Where the rows of each split come from, and which of them a task takes.

`data` names one source that all splits are drawn from, a source for each split, or one source with
a column that says which split a row belongs to. `where` keeps rows of some values, and `each` makes
a task of every value of a field. Values are compared as the texts that they become, see
`promptsearch.tasks.fields`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from promptsearch.errors import FieldError, TaskError, UnknownName
from promptsearch.plain.names import NAME, as_name
from promptsearch.printable import brief
from promptsearch.tasks.answers import stated
from promptsearch.tasks.data import no_source, read_data
from promptsearch.tasks.drawing import WHOLE
from promptsearch.tasks.fields import Row, is_missing, listed, text_in, value_in
from promptsearch.tasks.splits import SPLITS

#: Name of a source, `WHOLE` or the split that it is the source of -> its rows.
Sources: TypeAlias = dict[str, list[Row]]

#: The most tasks that one key `each` makes, and the most names that a message lists.
MOST_TASKS, _LISTED = 1_000, 20
#: What a row in Python is, for messages.
_ROW = "a mapping of fields, as df.to_dict('records') gives for each row of a pandas DataFrame"


def read_sources(data: Mapping[str, Any], folder: Path) -> tuple[Sources, list[str]]:
    """The rows of each source that `data` names, and notes about rows that none of them has.

    Args:
        data: A source as `read_data` takes it; or `{search: SOURCE, select: SOURCE, test: SOURCE}`
            or some of them, each with a `where` of its own; or a source with `column`, and under
            `search`, `select` and `test` the value of this field, or the list of values, in the
            rows of that split.
        folder: The folder to which relative paths are relative.

    Raises:
        TaskError: A source cannot be read, is empty, or no row has a value that is named.
    """
    if not isinstance(data, Mapping):
        raise no_source(data)
    given = {split: data[split] for split in SPLITS if data.get(split) is not None}
    column = data.get("column")
    if column is None and not given:
        return {WHOLE: read_data(data, folder)}, []
    if column is None:
        return _of_splits(given, folder)
    if not given:
        raise TaskError(
            f"'data' names the column '{column}' and no value in it: expected those of search, "
            "select and test, or of some of them"
        )
    return _by_column(read_data(data, folder), column, given)


def _of_splits(given: Mapping[str, Mapping[str, Any]], folder: Path) -> tuple[Sources, list[str]]:
    """The rows of a source for each split, those that its own `where` keeps."""
    sources: Sources = {}
    notes: list[str] = []
    for split, source in given.items():
        sources[split] = read_data(source, folder)
        if wanted := source.get("where"):
            kept, told = rows_where({split: sources[split]}, wanted)
            sources |= kept
            notes += [f"{split}: {note}" for note in told]
    return sources, notes


def placed(
    rows: Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Mapping[str, Any]]],
) -> Sources:
    """Rows given in Python: those of each source, each with its place.

    Args:
        rows: Rows that all splits are drawn from, or split -> its rows.

    Raises:
        UnknownName: There is no such split.
        TaskError: There is no row, or something else than rows.
    """
    sources = rows if isinstance(rows, Mapping) else {WHOLE: rows}
    found: Sources = {}
    for name, some in sources.items():
        if name not in (WHOLE, *SPLITS):
            raise UnknownName("split", name, SPLITS)
        what = "the data" if name == WHOLE else f"the {name} data"
        if not isinstance(some, Iterable):
            raise TaskError(f"{what} are {brief(some)}: expected rows, each {_ROW}")
        found[name] = [
            _placed(row, f"row {number} of {what}") for number, row in enumerate(some, start=1)
        ]
        if not found[name]:
            raise TaskError(f"{what} are empty: expected at least one row for each split")
    return found


def _placed(row: Any, place: str) -> Row:
    if isinstance(row, Row):
        return row
    if not hasattr(row, "keys"):  # as dict() asks: a mapping, or a row of another library
        raise TaskError(f"{place} is {brief(row)}: expected {_ROW}")
    return Row(row, place)


def name_of(data: Mapping[str, Any]) -> str:
    """The name of a task that has none of its own: that of its data."""
    one: Mapping[str, Any] = data
    if not (data.get("path") or data.get("hub")):
        one = next((data[split] for split in SPLITS if isinstance(data.get(split), Mapping)), {})
    path = one.get("path")
    stem = Path(str(path)).stem if path else str(one.get("hub", "task")).rpartition("/")[2]
    return as_name(stem, "task")


def rows_where(sources: Sources, where: Mapping[str, Any]) -> tuple[Sources, list[str]]:
    """The rows that have one of the wanted values in each field, and a note about how many.

    Args:
        sources: All rows.
        where: Field -> value, or list of values.

    Raises:
        UnknownName: No row has a field, or a value in it.
        TaskError: Nothing is left of a source.
    """
    kept = sources
    for field, given in where.items():
        wanted = _texts(given, f"where.{field}")
        _check_met(_rows(sources), field, wanted)
        kept = {
            name: [row for row in rows if _text(row, field) in wanted]
            for name, rows in kept.items()
        }
    if empty := next((name for name, rows in kept.items() if not rows), None):
        asked = ", ".join(f"{field}: {listed(_texts(v, field))}" for field, v in where.items())
        of = "the data" if empty == WHOLE else f"the {empty} data"
        raise TaskError(f"'where' leaves no row of {of}: none has {asked} at once")
    total, left = (len(list(_rows(some))) for some in (sources, kept))
    return kept, [f"'where' keeps {left:,} of {total:,} rows"]


def rows_of_each(sources: Sources, field: str, name: str) -> dict[str, Sources]:
    """The rows of each value of a field, by the name of the task that they make.

    Args:
        sources: All rows.
        field: The field; every row has it.
        name: What all of these tasks are called, which their names begin with.

    Raises:
        TaskError: A row lacks the field, there are too many values, or a source has no row of one.
    """
    found: dict[str, Sources] = {}
    for source, rows in sources.items():
        for row in rows:
            text = text_in(row, field, row.place)
            if not text.strip():
                raise FieldError(f"{row.place}: the field '{field}' is empty: expected a value")
            found.setdefault(text, {}).setdefault(source, []).append(row)
    if len(found) > MOST_TASKS:
        raise TaskError(
            f"'each' makes a task of each of the {len(found):,} values of '{field}': expected at "
            f"most {MOST_TASKS:,}; they are {listed(sorted(found))}"
        )
    for text, some in sorted(found.items()):
        if lacking := next((source for source in sources if source not in some), None):
            raise TaskError(
                f"the {lacking} data have no row with {field}: {text}, which others have: leave "
                "that value out with 'where'"
            )
    names = _folders(name, sorted(found))
    return {names[text]: found[text] for text in sorted(found)}


def _by_column(
    rows: Sequence[Row], column: str, given: Mapping[str, Any]
) -> tuple[Sources, list[str]]:
    """The rows of each split by their value in a column."""
    splits: dict[str, str] = {}
    for split, named in given.items():
        for text in _texts(named, f"data.{split}"):
            if text in splits:
                raise TaskError(
                    f"'data' names rows with {column}: {text} for {splits[text]} and for {split}: "
                    "expected one split for each value"
                )
            splits[text] = split
    _check_met(rows, column, splits)
    sources: Sources = {split: [] for split in given}
    left: Counter[str | None] = Counter()
    for row in rows:
        value = _text(row, column)
        if value is None or value not in splits:
            left[value] += 1
        else:
            sources[splits[value]].append(row)
    notes = []
    if none := left.pop(None, 0):
        notes.append(f"{none:,} row{'s' * (none != 1)} left out without a value of '{column}'")
    if left:
        others = f"'{column}' is {listed(left)}"
        notes.append(f"{left.total():,} rows left out whose {others}, which no split names")
    return sources, notes


def _check_met(rows: Iterable[Row], field: str, wanted: Iterable[str]) -> None:
    """See that some row has a field, and each of the values that are wanted of it."""
    every = list(rows)
    met = {text for row in every if (text := _text(row, field)) is not None}
    if not met:
        names = dict.fromkeys(name for row in every for name in row)
        raise UnknownName("field", field, _near(field, list(names)))
    for text in wanted:
        if text not in met:
            raise UnknownName(f"value of the field '{field}'", text, _near(text, sorted(met)))


def _near(text: str, known: Sequence[str]) -> Sequence[str]:
    """The names that are nearest to a text, where there are too many for a message."""
    if len(known) <= _LISTED:
        return known
    return difflib.get_close_matches(text[:100], known, n=_LISTED, cutoff=0.0)


def _text(row: Row, field: str) -> str | None:
    """The text of a row's field; None where the row has no value there."""
    try:
        value = value_in(row, field, row.place)
    except FieldError:
        return None
    return None if is_missing(value) else text_in(row, field, row.place)


def _texts(given: Any, key: str) -> list[str]:
    values = given if isinstance(given, (list, tuple)) else [given]
    return [stated(value, key) for value in values]


def _rows(sources: Sources) -> Iterable[Row]:
    return (row for rows in sources.values() for row in rows)


def _folders(name: str, values: Sequence[str]) -> dict[str, str]:
    """Value -> the name of its task; values that would share a folder get a hash behind it."""
    names = {value: as_name(f"{name}-{value}", name) for value in values}
    counts = Counter(each.lower() for each in names.values())
    for value, each in names.items():
        if counts[each.lower()] > 1 or each == name:
            mark = hashlib.sha256(value.encode()).hexdigest()[:6]
            names[value] = f"{each[: NAME - 7]}-{mark}"
    return names
