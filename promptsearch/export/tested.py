"""The task that a run was tested on, loaded again from what its study says.

The certificate knows the hash of the test split, and so it does not matter where the rows come
from: only those that were tested are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import ExportError, TaskError
from promptsearch.export.certificate import check_held
from promptsearch.export.saved import SavedPrompt
from promptsearch.files import exists, shown
from promptsearch.records.load import STUDY, load_study
from promptsearch.tasks.task import Task

#: How many folders above a run's export its study may stand: STUDY/TASK/LABEL/seed0/best.
_ABOVE = 5
#: What a task's settings say that has nothing to do with its rows.
_ASIDE = ("metric", "metrics")
#: The one metric whose options an export tells; another may name code, and a study be a stranger's.
_TOLD = "exact_match"


def tested_task(saved: SavedPrompt, run: Path, data: Path | None) -> Task:
    """The task whose test split a prompt was tested on.

    Args:
        saved: The prompt.
        run: The run's folder, or its export, within the study's folder.
        data: The folder to which the data's relative paths are relative, mostly that of the study
            file; None for the current one.

    Raises:
        ExportError: The prompt is trained, the study or the data are not there, or they are other
            data now.
    """
    check_held(saved.prompt, "text")  # before data are read for nothing
    name = str(saved.about.get("task", ""))
    wanted = saved.about.get("splits", {}).get("test")
    folder = next((each for each in _above(run) if exists(each / STUDY)), None)
    if folder is None or wanted is None:
        raise ExportError(
            f"this format holds the rows of the test split, and {shown(run)} stands in no study's "
            "folder: name the run within its study, as STUDY/TASK/STRATEGY/seed0"
        )
    remedy = "name the folder of the study file with --data"
    try:
        for task in _tasks(load_study(folder).settings.get("tasks", ()), name, data):
            if task.splits["test"].hash == wanted:
                return task
    except TaskError as error:
        raise ExportError(
            f"the rows of the test split cannot be read: {error}; {remedy}"
        ) from error
    raise ExportError(
        f"the data of the task '{name}' are not those that the prompt was tested on: their test "
        f"split has another hash than {wanted}. Put the data of then back, or {remedy}"
    )


def _above(run: Path) -> Iterator[Path]:
    run = run.absolute()
    yield from [run, *run.parents][: _ABOVE + 1]


def _tasks(settings: Any, name: str, data: Path | None) -> Iterator[Task]:
    """The study's tasks of a name, or those of which one has the name."""
    for given in settings:
        if isinstance(given, str):
            if given == name:
                yield Task.load(given)
        elif isinstance(given, Mapping) and name.startswith(str(given.get("name", ""))):
            kept = {key: value for key, value in given.items() if key not in _ASIDE}
            metric = _stated(given.get("metric"))
            told = metric if isinstance(metric, Mapping) and set(metric) == {_TOLD} else None
            yield from Task.load_each(_stated(kept), data or Path(), metric=told)


def _stated(given: Any) -> Any:
    """Settings without the keys that were left out, which stand in a record as null."""
    if not isinstance(given, Mapping):
        return given
    return {key: _stated(value) for key, value in given.items() if value is not None}
