"""The documents of a task of lm-evaluation-harness, loaded as it loads them: with `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from promptsearch.errors import TaskError
from promptsearch.importing import strangers
from promptsearch.tasks.lm_eval.config import TaskFile

#: The names by which `datasets` reads files of rows; their paths are local.
_FILES = ("arrow", "csv", "json", "parquet", "text")
#: What a task may ask of `datasets.load_dataset`; nothing of this runs code.
_KNOWN = ("data_dir", "data_files", "revision")


class Documents(NamedTuple):
    """The documents of a split.

    Args:
        split: The split's name, as the task's file has it.
        fields: The names of the documents' fields.
        rows: The documents.
    """

    split: str
    fields: frozenset[str]
    rows: list[Mapping[str, Any]]


def load_documents(file: TaskFile) -> dict[str, Documents]:
    """The documents of every split that a task names, by the split's name.

    A path of `data_files` is relative to the task's file.

    Args:
        file: The task's file.

    Raises:
        TaskError: They cannot be loaded, or a split is missing or empty.
    """
    import datasets

    config, path = file.config, file.path
    given = dict(config.dataset_kwargs or {})
    given.pop("trust_remote_code", None)  # `datasets` runs no code of data sets any more
    if unknown := [key for key in given if key not in _KNOWN]:
        raise TaskError(
            f"{path}: dataset_kwargs has the key '{unknown[0]}': expected {', '.join(_KNOWN)}"
        )
    source = config.dataset_path
    if source == "pandas":
        raise TaskError(
            f"{path}: dataset_path 'pandas' reads pickles, which could run code: save the rows as "
            "JSON lines, and read them with dataset_path: json"
        )
    if source in _FILES:
        if "data_files" in given:
            given["data_files"] = _local(given["data_files"], file)
    elif (path.parent / source).is_dir():
        source = str(path.parent / source)

    def failed(error: BaseException) -> TaskError:
        return TaskError(
            f"{path}: cannot load the data set '{config.dataset_path}' "
            f"({type(error).__name__}: {error}). Offline, save its splits as JSON lines, and name "
            "them with dataset_path: json and dataset_kwargs: {data_files: {SPLIT: FILE}}"
        )

    with strangers(failed):  # the Hub client raises errors of many packages
        found = datasets.load_dataset(source, config.dataset_name, **given)
    splits = dict(found) if isinstance(found, dict) else {"train": found}
    return {name: _documents(name, splits, file) for name in _named(file)}


def _named(file: TaskFile) -> list[str]:
    """The splits that a task names, each once."""
    config = file.config
    named = [config.training_split, config.validation_split, config.test_split]
    if config.num_fewshot:
        named += [config.fewshot_split, config.fewshot_config.split]
    return list(dict.fromkeys(name for name in named if name is not None))


def _documents(name: str, splits: Mapping[str, Any], file: TaskFile) -> Documents:
    if name not in splits:
        raise TaskError(
            f"{file.path}: the data have no split '{name}'; they have {', '.join(splits)}"
        )
    part = splits[name]
    if not len(part):
        raise TaskError(f"{file.path}: the split '{name}' is empty")
    return Documents(name, frozenset(part.features), list(part))


def _local(files: Any, file: TaskFile) -> Any:
    """Paths of files, from the folder of the task's file."""
    if isinstance(files, dict):
        return {split: _local(each, file) for split, each in files.items()}
    if isinstance(files, list):
        return [_local(each, file) for each in files]
    if not isinstance(files, str):
        raise TaskError(f"{file.path}: data_files has {files!r}: expected a file")
    if "://" in files:
        return files
    path = file.path.parent / files
    if not any(mark in files for mark in "*?[") and not path.is_file():
        raise TaskError(
            f"{file.path}: the data file {path} does not exist: paths in data_files are relative "
            "to the task's file"
        )
    return str(path)
