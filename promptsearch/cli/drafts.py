"""The command that drafts a study file from data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from promptsearch.cli.console import say
from promptsearch.errors import StudyError


def init(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="A file of rows, of any kind that tasks are read from."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The study file; left out: the data's name, as .yaml."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="FIELD", help="The field of the right answer."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="FIELD", help="A field of the input; may be repeated."),
    ] = None,
) -> None:
    """Look at data, and write a study file that runs; say what was taken for what."""
    from promptsearch.files import exists, write_aside
    from promptsearch.plain.names import as_name
    from promptsearch.study.drafting.draft import draft

    path = out or Path(f"{as_name(data.name.partition('.')[0], 'study')}.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise StudyError(f"--out {path}: expected a name that ends in .yaml")
    if exists(path):
        raise StudyError(f"{path} exists: name another file with --out, or remove it")
    found = draft(data, path, label=label, inputs=text or ())
    write_aside(path, found.text)
    say(f"{data}:")
    for line in found.said:
        say(f"  {line}")
    if found.checks:
        say("Please check:")
    for line in found.checks:
        say(f"  {line}")
    say(f"Written: {path}")
    quoted = shlex.quote(str(path))
    say(f"Next: promptsearch plan {quoted}, then promptsearch compare {quoted}")
