"""The report on a terminal."""

from __future__ import annotations

from math import isnan

from rich.console import Console
from rich.table import Table
from rich.text import Text

from promptsearch.printable import Terminal
from promptsearch.records.models import ModelsResults
from promptsearch.records.results import Results
from promptsearch.records.run import WinnerRecord
from promptsearch.report import further
from promptsearch.report.across import across
from promptsearch.report.families import families
from promptsearch.report.notation import (
    NO_EXPORT,
    ONE_SEED,
    in_slots,
    number,
    short,
    signed,
    visible,
)
from promptsearch.report.summary import Row, TaskSummary, summarise
from promptsearch.report.training import findings


def print_report(results: Results, console: Console | None = None) -> None:
    """Print a verdict and a table for each task, then what failed.

    Args:
        results: The results, from `load_results`.
        console: The console to print on; left out: standard output.
    """
    console = console or Terminal()
    tasks = summarise(results)
    for family in families(tasks):
        head = f"\n{visible(family.name)}, mean over {family.tasks} tasks: "
        console.print(Text(head, style="bold") + Text(visible(family.verdict), style="not bold"))
    for task in tasks:
        console.print(
            Text(f"\n{visible(task.name)}: ", style="bold")
            + Text(visible(task.verdict), style="not bold")
        )
        if task.rows:
            console.print(_table(task))
        for line in task.signatures:  # whole, also where it is wider than the terminal
            console.print(Text(visible(line), style="dim"), soft_wrap=True)
        if any(not row.scores.covers_seeds for row in task.rows):
            console.print(Text(ONE_SEED, style="dim"))
        if columns := further.columns(task):
            console.print(_further(task, columns))
        for note in task.info.notes:
            console.print(Text("data ", style="yellow") + Text(visible(note)))
        for done in (run for row in task.rows for run in row.unexported):
            reason = (
                f"{done.label}, seed {done.seed}, its scores stand: "
                f"{done.export.error if done.export else ''}"
            )
            console.print(Text(f"{NO_EXPORT} no export ", style="yellow") + Text(visible(reason)))
        for label, seed, text in findings(task):
            console.print(
                Text("check ", style="yellow") + Text(visible(f"{label}, seed {seed}: {text}"))
            )
    for run in results.failed:
        console.print(
            Text("failed ", style="red")
            + Text(visible(f"{run.task}, {run.label}, seed {run.seed}: {run.error}"))
        )
    if results.unfinished:
        console.print(
            Text(
                f"still to be made: {len(results.unfinished)} (run the study again)", style="yellow"
            )
        )


def print_models(results: ModelsResults, console: Console | None = None) -> None:
    """Print the metric of each strategy on each model, then what is missing.

    Args:
        results: The results, from `load_models`.
        console: The console to print on; left out: standard output.
    """
    console = console or Terminal()
    for task in across(results):
        metric = f"{task.scale.name}{task.scale.arrow}"
        console.print(Text(f"\n{visible(task.name)}: {visible(metric)}", style="bold"))
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("strategy", no_wrap=True, max_width=24, overflow="ellipsis")
        for model in task.models:
            table.add_column(visible(model), justify="right")
        for line in task.lines:
            cells = (_metric(line.rows[m]) if m in line.rows else "" for m in task.models)
            name = visible(line.label) + (" (ref.)" if line.reference else "")
            table.add_row(*map(Text, (name, *cells)))
        console.print(table)
        for model, verdict in task.verdicts.items():
            console.print(Text(f"{visible(model)}: ", style="bold") + Text(visible(verdict)))
    for member in results.missing:
        reason = f"{member.name}: {member.error}"
        console.print(Text("no runs on ", style="red") + Text(visible(reason)))
    if results.unfinished:
        left = f"still to be made: {len(results.unfinished)} (run the study again)"
        console.print(Text(left, style="yellow"))


def _table(task: TaskSummary) -> Table:
    # The cells are Text, never str: a prompt must not be read as markup. The fixed columns fit 100
    # characters and leave the prompt the rest.
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    table.add_column("strategy", no_wrap=True, max_width=18, overflow="ellipsis")
    name = task.info.metric.rpartition(":")[2][:14] + task.scale.arrow
    table.add_column(name, no_wrap=True)
    for name in ("loss", "gap", "tokens", "seconds"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("prompt", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in task.rows:
        style = "" if row.searches else "dim"
        table.add_row(*(Text(cell, style=style) for cell in _cells(row)))
    if task.floor is not None:
        floor = (
            "(majority)",
            number(task.floor),
            "",
            "",
            "",
            "",
            "always the most frequent answer",
        )
        table.add_row(*(Text(cell, style="dim") for cell in floor))
    for bar, score in task.info.floors.items():
        cells = ("(no model)", number(score), "", "", "", "", visible(bar))
        table.add_row(*(Text(cell, style="dim") for cell in cells))
    return table


def _further(task: TaskSummary, columns: list[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("strategy", no_wrap=True, max_width=18, overflow="ellipsis")
    for name in columns:
        table.add_column(visible(name), no_wrap=True, justify="right")
    for row in task.rows:
        label, *cells = further.cells(task, row)
        table.add_row(*(Text(cell) for cell in (visible(label), *cells)))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    return (
        visible(row.label)
        + (NO_EXPORT if row.unexported else "")
        + (" (ref.)" if row.reference else ""),
        _metric(row),
        number(row.loss.mean),
        signed(row.gap),
        short(row.spent),
        short(row.seconds),
        _prompt(row.best.winner),
    )


def _metric(row: Row) -> str:
    half = "" if isnan(row.metric.low) else f" ±{number(row.metric.half)}"
    return f"{number(row.metric.mean)}{half}{'' if row.scores.covers_seeds else '†'}"


def _prompt(winner: WinnerRecord) -> str:
    if winner.nearest:
        return "≈" + " ".join(visible(near.token) for near in winner.nearest)
    return visible(in_slots(winner.text), 200) or "(empty)"
