"""The slim record of a study: its runs as three tables, in place of a folder for each.

`runs.csv` has a line a run with all single values of its record: a nested field is named as
`test.loss`, lists are JSON, and what is None is empty. `scores.parquet` has the scores of each
example on the select and the test split, its generated answer, and what its metrics rest on: JSON,
a list for each metric. `curves.parquet` has the anytime curves. `slim.json` is the mark of such a
record; it holds the checksums of the three. A column that an older record lacks is empty.

What is read here is the same `RunRecord` that `result.json` holds, to the last digit.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from promptsearch.errors import RecordError
from promptsearch.files import LARGEST, exists, read, write_aside
from promptsearch.records.measured import ExamplesRecord
from promptsearch.records.run import FailedRecord, RunRecord
from promptsearch.records.sealed import damaged, read_record, write_record

#: The mark of a slim record, and its tables.
SLIM, RUNS, SCORES, CURVES = "slim.json", "runs.csv", "scores.parquet", "curves.parquet"
#: Field of an example's scores -> its column, with the narrowest type that holds it.
_SCORES = {
    "losses": ("loss", pa.float64()),
    "correct": ("correct", pa.int8()),
    "predictions": ("prediction", pa.int16()),
    "labels": ("answer", pa.int16()),
    "shares": ("share", pa.float64()),
    "outputs": ("output", pa.string()),
    "probabilities": ("probabilities", pa.list_(pa.float64())),
}
#: Field of a run with an anytime curve -> the split of its losses.
_CURVES = {"curve": "search", "select_curve": "select"}
#: The column of the statistics of an example, one list for each metric.
_STATISTICS = "statistics"
_NAMED = [("task", pa.string()), ("label", pa.string()), ("seed", pa.int64())]
_REMEDY = "restore the slim record from a copy, or make the study again into a new folder"


def write_slim(runs: Sequence[RunRecord | FailedRecord], command: str, folder: Path) -> None:
    """Write the runs of a study as tables.

    Args:
        runs: The runs, finished and failed.
        command: What makes the study again.
        folder: Where the files go.
    """
    done = [run for run in runs if isinstance(run, RunRecord)]
    tables = {RUNS: _lines(runs), SCORES: _scores(done), CURVES: _curves(done)}
    for name, content in tables.items():
        write_aside(folder / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in tables.items()}
    write_record(folder / SLIM, "slim", {"command": command, "files": sums})


def command_of(folder: Path) -> str:
    """The command that makes the study of a slim record again; empty where there is none.

    Raises:
        RecordError: The file that names it is damaged, or of another version.
    """
    if not exists(folder / SLIM):
        return ""
    return str(read_record(folder / SLIM, "slim", _REMEDY).get("command", ""))


def read_slim(folder: Path) -> list[dict[str, Any]]:
    """Read the runs of a slim record; empty where the folder holds none.

    Args:
        folder: The study's folder.

    Returns:
        A dictionary a run, as `result.json` would hold it.

    Raises:
        RecordError: A file is damaged, or of another version.
    """
    if not exists(folder / SLIM):
        return []
    sums = read_record(folder / SLIM, "slim", _REMEDY).get("files")
    tables = {}
    for name in (RUNS, SCORES, CURVES):
        tables[name] = read(folder / name)
        told = sums.get(name) if isinstance(sums, dict) else None
        if hashlib.sha256(tables[name]).hexdigest() != told:
            raise damaged(folder / name, f"its checksum in {SLIM} is another", _REMEDY)
    try:
        return _joined(tables)
    except (pa.ArrowException, csv.Error, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"the tables in {folder} do not hold together ({repr(error)[:200]}): {_REMEDY}"
        ) from error


def _joined(tables: Mapping[str, bytes]) -> list[dict[str, Any]]:
    curves = _grouped(tables[CURVES], ["task", "label", "seed"])
    scores = _grouped(tables[SCORES], ["task", "label", "seed", "split"])
    runs = []
    csv.field_size_limit(LARGEST)  # Python's own limit is shorter than some texts
    for cells in csv.DictReader(io.StringIO(tables[RUNS].decode(), newline="")):
        if cells["status"] == "failed":
            runs.append(_values(FailedRecord, cells))
            continue
        run = _values(RunRecord, cells)
        name = (run["task"], run["label"], run["seed"])
        points = curves.get(name, {"tokens": [], "loss": []})
        # Older records have the curves of the search alone.
        splits = points.get("split", ["search"] * len(points["loss"]))
        of = list(zip(splits, points["tokens"], points["loss"], strict=True))
        for field, split in _CURVES.items():
            run[field] = [point for name, *point in of if name == split]
        for split in ("select", "test"):
            columns = scores[(*name, split)]
            for field, (column, _) in _SCORES.items():
                given = columns.get(column)
                run[split][field] = None if given is None or given[:1] == [None] else given
            _put_statistics(run[split].get("metrics", ()), columns.get(_STATISTICS, [None]))
        runs.append(run)
    return runs


def _put_statistics(metrics: Sequence[dict[str, Any]], rows: Sequence[str | None]) -> None:
    """Put the statistics of rows back into the metrics that they belong to."""
    given = [json.loads(row) for row in rows if row is not None]
    for place, metric in enumerate(metrics):
        own = [row[place] for row in given]
        metric["statistics"] = own if own and own[0] is not None else None


def _row_statistics(scores: ExamplesRecord) -> list[str | None]:
    """The statistics of each example, for their column; None where no metric has any."""
    columns = [metric.statistics for metric in scores.metrics]
    if not any(columns):
        return [None] * len(scores.losses)
    return [
        _json([None if rows is None else _short(rows[i]) for rows in columns])
        for i in range(len(scores.losses))
    ]


def _short(numbers: Sequence[float]) -> list[float]:
    """The same numbers, whole ones without a point."""
    return [int(number) if number == int(number) else number for number in numbers]


def _lines(runs: Sequence[RunRecord | FailedRecord]) -> bytes:
    """The content of `runs.csv`."""
    rows = [dict(_cells(run)) for run in runs]
    columns = [*_columns(RunRecord), "error"]
    text = io.StringIO(newline="")
    # Some versions of Python leave a lone "\r" without quotes, and then read it as a line's end.
    returns = any("\r" in cell for row in rows for cell in row.values())
    writer = csv.DictWriter(
        text,
        columns,
        restval="",
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL,
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _columns(kind: Any, before: str = "") -> Iterator[str]:
    """The columns of a record's single values, those of nested records included."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        inner = _record_in(hints[field.name])
        if inner is not None:
            yield from _columns(inner, f"{before}{field.name}.")
        elif not _tabled(field.name, before):
            yield before + field.name


def _tabled(name: str, before: str) -> bool:
    """Whether a field has a table of its own."""
    return (name in _CURVES and not before) or (name in _SCORES and before in ("select.", "test."))


def _record_in(hint: Any) -> Any:
    """The class of the record that a field holds, or may hold; None for other values.

    The words nearest to a soft prompt are records in a list: a single value, like every list.
    """
    inner = get_args(hint) if NoneType in get_args(hint) else (hint,)
    return next((kind for kind in inner if is_dataclass(kind)), None)


def _cells(record: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """The cells of a record, by column; those of None are left out."""
    for field in fields(record):
        value = getattr(record, field.name)
        if value is None or _tabled(field.name, before):
            continue
        if field.name == "metrics":  # their rows have a table of their own
            value = [replace(metric, statistics=None) for metric in value]
        if is_dataclass(value):
            yield from _cells(value, f"{before}{field.name}.")
        else:
            yield before + field.name, value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=asdict)


def _values(kind: Any, cells: Mapping[str, str], before: str = "") -> dict[str, Any]:
    """The reverse of `_cells`: what a record holds, as JSON values."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        hint, column = hints[field.name], before + field.name
        inner, may_be_none = _record_in(hint), NoneType in get_args(hint)
        if inner is not None:
            empty = not any(cells.get(each) for each in _columns(inner, f"{column}."))
            found[field.name] = (
                None if empty and may_be_none else _values(inner, cells, f"{column}.")
            )
        elif not _tabled(field.name, before) and column in cells:
            text = cells[column]
            if text == "" and may_be_none:
                found[field.name] = None
            else:
                found[field.name] = text if _is_text(hint) else json.loads(text)
    return found


def _is_text(hint: Any) -> bool:
    """Whether a field holds text: a string, one that may be missing, or one of some strings."""
    kinds = get_args(hint)
    return hint is str or set(kinds) == {str, NoneType} or any(isinstance(k, str) for k in kinds)


def _scores(runs: Sequence[RunRecord]) -> bytes:
    """The content of `scores.parquet`: a row for each example that a winner was scored on."""
    columns: dict[str, list[Any]] = {name: [] for name, _ in [*_NAMED, ("split", None)]}
    columns |= {"example": [], **{name: [] for name, _ in _SCORES.values()}, _STATISTICS: []}
    for run in runs:
        for split, scores in (("select", run.select), ("test", run.test)):
            size = len(scores.losses)
            row = {"task": run.task, "label": run.label, "seed": run.seed, "split": split}
            for name, value in row.items():
                columns[name] += [value] * size
            columns["example"] += range(size)
            for field, (name, _) in _SCORES.items():
                values = getattr(scores, field)
                columns[name] += [None] * size if values is None else values
            columns[_STATISTICS] += _row_statistics(scores)
    kinds = [*_NAMED, ("split", pa.string()), ("example", pa.int32()), *_SCORES.values()]
    kinds.append((_STATISTICS, pa.string()))
    return _parquet(columns, kinds)


def _curves(runs: Sequence[RunRecord]) -> bytes:
    """The content of `curves.parquet`: a row for each step of a curve."""
    rows = [
        (run.task, run.label, run.seed, *point, split)
        for run in runs
        for field, split in _CURVES.items()
        for point in getattr(run, field)
    ]
    kinds = [*_NAMED, ("tokens", pa.int64()), ("loss", pa.float64()), ("split", pa.string())]
    return _parquet(
        {name: [row[place] for row in rows] for place, (name, _) in enumerate(kinds)}, kinds
    )


def _parquet(columns: Mapping[str, list[Any]], kinds: Sequence[tuple[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(dict(columns), schema=pa.schema(kinds)),
        buffer,
        compression="zstd",
        compression_level=19,
        use_dictionary=[name for name, kind in kinds if kind == pa.string()],
    )
    return buffer.getvalue()


def _grouped(content: bytes, keys: Sequence[str]) -> dict[tuple[Any, ...], dict[str, list[Any]]]:
    """The rows of a table by their keys: column -> its values, in their order."""
    columns = pq.read_table(io.BytesIO(content)).to_pydict()
    found: dict[tuple[Any, ...], dict[str, list[Any]]] = {}
    rest = [name for name in columns if name not in keys]
    for place, key in enumerate(zip(*(columns[name] for name in keys), strict=True)):
        group = found.setdefault(key, {name: [] for name in rest})
        for name in rest:
            group[name].append(columns[name][place])
    return found
