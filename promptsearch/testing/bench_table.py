"""Strategies against random where the optimum is known, as a table for terminal and Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from promptsearch.report.notation import number, percent, visible
from promptsearch.testing.bench import RANDOM

#: Column -> what it shows, in one line.
COLUMNS = {
    "strategy": "* was made for this objective, by its own description",
    "regret": "median over the seeds of what is left of the way from the median prompt to the best "
    "one: 0 % is the optimum; in brackets the quartiles",
    "beats random": "seeds with less regret than random search with the same seed and budget",
    "to 5 %": "median evaluations until 5 % of the way are left; – where more than half of the "
    "searches never got there",
    "to 1 %": "the same for 1 %",
}


def print_bench(found: pd.DataFrame, claimed: Callable[[str, str], bool], console: Console) -> None:
    """Print a table for each ground and budget.

    Args:
        found: From `promptsearch.testing.bench.summary`.
        claimed: Whether a label claims to be made for a ground.
        console: The terminal.
    """
    for title, part in _parts(found):
        console.print(Text(f"\n{title}", style="bold"))
        table = Table(*COLUMNS, box=None, padding=(0, 2, 0, 0))
        for line in part.to_dict("records"):
            table.add_row(
                *map(Text, _cells(line, claimed)), style="dim" if line["strategy"] == RANDOM else ""
            )
        console.print(table)


def bench_to_markdown(
    found: pd.DataFrame, claimed: Callable[[str, str], bool], arguments: Sequence[str]
) -> str:
    """The same as Markdown, with the command that makes it again and what the columns mean.

    Args:
        found: From `promptsearch.testing.bench.summary`.
        claimed: Whether a label claims to be made for a ground.
        arguments: The arguments of the command line that made it.
    """
    command = shlex.join(["promptsearch", "bench-strategies", *arguments])
    lines = ["# Strategies against random search", "", "```sh", command, "```", ""]
    for title, part in _parts(found):
        lines += [
            f"## {title}",
            "",
            f"| {' | '.join(COLUMNS)} |",
            "|---|" + "---:|" * (len(COLUMNS) - 1),
        ]
        lines += [f"| {' | '.join(_cells(line, claimed))} |" for line in part.to_dict("records")]
        lines.append("")
    lines += [f"- **{name}**: {text}" for name, text in COLUMNS.items()]
    return "\n".join(lines) + "\n"


def _parts(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Title and lines of each ground and budget, least regret first."""
    parts = []
    for (ground, count), part in found.groupby(["ground", "evaluations"], sort=False):
        title = f"{visible(str(ground))}, {count} evaluations, {part.seeds.max()} seeds"
        parts.append((title, part.sort_values(["regret", "to"], na_position="last")))
    return parts


def _cells(line: Mapping[Hashable, Any], claimed: Callable[[str, str], bool]) -> list[str]:
    label = str(line["strategy"])
    regret, low, high, near5, near1 = (
        float(line[name]) for name in ("regret", "from", "to", "near5", "near1")
    )
    failed = f" {line['failed']} failed" if line["failed"] else ""
    return [
        visible(label) + (" *" if claimed(label, str(line["ground"])) else "") + failed,
        f"{percent(regret)} [{percent(low)}, {percent(high)}]" if regret == regret else "–",
        "" if label == RANDOM else f"{line['lower']} of {line['seeds']}",
        *(number(near, 0) if near < float("inf") else "–" for near in (near5, near1)),
    ]
