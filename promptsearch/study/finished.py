"""A study that is finished: the same call again needs neither its model nor torch.

The call that finishes a study leaves `finished.json` in its folder: what it was asked, the files
that it was made of, and what it left there. While all of these are the same, nothing is left to do.
A study of what may change out of sight, such as a server or a data set of the Hub, has no such
file: every call looks at it anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import FileError, PromptSearchError, RecordError
from promptsearch.files import exists, failing, read, remove
from promptsearch.records.explained import EXPLAINED
from promptsearch.records.headroom import HEADROOM
from promptsearch.records.load import RESULT, RUN, STUDY
from promptsearch.records.provenance import versions
from promptsearch.records.results import Results
from promptsearch.records.sealed import read_record, write_record
from promptsearch.records.slim import CURVES, RUNS, SCORES, SLIM
from promptsearch.study.settings.data import Data, official
from promptsearch.study.settings.model import ProposerConfig
from promptsearch.study.settings.pool import PoolSource
from promptsearch.study.settings.study import StudyConfig
from promptsearch.study.settings.task import TaskConfig
from promptsearch.tasks.metrics import METRICS, named

FINISHED = "finished.json"
#: The files of a study's folder beside those of its runs: records and report.
_LEFT = (
    *(STUDY, SLIM, RUNS, SCORES, CURVES, EXPLAINED, HEADROOM),
    *("report.md", "report.html", "runs.parquet"),
)


def is_finished(folder: Path, config: StudyConfig) -> bool:
    """Whether a folder holds all that a call of this study would leave there.

    Args:
        folder: The study's folder.
        config: The study, of one model.
    """
    try:
        if not exists(folder / FINISHED):
            return False
        found = read_record(folder / FINISHED, "finished", "delete it")
        return bool(
            found["asked"] == _asked(config)
            and found["left"] == _left(folder)
            and all(_stamp(Path(path)) == stamp for path, stamp in found["made_of"].items())
        )
    except (RecordError, FileError, KeyError, AttributeError, TypeError):
        return False  # whatever is wrong is found, and said, by the call that looks at all


def made_of(config: StudyConfig) -> dict[str, list[int] | None] | None:
    """The files that a study is made of, each with its stamp.

    Args:
        config: The study, of one model.

    Returns:
        Path -> bytes and time of writing, None for a file that is not there. None for the whole
        where the study is made of anything else, too, or a file cannot be looked at.
    """
    try:
        files = _files(config)
        return None if files is None else {str(p.absolute()): _stamp(p) for p in files}
    except PromptSearchError:
        return None  # the study itself finds what is wrong, and says it


def note_finished(
    results: Results, config: StudyConfig, made: Mapping[str, list[int] | None] | None
) -> None:
    """Leave word in a study's folder that the study is finished, where it is.

    Args:
        results: What the folder holds, with its report.
        config: The study, of one model.
        made: What `made_of` said before the study read its files: these may have changed since.
    """
    folder = results.folder
    if made is None or results.failing or results.unfinished or any(r.export for r in results.runs):
        remove(folder / FINISHED)
        return
    record = {"asked": _asked(config), "made_of": made, "left": _left(folder)}
    write_record(folder / FINISHED, "finished", record)


def _asked(config: StudyConfig) -> dict[str, Any]:
    """What a call is asked: the study, from where it is read, and by which versions."""
    return {
        "settings": config.model_dump(mode="json"),
        "home": str(config.folder.absolute()),
        "versions": versions(),
    }


def _left(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of records, report and exported prompts in a study's folder."""
    names = (RUN, RESULT, "best/prompt.json")
    runs = sorted(each for name in names for each in folder.glob(f"*/*/seed*/{name}"))
    known = [folder / name for name in _LEFT if exists(folder / name)]
    return {path.relative_to(folder).as_posix(): _hash(path) for path in (*known, *runs)}


def _hash(path: Path) -> str:
    return hashlib.sha256(read(path)).hexdigest()


def _stamp(path: Path) -> list[int] | None:
    """The bytes of a file and when it was last written; None where there is none."""
    if not exists(path):
        return None
    with failing(path, "read"):
        found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _files(config: StudyConfig) -> list[Path] | None:
    """The files that a study is made of; None where it is made of anything else, too."""
    proposer, metrics = config.proposer, [config.metric, config.objective]
    if not isinstance(config.model, str) or not isinstance(proposer, ProposerConfig):
        return None  # a server
    found: list[Path] = []
    for task in config.tasks:
        if isinstance(task, str):
            continue  # a built-in one comes with this version
        if not isinstance(task, TaskConfig):
            return None
        metrics += [task.metric, *task.metrics]
        data = task.data
        sources = [data] if isinstance(data, Data) else [getattr(data, s) for s in official(data)]
        for source in sources:
            if source.path is None:
                return None  # a data set of the Hub
            found.append(config.folder / source.path)
    if any(named(metric)[0] not in METRICS for metric in metrics if metric is not None):
        return None  # somebody's code
    if isinstance(config.pool, PoolSource) and config.pool.file is not None:
        found.append(config.folder / config.pool.file)
    for name in filter(None, (config.model, proposer.model)):
        path = _model(config, name)
        if not exists(path):
            return None  # a model of the Hub
        found += [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return found


def _model(config: StudyConfig, name: str) -> Path:
    """Where a model lies; there is nothing where it is one of the Hub."""
    from promptsearch.models.packaged import is_packaged, packaged_model  # they import torch

    return packaged_model(name) if is_packaged(name) else Path(config.source(name))
