"""Reading a study's folder. A file that lacks a key, or holds another type there, is named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from promptsearch.errors import RecordError, StudyError
from promptsearch.report.results import FailedRun, Results, Run, Study

T = TypeVar("T")
R = TypeVar("R", Run, FailedRun)


def load_results(folder: Path | str, *, trust_code: bool = False) -> Results:
    """Read a study's folder.

    Args:
        folder: What `promptsearch compare` was given as `--out`.
        trust_code: Whether a report may import the modules that the study names as metrics; else it takes what runs recorded.

    Returns:
        The study and all its runs.

    Raises:
        StudyError: The folder is no study's.
        RecordError: One of its files is damaged.
    """
    folder = Path(folder)
    path = folder / "study.json"
    if not path.is_file():
        below = sorted(str(found.parent) for found in folder.glob("*/study.json"))
        hint = f"Did you mean {' or '.join(below)}?" if below else "`promptsearch compare STUDY.yaml --out FOLDER` makes one."
        raise StudyError(f"expected the folder of a study, with a file study.json in it; there is none in {folder}. {hint}")
    study = _read(path, _json(path), Study)
    runs: list[Run] = []
    failed: list[FailedRun] = []
    for path in sorted(folder.glob("*/*/seed*/result.json")):
        data = _json(path)
        if data.get("task") not in study.tasks:
            raise RecordError(f"{path} is of the task {data.get('task')!r}; study.json has {', '.join(study.tasks)}")
        if data.get("status") == "failed":
            failed.append(_read(path, data, FailedRun))
        else:
            runs.append(run := _read(path, data, Run))
            _check_examples(path, run, study.tasks[run.task].splits["test"].size)
    missing = _unfinished([*runs, *failed], study)
    return Results(folder, study, _ordered(runs, study), _ordered(failed, study), missing, trust_code)


def _ordered(runs: Sequence[R], study: Study) -> tuple[R, ...]:
    tasks, labels = list(study.tasks), study.strategies
    # A label that a damaged study.json has lost comes last instead of vanishing.
    return tuple(sorted(runs, key=lambda r: (tasks.index(r.task), (labels + [r.label]).index(r.label), r.label, r.seed)))


def _unfinished(runs: Sequence[Run | FailedRun], study: Study) -> tuple[tuple[str, str, int], ...]:
    known = {(run.task, run.label, run.seed) for run in runs}
    once = {(run.task, run.label) for run in runs if run.deterministic}
    return tuple(
        (task, label, seed)
        for task in study.tasks
        for label in study.strategies
        for seed in study.seeds
        if (task, label, seed) not in known and (task, label) not in once
    )


def _check_examples(path: Path, run: Run, size: int) -> None:
    for name in ("losses", "correct", "predictions", "labels", "shares"):
        values = getattr(run.test, name)
        if values is not None and len(values) != size:
            raise _damaged(path, f"test.{name} has {len(values)} entries, the test split {size} examples")


def _json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(data, dict):
        raise _damaged(path, f"expected a JSON object, got {type(data).__name__}")
    return data


def _read(path: Path, data: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(path, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error


def _damaged(path: Path, what: str) -> RecordError:
    remedy = "run the study again into a new folder" if path.name == "study.json" else "delete it and run the study again"
    return RecordError(f"{path} is damaged ({what}): {remedy}")
