"""A study file made of nothing but data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptsearch.errors import TaskError
from promptsearch.plain.names import as_name
from promptsearch.plain.yaml import read_yaml
from promptsearch.study.config import parse_config
from promptsearch.study.drafting.columns import columns_of
from promptsearch.study.drafting.protocol import Protocol, choose_protocol
from promptsearch.study.drafting.roles import Roles, find_roles
from promptsearch.study.drafting.sizes import FEWEST, Sizes, choose_sizes
from promptsearch.study.drafting.writing import written
from promptsearch.study.settings.task import TaskConfig
from promptsearch.tasks.data import read_file
from promptsearch.tasks.task import Task


@dataclass(frozen=True)
class Draft:
    """A study file, and what led to it.

    Args:
        text: The file's text.
        said: What was taken for what, and why: a line each.
        checks: What a reader should look at: a line each.
    """

    text: str
    said: tuple[str, ...]
    checks: tuple[str, ...]


def draft(data: Path, out: Path, *, label: str | None = None, inputs: Sequence[str] = ()) -> Draft:
    """Draft a study from a file of data, the same one each time.

    The study's task is loaded, so that what is wrong with the data is said here.

    Args:
        data: The file, of any kind that tasks are read from.
        out: Where the study file is to lie, which paths in it are relative to; nothing is written.
        label: The field of the right answer; None: it is to be found.
        inputs: The fields of the input; empty: they are to be found.

    Raises:
        PromptSearchError: The file cannot be read, or no study can be made of it; the message says
            what would help.
    """
    rows = list(read_file(data, str(data), "the data file"))
    if not rows:
        raise TaskError(f"the data file {data} has no row: expected {FEWEST} at least")
    roles = find_roles(columns_of(rows), label, inputs)
    protocol = choose_protocol(roles)
    sizes = choose_sizes(roles, protocol)
    name = as_name(data.name.partition(".")[0], "study")
    text = written(name, _path(data, out), roles, protocol, sizes)
    task = _loaded(text, out, data)
    said = (*roles.said, *_said(roles, protocol, sizes))
    checks = (*roles.checks, *(f"the data: {note}" for note in task.notes))
    return Draft(text, said, checks)


def _path(data: Path, out: Path) -> str:
    """The path of the data as the study file names it: relative where it was given so."""
    if data.is_absolute():
        return str(data)
    # From a linked folder the way up begins where the folder lies, not where the link stands.
    return Path(os.path.relpath(data, out.parent.resolve())).as_posix()


def _loaded(text: str, out: Path, data: Path) -> Task:
    """The task of a study file's text, whose keys and data are checked by it."""
    keys, places = read_yaml(text, str(out))
    config = parse_config(keys, folder=out.parent, source=str(out), places=places)
    (task,) = config.tasks
    assert isinstance(task, TaskConfig)
    # The folder that the path starts from may still have to be made.
    given = {**task.model_dump(exclude_none=True), "data": {"path": str(data.absolute())}}
    return Task.load({**given, "name": config.name}, metric=config.metric)


def _said(roles: Roles, protocol: Protocol, sizes: Sizes) -> list[str]:
    names = {
        "choices": "one of a few answers",
        "options": "one of each row's own options",
        "short": "a short text",
        "long": "a longer text",
    }
    beside = f", and {', '.join(protocol.metrics)} beside it" if protocol.metrics else ""
    generated = f"; answers of at most {protocol.tokens} tokens" * bool(protocol.tokens)
    parts = ", ".join(f"{size:,} to {name}" for name, size in sizes.splits.items())
    group = [] if sizes.group is None else [f"group: '{sizes.group.name}', {roles.grouped}"]
    return [
        *group,
        f"answer: {names[protocol.kind]}, since {protocol.why}",
        f"metric: {protocol.metric}{beside}{generated}",
        f"splits: {parts}",
        f"budget: {sizes.budget:,} LM tokens a run, at about {sizes.row:,} a row",
    ]
