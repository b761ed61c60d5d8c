"""The command that runs strategies where the optimum is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from promptsearch.cli.console import say
from promptsearch.cli.options import Quiet
from promptsearch.errors import StudyError, UnknownName
from promptsearch.files import write_aside
from promptsearch.printable import Terminal


def bench_strategies(
    strategy: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STRATEGY]...",
            help=(
                "Names, or as in a study file 'genetic: {label: near, neighbours: 5}'; "
                "left out: all that search."
            ),
        ),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND", help="A planted objective; may be repeated; left out: all of them."
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help=("A finished run of exhaustive, or the table.safetensors that --out kept of one."),
        ),
    ] = None,
    evaluations: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1_000_000,
            help="Budget in evaluations; may be repeated; left out: 300.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Searches of each strategy.")] = 20,
    pool: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Tokens in the pool of a planted objective; left out: 100.",
            show_default=False,
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000, help="Tokens in its prompts; left out: 4.", show_default=False
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes at once.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to keep searches, tables and what was searched."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run strategies against random search where the optimum is known.

    That is so on planted objectives, and on a table of real scores.
    """
    from promptsearch.search.plugins import find_strategy
    from promptsearch.testing import bench
    from promptsearch.testing.bench_table import bench_to_markdown, print_bench
    from promptsearch.testing.ground import KINDS, Ground, table_ground

    planted = {"--on": on, "--pool": pool, "--length": length}
    if table is not None and (given := [name for name, value in planted.items() if value]):
        raise StudyError(
            f"say where to search: either --table PATH, or {' and '.join(given)} of a planted "
            "objective, not both"
        )
    pool, length = pool or 100, length or 4
    for kind in on or ():
        if kind not in KINDS:
            raise UnknownName("planted objective", kind, KINDS)
    counts = evaluations or [300]
    rows = bench.with_random(
        [bench.row(each) for each in strategy or bench.searching(table is not None)]
    )
    grounds = (
        [Ground(kind, pool, length) for kind in on or KINDS]
        if table is None
        else [table_ground(table, out)]
    )
    with Progress(console=Terminal(stderr=True, quiet=quiet), transient=True) as bars:
        bar = bars.add_task("searches", total=len(rows) * len(grounds) * len(counts) * seeds)
        searches = bench.bench(
            rows, grounds, seeds, counts, jobs, lambda outcome: bars.advance(bar)
        )
    lines = bench.summary(searches)
    made_for = {row.label: find_strategy(row.name) for row in rows}

    def claimed(label: str, ground: str) -> bool:
        return bench.claims(made_for[label], ground)

    failed = searches[searches.error != ""]
    for error in sorted(set(failed.label + ": " + failed.error)):
        say(f"error: {error}", err=True)
    if not quiet:
        print_bench(lines, claimed, Terminal())
    if out is not None:
        arguments = [
            *(strategy or ()),
            *(f"--on={kind}" for kind in on or ()),
            *(f"--evaluations={count}" for count in counts),
            *([f"--table={table}"] if table else [f"--pool={pool}", f"--length={length}"]),
            f"--seeds={seeds}",
            f"--out={out}",
        ]
        write_aside(out / "searches.parquet", searches.to_parquet(index=False))
        write_aside(out / "README.md", bench_to_markdown(lines, claimed, arguments))
        if not quiet:
            say(f"The tables lie in {out / 'README.md'}.")
    if len(failed):
        raise typer.Exit(1 if len(failed) < len(searches) else 2)
