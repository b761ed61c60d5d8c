"""A task's file of lm-evaluation-harness: found, read with what it includes, and checked.

Keys and their meaning are those of `lm_eval.config.task.TaskConfig`, version 0.4.13.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptsearch.errors import StudyError, TaskError, UnknownName
from promptsearch.files import failing, read
from promptsearch.plain.limits import CHARACTERS, TOO_LONG
from promptsearch.plain.text import read_text
from promptsearch.plain.yaml import read_yaml

#: Keys that say nothing about what a model reads or how it is scored.
_ASIDE = {"doc_to_decontamination_query", "metadata", "should_decontaminate", "tag", "task_alias"}
#: Key -> what it asks for, of the keys that ask for what is not read here.
_REFUSED = {
    "class": "a task that is Python code",
    "custom_dataset": "documents that Python code makes",
    "doc_to_audio": "sound",
    "doc_to_image": "pictures",
    "group": "a group of tasks: name one of its tasks",
    "process_docs": "documents that Python code changes",
    "process_results": "scores that Python code computes",
    "unsafe_code": "running what the model writes",
    "use_prompt": "a template of another package",
}
#: The most files that one task may be put together of.
_INCLUDED = 20
#: The most bytes of a file of the harness that is looked through for a task's name.
_LARGEST = 1 << 22
_FUNCTION = re.compile(r"^[ \t]*(?!#)(?P<before>[^\n]*?)!function[ \t]+(?P<name>[^\s#]+)", re.M)
_NAME = re.compile(rb"^(task|group):[ \t]*[\"']?([^\s\"'#]+)[\"']?[ \t]*(?:#.*)?\r?$", re.M)


class _Values(BaseModel):
    """Values of exactly the types written here, under known keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class FewshotConfig(_Values):
    """How solved examples are written; what is left out is as for the document itself."""

    sampler: str = "default"
    split: str | None = None
    samples: list[dict[str, Any]] | None = None
    doc_to_text: str | None = None
    doc_to_choice: str | list[str] | dict[Any, str] | None = None
    doc_to_target: str | int | list[Any] | None = None
    gen_prefix: str | None = None
    fewshot_delimiter: str | None = None
    target_delimiter: str | None = None
    fewshot_indices: list[int] | None = None


class Filter(_Values):
    """Steps through which answers go before they are compared."""

    name: str | None = None
    filter: list[dict[str, Any]] = []


class TaskConfig(_Values):
    """The keys of a task's file that say what a model reads, and how it is scored."""

    task: str
    dataset_path: str
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] | None = None
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    fewshot_split: str | None = None
    output_type: str = "generate_until"
    doc_to_text: str | int
    doc_to_target: str | int | list[Any]
    doc_to_choice: str | list[str] | dict[Any, str] | None = None
    description: str = ""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    fewshot_config: FewshotConfig = FewshotConfig()
    num_fewshot: int | None = Field(None, ge=0, le=1000)
    metric_list: list[dict[str, Any]] | None = None
    generation_kwargs: dict[str, Any] | None = None
    filter_list: list[Filter] | None = None
    gen_prefix: str | None = None
    repeats: int = 1


class TaskFile(NamedTuple):
    """A task's file.

    Args:
        path: Where it stands.
        config: What it says, with what it includes.
    """

    path: Path
    config: TaskConfig


def read_task_file(source: str, folder: Path) -> TaskFile:
    """A task's file, read with what it includes.

    Args:
        source: A file, or the name of a task of the installed package.
        folder: The folder to which the file's path is relative.

    Raises:
        TaskError: There is no such task, the file cannot be read, or it asks for what is not read
            here: Python code, or another kind of task than a choice or a generated text.
    """
    path = _find(source, folder)
    found = dict(_merged(path, []))
    for key, what in _REFUSED.items():
        if found.get(key) not in (None, False):
            raise TaskError(f"{path}: '{key}' asks for {what}, which is not read here")
        found.pop(key, None)
    known = [*TaskConfig.model_fields, *_ASIDE, *_REFUSED, "include"]
    for key in found:
        if key not in known:
            raise TaskError(f"{path}: {UnknownName('key', str(key), known)}")
    if isinstance(found.get("task"), list):
        raise TaskError(f"{path}: 'task' is a list of tasks: name one of them")
    # A key without a value says nothing, as in the harness.
    given = {key: v for key, v in found.items() if key not in _ASIDE and v is not None}
    try:
        return TaskFile(path, TaskConfig.model_validate(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise TaskError(f"{path}: '{key}': {first['msg']}") from error


def _find(source: str, folder: Path) -> Path:
    if source.endswith((".yaml", ".yml")) or "/" in source or (folder / source).is_file():
        return folder / Path(source).expanduser()
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise TaskError(
            f"the lm-eval task '{source}' is no file, and the package lm-eval, which brings tasks "
            'by name, is not installed: run pip install "promptsearch-kit[benchmarks]", or give '
            "the task's .yaml file"
        )
    names: set[str] = set()
    for path in _files(Path(next(iter(spec.submodule_search_locations))) / "tasks"):
        for kind, name in _NAME.findall(read(path, _LARGEST)):
            names.add(name.decode("utf-8", "replace"))
            if name == source.encode() and kind == b"task":
                return path
            if name == source.encode():
                raise TaskError(f"'{source}' is a group of lm-eval's tasks: name one of its tasks")
    close = get_close_matches(source[:100], names, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise TaskError(f"the installed lm-eval has no task {source[:100]!r}.{hint}")


def _files(folder: Path) -> Iterator[Path]:
    with failing(folder, "read"):
        yield from sorted(folder.rglob("*.yaml"))


def _merged(path: Path, seen: list[Path]) -> Mapping[str, Any]:
    """The keys of a file over those of the files that it includes."""
    path = path.resolve()
    if path in seen:
        raise TaskError(f"{path} includes itself: take one of the two lines out")
    if len(seen) == _INCLUDED:
        raise TaskError(f"{path}: a task is put together of at most {_INCLUDED} files")
    seen.append(path)
    text = read_text(path, "the lm-eval task", TaskError, (CHARACTERS, TOO_LONG))
    if function := _FUNCTION.search(text):
        key = function["before"].strip(" \t-").partition(":")[0] or "a value"
        line = text.count("\n", 0, function.start()) + 1
        raise TaskError(
            f"{path}, line {line}: {key} is the Python function {function['name']}, and nothing "
            "that a task's file names is run here. Take a task whose templates are text, or write "
            "its rows to a file and describe them with data, template and label"
        )
    try:
        found, _ = read_yaml(text, str(path))
    except StudyError as error:
        raise TaskError(str(error)) from error
    if not isinstance(found, dict):
        raise TaskError(f"{path}: expected the keys of an lm-eval task (task, doc_to_text, ...)")
    merged: dict[str, Any] = {}
    includes = found.get("include") or []
    for each in includes if isinstance(includes, list) else [includes]:
        merged |= _merged(path.parent / str(each), seen)
    merged.pop("task_list", None)
    return {**merged, **{key: value for key, value in found.items() if key != "include"}}
