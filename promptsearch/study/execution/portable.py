"""What a study names by files, made ready for machines that do not have the study file's folder.

Data and words that the study names relative to its file travel along. Models, tokenizers and tasks
of lm-evaluation-harness go by name: a folder of models is one that every machine has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptsearch.files import read
from promptsearch.study.execution.mirror import Change
from promptsearch.study.settings.study import StudyConfig


def portable(config: StudyConfig) -> tuple[dict[str, Any], list[Change]]:
    """A study's settings for other machines, and the files that they are relative to.

    Args:
        config: The study, of one model.

    Returns:
        The settings, as `study.json` holds them but for the names of files, and the files.

    Raises:
        FileError: A file cannot be read.
    """
    settings = config.model_dump(mode="json")
    files: dict[str, Change] = {}

    def packed(path: str) -> str:
        if Path(path).is_absolute():
            return path
        name = Path(*("up" if part == ".." else part for part in Path(path).parts)).as_posix()
        files[name] = Change(name, read(config.folder / path))
        return name

    def named(model: Any) -> Any:
        if isinstance(model, str):
            return config.source(model)
        if model.get("tokenizer"):
            return {**model, "tokenizer": config.source(model["tokenizer"])}
        return model

    settings["model"] = named(settings["model"])
    proposer = named(settings["proposer"])
    if "endpoint" not in proposer and proposer.get("model"):
        proposer = {**proposer, "model": config.source(proposer["model"])}
    settings["proposer"] = proposer
    if isinstance(settings["pool"], dict) and "file" in settings["pool"]:
        settings["pool"] = {**settings["pool"], "file": packed(settings["pool"]["file"])}
    for task in settings["tasks"]:
        if isinstance(task, dict) and "lm_eval" in task:
            task["lm_eval"] = _absolute(task["lm_eval"], config.folder)
        elif isinstance(task, dict):
            _pack(task["data"], packed)
    return settings, list(files.values())


def _absolute(asked: str, folder: Path) -> str:
    """A task's file by its whole path; the name of a task stays."""
    return str((folder / asked).resolve()) if asked.endswith((".yaml", ".yml")) else asked


def _pack(data: dict[str, Any], packed: Any) -> None:
    """Replace the paths in the sources of a task's data."""
    for key, value in data.items():
        if isinstance(value, dict):
            _pack(value, packed)
        elif key == "path" and isinstance(value, str):
            data[key] = packed(value)
