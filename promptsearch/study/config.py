"""Reading a study file, and one clear message for whatever is wrong with it.

A file becomes plain values together with the line of every key, is overridden by `--set`, and is
checked against the types of `promptsearch.study.settings`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from promptsearch.errors import StudyError
from promptsearch.plain.expected import expected
from promptsearch.plain.json import read_json
from promptsearch.plain.limits import CHARACTERS, DEPTH, TOO_DEEP, TOO_LONG, KeyPath, check_plain
from promptsearch.plain.names import as_name
from promptsearch.plain.text import read_text
from promptsearch.plain.toml import read_toml
from promptsearch.plain.yaml import read_yaml
from promptsearch.printable import brief, cut
from promptsearch.study.settings.lines import Lines
from promptsearch.study.settings.study import StudyConfig


def load_config(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study file.

    Args:
        path: A YAML, TOML or JSON file.
        overrides: `key=value` or `a.b=value` each, the value read as YAML; parts of a list are
            counted from 0.

    Raises:
        StudyError: Whatever is wrong with it: file, line, key, what was found and what was
            expected.
    """
    path = Path(path)
    if (kind := path.suffix.lower()) not in _READERS:
        raise StudyError(
            f"the study file {path} is of an unknown kind: expected .yaml, .yml, .toml or .json"
        )
    text = read_text(path, "the study file", StudyError, (CHARACTERS, TOO_LONG))
    data, places = _READERS[kind](text, str(path))
    if not isinstance(data, dict):
        raise StudyError(
            f"{path}: expected a study's keys (model, task, budget, strategies, ...), found "
            f"{_found(data)}"
        )
    data.setdefault("name", as_name(path.stem, "study"))
    return parse_config(data, overrides, folder=path.parent, source=str(path), places=places)


def parse_config(
    data: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    folder: Path | None = None,
    source: str = "the study",
    places: Mapping[KeyPath, str] | None = None,
) -> StudyConfig:
    """Check a study given as a mapping with the keys of a study file.

    Args:
        data: The keys and values.
        overrides: As for `load_config`.
        folder: What relative paths are relative to; left out: the current folder.
        source: What to call it in messages.
        places: Path of keys -> where the key stands, for messages.

    Raises:
        StudyError: Whatever is wrong with it.
    """
    lines = Lines(source, places)

    def told(path: KeyPath) -> str:
        name = ".".join(map(str, path))
        return lines.at(path) + (f": {name}" if name else "")

    check_plain(data, told)
    if overrides:
        data = copy.deepcopy(dict(data))
        for override in overrides:
            lines.note(*_override(data, override))
        check_plain(data, told)
    try:
        return StudyConfig.model_validate(
            dict(data), context={"folder": folder or Path(), "lines": lines}
        )
    except ValidationError as error:
        raise StudyError(_complaint(error, data, lines)) from error


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a study file, for editors that complete and check as one types."""
    schema = StudyConfig.model_json_schema(by_alias=False)
    properties = schema["properties"]
    several = properties["tasks"]
    properties["task"] = {**several["items"], "description": several["description"]}
    properties["models"] = properties["model"]
    schema["required"] = [key for key in schema["required"] if key not in ("tasks", "model")]
    schema["allOf"] = [
        {"oneOf": [{"required": [one]}, {"required": [f"{one}s"]}]} for one in ("task", "model")
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A study of promptsearch",
    }


def _json(text: str, source: str) -> tuple[Any, dict[KeyPath, str]]:
    """The plain values of a study in JSON, and the line of every key where YAML reads the same."""
    data = read_json(text, source)
    with suppress(StudyError):
        same, places = read_yaml(text, source)
        if same == data:
            return data, places
    return data, {}


_READERS = {".yaml": read_yaml, ".yml": read_yaml, ".toml": read_toml, ".json": _json}


def _override(data: Any, assignment: str) -> tuple[KeyPath, str]:
    """Carry out `a.b=1` on the data.

    Returns:
        The path that it names, and what to call it in messages.
    """
    dotted, equals, text = assignment.partition("=")
    # Without the value, which may be a secret in a wrong place.
    told = f"--set {cut(dotted, 100)}"
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise StudyError(f"{told}: expected KEY=VALUE or KEY.KEY=VALUE")
    if len(keys) > DEPTH:
        raise StudyError(f"{told}: {TOO_DEEP}")
    value, _ = read_yaml(text, told)
    here = data
    path: KeyPath = ()
    for i, key in enumerate(keys):
        step: Any = key
        if isinstance(here, list):
            if not (key.isdecimal() and len(key) < 9 and int(key) < len(here)):
                raise StudyError(
                    f"{told}: '{'.'.join(keys[:i])}' is a list of {len(here)}; expected a place in "
                    f"it, found '{key}'"
                )
            step = int(key)
        elif isinstance(here, dict):
            step = next((known for known in here if str(known) == key), key)  # 0, of a label
        else:
            raise StudyError(
                f"{told}: '{'.'.join(keys[:i])}' is {_found(here)}, which has no key '{key}'"
            )
        path = (*path, step)
        if i == len(keys) - 1:
            here[step] = value
        elif isinstance(here, dict) and here.get(step) is None:
            here[step] = {}
        here = here[step]
    return path, told


def _complaint(error: ValidationError, data: Mapping[str, Any], lines: Lines) -> str:
    """The first error as one message: where, what was found, what was expected."""
    first = error.errors()[0]
    context = first.get("ctx", {})
    path = _as_written(first["loc"], data)
    where = lines.at((*path, context["key"]) if "key" in context else path)
    name = ".".join(map(str, path))
    if "text" in context:  # a message of our own, whole
        return f"{where}, in {name}: {context['text']}" if name else f"{where}: {context['text']}"
    wanted = str(context["error"]) if "error" in context else expected(first)
    return f"{where}: {name} is {_found(first['input'])}; expected {wanted}."


def _as_written(loc: Sequence[int | str], data: Any) -> KeyPath:
    """The path of keys in the user's data that a path of pydantic's stands for.

    Pydantic's path also names fields and the members of unions.
    """
    path: list[int | str] = []
    for part in loc:
        if isinstance(data, Mapping) and part not in data:
            if part == "tasks" and "task" in data:
                part = "task"
            elif (
                len(data) == 1
                and isinstance(options := next(iter(data.values())), Mapping)
                and part in options
            ):
                path.append(next(iter(data)))  # {STRATEGY: {OPTION: VALUE}}
                data = options
        if (
            part in data
            if isinstance(data, Mapping)
            else isinstance(data, (list, tuple)) and isinstance(part, int)
        ):
            path.append(part)
            data = data[part]
    return tuple(path)


def _found(value: Any) -> str:
    """A value as a message shows it."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        keys = f"the key{'s' * (len(value) != 1)} {', '.join(map(str, value))}"
        return (
            f"a mapping with {keys if len(keys) <= 200 else f'{len(value)} keys'}"
            if value
            else "an empty mapping"
        )
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    return brief(value)
