"""Reading a study's folder; an error names the file that lacks a key or holds another type."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from promptsearch.errors import RecordError, StudyError
from promptsearch.files import exists, shown
from promptsearch.printable import brief
from promptsearch.records.agreement import check_run, check_settings, check_study
from promptsearch.records.begun import BegunRecord
from promptsearch.records.explained import EXPLAINED, ExplainedRecord
from promptsearch.records.headroom import HEADROOM, StudyHeadroomRecord
from promptsearch.records.results import Results
from promptsearch.records.run import FailedRecord, RunRecord
from promptsearch.records.sealed import damaged, read_record
from promptsearch.records.signature import run_signature, signature
from promptsearch.records.slim import RUNS, read_slim
from promptsearch.records.study import StudyRecord

#: The names of the records in a study's folder, and in a run's.
STUDY, RUN, RESULT = "study.json", "run.json", "result.json"
#: Task, label and seed of a run.
Name = tuple[str, str, int]
T = TypeVar("T")
R = TypeVar("R", RunRecord, FailedRecord)


def load_results(folder: Path | str, *, trust_code: bool = False) -> Results:
    """Read a study's folder.

    Args:
        folder: What `promptsearch compare` was given as `--out`.
        trust_code: Whether a report may import the modules that the study names as metrics; else it
            takes what runs recorded.

    Returns:
        The study and all its runs.

    Raises:
        StudyError: The folder is no study's.
        RecordError: One of its files is damaged.
    """
    folder = Path(folder)
    study = load_study(folder)
    runs: list[RunRecord] = []
    failed: list[FailedRecord] = []
    seen: set[tuple[str, str, int]] = set()
    found = sorted(each / RESULT for each in folder.glob("*/*/seed*") if exists(each / RESULT))
    made = [(path, load_run(path, study)) for path in found]
    own = {(run.task, run.label, run.seed) for _, run in made}
    kept = load_kept(folder, study)
    others = [(folder / RUNS, run) for name, run in kept.items() if name not in own]
    for path, run in [*made, *others]:
        name = (run.task, run.label, run.seed)
        if name in seen:
            raise _damaged(
                path, f"the run {run.task}/{run.label}/seed{run.seed} lies in another folder, too"
            )
        seen.add(name)
        if isinstance(run, FailedRecord):
            failed.append(run)
            continue
        if any(
            run.task == other.task and _differ(run.test.labels, other.test.labels) for other in runs
        ):
            raise _damaged(
                path, "its right answers on the test split are not those of the other runs"
            )
        runs.append(run)
    return Results(
        folder,
        study,
        _ordered(runs, study),
        _ordered(failed, study),
        _unfinished([*runs, *failed], study),
        trust_code,
        explained=_beside(
            ExplainedRecord,
            folder / EXPLAINED,
            "explained",
            "restore it, or delete it and run `promptsearch explain` again",
        ),
        headroom=load_headroom(folder),
    )


def load_headroom(folder: Path) -> StudyHeadroomRecord | None:
    """Read what searches were expected to gain in a study; None where nobody looked.

    Args:
        folder: The study's; it may have no runs yet.

    Raises:
        RecordError: The file is damaged.
    """
    remedy = "restore it, or delete it"
    return _beside(StudyHeadroomRecord, folder / HEADROOM, "headroom", remedy)


def load_study(folder: Path) -> StudyRecord:
    """Read what the runs of a study share.

    Args:
        folder: The study's.

    Raises:
        StudyError: The folder is no study's.
        RecordError: `study.json` is damaged.
    """
    path = folder / STUDY
    if not exists(path):
        below = (
            sorted(str(found.parent) for found in folder.glob(f"*/{STUDY}"))
            if exists(folder)
            else []
        )
        hint = (
            f"Did you mean {' or '.join(below)}?"
            if below
            else "`promptsearch compare STUDY.yaml --out FOLDER` makes one."
        )
        raise StudyError(
            "expected the folder of a study, with a file study.json in it; there is none in "
            f"{shown(folder)}. {hint}"
        )
    study = record_of(StudyRecord, path, read_record(path, "study", _remedy(path)))
    try:
        check_study(study)
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    return study if study.signature else replace(study, signature=signature(study))


def load_run(path: Path, study: StudyRecord) -> RunRecord | FailedRecord:
    """Read how a run ended.

    Args:
        path: Its `result.json`.
        study: Its study.

    Raises:
        RecordError: The file is damaged, contradicts itself, the study, or the `run.json` beside
            it, or is of another run.
    """
    run = _checked(path, read_record(path, "result", _remedy(path)), study)
    try:
        if path.parts[-2] != f"seed{run.seed}":
            raise ValueError(f"it is of seed {run.seed}, and its folder of another")
        if isinstance(run, RunRecord) and exists(path.with_name(RUN)):
            check_settings(run, load_begun(path.with_name(RUN)).settings)
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    return run


def load_kept(folder: Path, study: StudyRecord) -> dict[Name, RunRecord | FailedRecord]:
    """Read how the runs of a slim record ended, by task, label and seed.

    Args:
        folder: The study's folder; where it holds no slim record, there are none.
        study: The study.

    Raises:
        RecordError: The record is damaged, or contradicts itself or the study.
    """
    runs = [_checked(folder / RUNS, data, study) for data in read_slim(folder)]
    return {(run.task, run.label, run.seed): run for run in runs}


def _checked(path: Path, data: Mapping[str, Any], study: StudyRecord) -> RunRecord | FailedRecord:
    """The record of a run, which contradicts neither itself nor the study."""
    task = data.get("task")
    if not isinstance(task, str) or task not in study.tasks:
        raise RecordError(
            f"{shown(path)} is of the task {brief(task)}; study.json has "
            f"{', '.join(study.tasks)}: move it to its study"
        )
    run: RunRecord | FailedRecord
    if data.get("status") == "failed":
        run = record_of(FailedRecord, path, data)
    elif data.get("status") == "done":
        run = record_of(RunRecord, path, data)
    else:
        raise _damaged(
            path, f"status: expected 'done' or 'failed', got {str(data.get('status'))[:40]!r}"
        )
    try:
        if isinstance(run, RunRecord):
            check_run(run, study)
            run = replace(run, signature=run_signature(study, run))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    return run


def _beside(kind: type[T], path: Path, name: str, remedy: str) -> T | None:
    """A record that a study's folder may hold beside those of its runs; None where it does not."""
    return record_of(kind, path, read_record(path, name, remedy)) if exists(path) else None


def load_begun(path: Path) -> BegunRecord:
    """Read what a run was begun with.

    Args:
        path: Its `run.json`.

    Raises:
        RecordError: The file is damaged.
    """
    return record_of(BegunRecord, path, read_record(path, "run", _remedy(path)))


def _ordered(runs: Sequence[R], study: StudyRecord) -> tuple[R, ...]:
    tasks, labels = list(study.tasks), study.strategies
    # A label that a damaged study.json has lost comes last instead of vanishing.
    return tuple(
        sorted(
            runs,
            key=lambda r: (
                tasks.index(r.task),
                (labels + [r.label]).index(r.label),
                r.label,
                r.seed,
            ),
        )
    )


def _unfinished(
    runs: Sequence[RunRecord | FailedRecord], study: StudyRecord
) -> tuple[tuple[str, str, int], ...]:
    known = {(run.task, run.label, run.seed) for run in runs}
    # Older studies do not say which rows run once, but their runs do.
    once = {(run.task, run.label) for run in runs if run.deterministic}
    found = []
    for task, label in product(study.tasks, study.strategies):
        asked = study.seeds[: study.seeds_of(label)]
        seeds = [seed for seed in asked if study.wants(task, label, seed)]
        if label in study.once:
            del seeds[1:]
        if (task, label) not in once:
            found += [(task, label, seed) for seed in seeds if (task, label, seed) not in known]
    return tuple(found)


def _differ(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> bool:
    return one is not None and other is not None and one != other


def record_of(kind: type[T], path: Path, data: Mapping[str, Any]) -> T:
    """The record that the values of a file stand for.

    Args:
        kind: The record's class.
        path: The file.
        data: Its content, as JSON values.

    Raises:
        RecordError: They are none; the message names the file and the first wrong field.
    """
    try:
        read: T = _adapter(cast(Hashable, kind)).validate_python(data)
        return read
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(
            path, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        ) from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _damaged(path: Path, what: str) -> RecordError:
    return damaged(path, what, _remedy(path))


def _remedy(path: Path) -> str:
    """The one next step where a record is damaged: its name tells what hangs on it."""
    if path.name == STUDY:
        return (
            "restore it from a copy, or run the study again into a new folder with --out; the runs "
            "in this one stay as they are"
        )
    if path.name == RUN:
        return "restore it, or delete it alone and run the study again: it is written anew"
    return (
        "restore it, or delete it and run the study again: the run ends again from its log, with "
        "the same numbers"
    )
