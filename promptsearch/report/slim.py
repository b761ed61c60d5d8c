"""The writer of slim records: what a reader needs of a study, in a few files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from shlex import quote

from promptsearch.errors import StudyError
from promptsearch.export.winners import pack_winners
from promptsearch.files import exists, remove, shown, write_aside
from promptsearch.records.explained import EXPLAINED
from promptsearch.records.headroom import HEADROOM
from promptsearch.records.load import STUDY, load_results
from promptsearch.records.models import MODELS, TRANSFER, is_of_models, load_models
from promptsearch.records.sealed import write_record
from promptsearch.records.slim import write_slim
from promptsearch.report.across_pages import models_to_markdown
from promptsearch.report.facts import study_file, study_yaml
from promptsearch.report.markdown import to_markdown


def write_slim_record(folder: Path, out: Path, *, command: str = "") -> Path:
    """Write the slim record of a study.

    It holds `report.md`, the study file `study.yaml`, what all runs share (`study.json`: settings,
    versions, machine, commit), every number of each run (`runs.csv`, `scores.parquet`,
    `curves.parquet`), the winners (`winners.safetensors`), and `slim.json`, the mark of such a
    record; `explained.json` and `headroom.json` where the study has them. Logs, large vectors and
    HTML are what the command makes again. Of several models, it holds a slim record of each in a
    folder of its own, beside what is said of all of them.

    Args:
        folder: The study's folder; that of a slim record, with or without new runs, too.
        out: The folder of the slim record, which holds no other study.
        command: What makes the study again; left out: made of the name of `out`.

    Returns:
        The path of `report.md`.

    Raises:
        StudyError: The folder is no study's, or `out` holds one.
        RecordError: One of its files is damaged.
        PromptError: A winner is damaged.
    """
    if is_of_models(folder):
        return _write_members(folder, out, command)
    results = load_results(folder)
    if exists(out / STUDY):
        raise StudyError(f"{shown(out)} holds a study already: name a new folder with --out")
    write_aside(out / "study.yaml", study_file(results.study))
    pack_winners(folder, out)
    command = command or f"promptsearch compare study.yaml --out {quote(out.resolve().name)}"
    write_slim([*results.runs, *results.failed], command, out)
    if results.explained is not None:
        write_record(out / EXPLAINED, "explained", asdict(results.explained))
    if results.headroom is not None:
        write_record(out / HEADROOM, "headroom", asdict(results.headroom))
    # Written last: a call that failed before has left no study, so that it can be made again.
    write_record(out / STUDY, "study", asdict(results.study))
    path = out / "report.md"
    try:
        write_aside(path, to_markdown(load_results(out)))
    except BaseException:
        remove(out / STUDY)
        raise
    return path


def _write_members(folder: Path, out: Path, command: str) -> Path:
    """Write the slim record of a study of several models, as `write_slim_record`."""
    results = load_models(folder)
    if is_of_models(out):
        raise StudyError(f"{shown(out)} holds a study already: name a new folder with --out")
    command = command or f"promptsearch compare study.yaml --out {quote(out.resolve().name)}"
    for name in results.parts:
        write_slim_record(folder / name, out / name, command=command)
    write_record(out / MODELS, "models", asdict(results.study))
    if results.transfer is not None:
        write_record(out / TRANSFER, "transfer", asdict(results.transfer))
    write_aside(out / "study.yaml", study_yaml(results.study.settings))
    path = out / "report.md"
    write_aside(path, models_to_markdown(load_models(out)))
    return path
