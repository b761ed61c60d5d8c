"""Tasks: data in three disjoint, locked splits, a template, the answers and a metric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from promptsearch.errors import TaskError, UnknownName
from promptsearch.metrics import check_metric
from promptsearch.template import Template

SPLITS = ("search", "select", "test")
_BUILTIN = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Example:
    """One input with its right answer.

    Args:
        id: Its place in its split.
        fields: The template's fields.
        answer: The right answer's text, as it stands behind the template.
        choice: The right answer's place among the task's choices; None for text answers.
        aliases: Other texts that count as right in the metric (never in the loss).
    """

    id: int
    fields: Mapping[str, Any]
    answer: str
    choice: int | None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Examples that belong together, in a fixed order.

    Args:
        name: `search`, `select` or `test`.
        examples: All of them.
    """

    name: str
    examples: tuple[Example, ...]

    @property
    def hash(self) -> str:
        """20 hexadecimal digits of a SHA-256 of all examples in their order."""
        rows = [[dict(e.fields), e.answer, list(e.aliases)] for e in self.examples]
        return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()[:20]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.examples)


@dataclass(frozen=True)
class Task:
    """What is to be solved.

    Args:
        name: Names its folder and rows in reports.
        template: Unbound: slots without a length get the study's.
        choices: The answers' texts for tasks of choice; None where the answer is free text.
        splits: `search`, `select` and `test`, with no text in common.
        metric: `accuracy`, `balanced_accuracy`, `f1` (macro), `exact_match`, or `module:function`.
        notes: What was dropped from the data, for the report.
    """

    name: str
    template: Template
    choices: tuple[str, ...] | None
    splits: Mapping[str, Split]
    metric: str
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["choices", "text"]:
        """How the task is answered."""
        return "text" if self.choices is None else "choices"

    @staticmethod
    def from_rows(
        rows: Iterable[Mapping[str, Any]],
        *,
        template: str | Sequence[Mapping[str, str]],
        label: str,
        splits: Mapping[str, int],
        answers: Mapping[Any, str] | None = None,
        aliases: Mapping[str, Sequence[str]] | None = None,
        metric: str | None = None,
        name: str = "task",
    ) -> Task:
        """A task from rows of data.

        Which row falls into which split depends on the rows' texts alone (they are ordered by a hash of them), not on
        the order of the file; rows whose text occurs before are dropped, so no text stands in two splits.

        Args:
            rows: Field name -> value.
            template: A text, or messages, `{role: content}` each; see `promptsearch.template`.
            label: The field that holds the right answer.
            splits: The number of examples of `search`, `select` and `test`.
            answers: Label value -> answer text, for tasks of choice. Left out: the label's text is the answer.
            aliases: Answer text -> other texts that count as right; text answers only.
            metric: See the class; left out: `accuracy`, or `exact_match` for text answers.
            name: The task's name.

        Raises:
            TaskError: A field or an answer is missing, or there is too little data.
            TemplateError: The template cannot be read.
        """
        parsed = Template.parse(template)
        given = [dict(row) for row in rows]
        unique, notes = _unique(given, parsed, label)
        choices = None if answers is None else tuple(parsed.answer_text(text) for text in answers.values())
        if choices is not None and len(choices) < 2:
            raise TaskError(f"task '{name}': expected at least two answers to choose from, got {list(choices)}")
        if choices is not None and aliases:
            raise TaskError(f"task '{name}': aliases belong to text answers; this task has answers to choose from")
        places = {str(value): i for i, value in enumerate(answers or {})}
        examples = [_example(row, parsed, label, places, choices, aliases or {}, name) for row in unique]
        if metric is None:
            metric = "exact_match" if choices is None else "accuracy"
        check_metric(metric, None if choices is None else len(choices))
        return Task(name, parsed, choices, _split(examples, splits, name, len(given)), metric, tuple(notes))

    @staticmethod
    def load(source: str | Mapping[str, Any], folder: Path | None = None, *, metric: str | None = None) -> Task:
        """A built-in task by name, or a task as a study file describes it.

        Args:
            source: The name, or the mapping under the key `task` of a study file.
            folder: What relative data paths are relative to; left out: the current folder.
            metric: Overrides the task's own.

        Raises:
            UnknownName: No built-in task has the name.
            TaskError: As `from_rows`, or the data cannot be read.
        """
        if isinstance(source, str):
            known = builtin_tasks()
            if source not in known:
                raise UnknownName("task", source, known)
            source = {"name": source, **yaml.safe_load((_BUILTIN / f"{source}.yaml").read_text("utf-8"))}
            folder = _BUILTIN
        given = {key: value for key, value in source.items() if key not in ("description", "data") and value is not None}
        data = source["data"]
        path = data.get("path")
        given.setdefault("name", Path(path).stem if path else str(data.get("hub", "task")).rpartition("/")[2])
        return Task.from_rows(read_data(data, folder or Path()), **{**given, **({"metric": metric} if metric else {})})


def builtin_tasks() -> dict[str, str]:
    """The built-in tasks: name -> what it is, in one line."""
    return {path.stem: str(yaml.safe_load(path.read_text("utf-8"))["description"]) for path in sorted(_BUILTIN.glob("*.yaml"))}


def read_data(data: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The rows that a study file's `data` names.

    Args:
        data: `{path: FILE}` for JSONL, CSV or Parquet, or `{hub: owner/name}` with optional `config`, `revision`, `split`
            (left out: all splits of the data set together; the task makes its own).
        folder: What a relative path is relative to.

    Raises:
        TaskError: The file or data set cannot be read.
    """
    if "hub" in data:
        return _hub_rows(data)
    path = folder / data["path"]
    if not path.is_file():
        raise TaskError(f"the data file {path} does not exist: paths in a study file are relative to the study file")
    if path.suffix == ".jsonl":
        return _jsonl_rows(path)
    kinds = {".csv": "csv", ".parquet": "parquet"}
    if path.suffix not in kinds:
        raise TaskError(f"the data file {path} is of an unknown kind: expected .jsonl, .csv or .parquet")
    import pandas as pd

    try:
        # Only an empty cell is missing: "NA" and "None" are texts like any other.
        csv = path.suffix == ".csv"
        table = pd.read_csv(path, keep_default_na=False, na_values=[""]) if csv else pd.read_parquet(path)
    except (OSError, ValueError) as error:  # errors of pandas and pyarrow about content are ValueErrors
        raise TaskError(f"cannot read the data file {path}: {error}") from error
    return [{str(k): v for k, v in row.items()} for row in table.to_dict(orient="records")]


def _jsonl_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"cannot read the data file {path}: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TaskError(f"{path}, line {number}: this is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise TaskError(f"{path}, line {number}: expected an object with fields, got {type(row).__name__}")
        if set(row) != {"canary"}:  # BIG-bench files begin with a line that only marks them
            rows.append(row)
    return rows


def _hub_rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    import datasets

    try:
        found = datasets.load_dataset(data["hub"], data.get("config"), revision=data.get("revision"), split=data.get("split"))
    except Exception as error:  # the Hub client raises errors of many packages
        raise TaskError(
            f"cannot load the data set '{data['hub']}' from the Hub ({type(error).__name__}: {error}). "
            "Offline, save it as JSONL, CSV or Parquet and name it with data: {path: FILE}."
        ) from error
    parts = list(found.values()) if isinstance(found, dict) else [found]
    return [dict(row) for part in parts for row in part]


def _unique(rows: list[dict[str, Any]], template: Template, label: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows with texts that did not occur before, ordered by a hash of their texts."""
    if not rows:
        raise TaskError("the data are empty: expected at least one row for each split")
    for name in (*template.fields, label):
        missing = next((i for i, row in enumerate(rows, start=1) if _absent(row.get(name))), None)
        if missing is not None:
            raise TaskError(
                f"row {missing} of the data lacks the field '{name}'; it has {', '.join(map(str, rows[missing - 1]))}"
            )
    seen: dict[str, dict[str, Any]] = {}
    conflicts = 0
    for row in rows:
        first = seen.setdefault("".join(template.fill(row)), row)
        conflicts += first[label] != row[label]
    notes = []
    if len(seen) < len(rows):
        notes.append(
            f"{len(rows) - len(seen)} rows dropped whose text stands in an earlier row ({conflicts} of them with another label)"
        )
    ordered = sorted(seen, key=lambda text: hashlib.sha256(text.encode()).digest())
    return [seen[text] for text in ordered], notes


def _example(
    row: Mapping[str, Any],
    template: Template,
    label: str,
    places: Mapping[str, int],
    choices: tuple[str, ...] | None,
    aliases: Mapping[str, Sequence[str]],
    task: str,
) -> Example:
    fields = {name: row[name] for name in template.fields}
    value = str(row[label])
    if choices is None:
        others = tuple(template.answer_text(text) for text in aliases.get(value, ()))
        return Example(-1, fields, template.answer_text(value), None, others)
    if value not in places:
        raise TaskError(f"task '{task}': the label {row[label]!r} has no answer; answers are given for {', '.join(places)}")
    place = places[value]
    return Example(-1, fields, choices[place], place)


def _split(examples: Sequence[Example], sizes: Mapping[str, int], task: str, rows: int) -> dict[str, Split]:
    for name in sizes:
        if name not in SPLITS:
            raise UnknownName("split", name, SPLITS)
    for name in SPLITS:
        if int(sizes.get(name, 0)) < 1:
            raise TaskError(f"task '{task}': the split '{name}' needs at least 1 example, got {sizes.get(name, 0)}")
    wanted = sum(sizes[name] for name in SPLITS)
    if wanted > len(examples):
        raise TaskError(
            f"task '{task}': the splits want {wanted} examples ({', '.join(f'{n}: {sizes[n]}' for n in SPLITS)}), "
            f"but the data hold {len(examples)} different ones in {rows} rows"
        )
    splits, begin = {}, 0
    for name in SPLITS:
        part = examples[begin : begin + sizes[name]]
        numbered = tuple(Example(i, e.fields, e.answer, e.choice, e.aliases) for i, e in enumerate(part))
        splits[name] = Split(name, numbered)
        begin += sizes[name]
    return splits


def _absent(value: Any) -> bool:
    return value is None or value != value  # an empty cell of a CSV file is a NaN
