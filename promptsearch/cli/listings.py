"""Commands that list what there is: strategies, built-in tasks, the keys of a study file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from promptsearch.cli.console import say
from promptsearch.errors import PromptSearchError
from promptsearch.printable import Terminal

if TYPE_CHECKING:
    from promptsearch.search.strategy import Strategy


def strategies(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One strategy, with all its options.")
    ] = None,
) -> None:
    """List the installed strategies, or explain one with its options."""
    console = Terminal(markup=False, highlight=False)
    if name is None:
        console.print(_all_strategies())
        return
    from promptsearch.search.plugins import find_strategy

    found = find_strategy(name)
    text = (found.__doc__ or "").strip().partition("Args:")[0].strip()
    console.print(f"{name}: {text}\n", soft_wrap=True)
    console.print(_options(name, found))


def _all_strategies() -> Table:
    """A row for each installed strategy; one that is broken says so and hides no other."""
    from promptsearch.search.listing import known_strategies, summary

    table = Table("strategy", "needs", "proposes", "what it does", box=None)
    for name, points in sorted(known_strategies().items()):
        told = summary(points[0]) if len(points) == 1 else None
        if told is None:
            table.add_row(name, *_imported(name))
        else:
            table.add_row(name, told.access, ", ".join(told.proposes), told.text)
    return table


def _imported(name: str) -> tuple[str, str, str]:
    """The access, kinds of prompts and summary of a strategy that only its import tells."""
    from promptsearch.search.plugins import find_strategy

    try:
        found = find_strategy(name)
    except PromptSearchError as error:
        return "", "", f"broken: {error}"
    proposes = ", ".join(sorted(kind.__name__ for kind in found.proposes))
    return str(found.access), proposes, (found.__doc__ or "").strip().partition("\n")[0]


def _options(name: str, strategy: type[Strategy]) -> Table:
    """A row for each option: the strategy's own, then those that every row of a study has."""
    from promptsearch.search.options import options_of
    from promptsearch.study.settings.strategy import ROW_KEYS

    table = Table("option", "type", "default", "meaning", box=None)
    for option in options_of(strategy):
        default = "(required)" if option.required else repr(option.default)
        table.add_row(option.name, option.type, default, option.text)
    for key, (kind, default, text) in ROW_KEYS.items():
        if key != "start":
            shown = repr(name.rpartition(":")[2]) if key == "label" else default
            table.add_row(key, kind, shown, text)
        elif strategy.starts_from:
            kinds = " or ".join(sorted(kind.__name__ for kind in strategy.starts_from))
            table.add_row(key, kind, default, f"{text} It must be a {kinds}.")
    return table


def tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One task, as its file says it.")
    ] = None,
) -> None:
    """List the built-in tasks, or show one, with what it takes no language model to reach."""
    from promptsearch.tasks.task import Task, builtin_task, builtin_tasks

    if name is not None:
        say(builtin_task(name).read_text("utf-8").rstrip())
        from promptsearch.tasks.floors import floors, majority

        task = Task.load(name)
        say("# Without a language model, on the test split:")
        say(f"#   {majority(task):.3f}  share of the most frequent answer")
        for bar, score in floors(task).items():
            say(f"#   {score:.3f}  {task.metric} of {bar}")
        return
    for each, description in builtin_tasks().items():
        say(f"{each}  {description}")


def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from promptsearch.study.config import config_schema

    say(json.dumps(config_schema(), indent=1))
