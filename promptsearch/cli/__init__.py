"""The command line.

The exit codes are 0 where all is done, 1 where some runs failed, 2 for wrong input, and 128 + the
number of the signal that stopped the command (130 for Ctrl-C).

Touch it to add or change a command: a function in one of the files here, and its place in the list
below. What is slow to import (torch, pydantic) is imported inside the commands that need it, so
that `--help` answers at once.
"""

from __future__ import annotations

import typer

from promptsearch.cli.bench import bench_strategies
from promptsearch.cli.drafts import init
from promptsearch.cli.explaining import explain
from promptsearch.cli.group import CommandGroup, start
from promptsearch.cli.listings import schema, strategies, tasks
from promptsearch.cli.prompts import apply, export, verify
from promptsearch.cli.studies import compare, plan, report, search, slim

app = typer.Typer(
    cls=CommandGroup,
    callback=start,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Find the best prompt for a task and a frozen language model: "
        "hard and soft prompts on one objective and one budget."
    ),
)
#: The commands, in the order in which `--help` lists them.
_COMMANDS = (
    init,
    compare,
    plan,
    search,
    report,
    explain,
    slim,
    export,
    verify,
    strategies,
    bench_strategies,
    tasks,
    apply,
    schema,
)
for _command in _COMMANDS:
    app.command()(_command)
