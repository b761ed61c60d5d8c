"""Commands on studies: what they are, what they will take, their runs and their report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptsearch.cli.console import log_errors_only, say
from promptsearch.cli.options import Out, Quiet, Ray, Set, TrustCode, Workers
from promptsearch.errors import PromptSearchError, StudyError
from promptsearch.plain.limits import check_plain
from promptsearch.plain.names import as_name
from promptsearch.plain.yaml import read_yaml
from promptsearch.printable import Terminal, cut

if TYPE_CHECKING:
    from promptsearch.study.settings.strategy import StrategyConfig
    from promptsearch.study.settings.study import StudyConfig

#: The LM and the budget, in LM tokens, of a search without a study file.
DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_BUDGET = 100_000


def compare(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="The study file: YAML, TOML or JSON.")
    ],
    out: Out = None,
    set_: Set = None,
    workers: Workers = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Make the I-th of N shares of the runs, beside other calls on the same folder; "
            "the same command without it makes what is left, and reports.",
        ),
    ] = None,
    ray: Ray = None,
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed",
            help="Let workers and shards take part that have other code or libraries than the "
            "study was begun with, and record which.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run a study and report it. The same command again goes on where it was stopped."""
    from promptsearch.study.config import load_config

    config = load_config(study, set_ or ())
    place = None
    if shard is not None:
        from promptsearch.study.execution.spread import read_shard

        place = read_shard(shard)
    _run(config, out, quiet, workers or 0, place, mixed, ray)


def plan(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="The study file: YAML, TOML or JSON.")
    ],
    set_: Set = None,
    workers: Workers = None,
    headroom: Annotated[
        bool,
        typer.Option(
            "--headroom",
            help="Look at what searches can gain over the best control, too: about as much work as "
            "a run of each task.",
        ),
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what --headroom finds; as headroom.json in the study's folder, its report "
            "shows it. Of several models, each has it in a folder of its name beside FILE.",
        ),
    ] = None,
) -> None:
    """Say beforehand what a study computes and how long it takes on this machine, without a run."""
    from promptsearch.study.config import load_config

    if json is not None and not headroom:
        raise StudyError("--json writes what --headroom finds: give both")

    config = load_config(study, set_ or ())  # what is wrong is said before torch is imported
    from promptsearch.records.sealed import write_record
    from promptsearch.report.forecast import print_forecast
    from promptsearch.study.forecast import forecast
    from promptsearch.study.members import Member, members, on_each

    found, several = members(config), isinstance(config.model, tuple)

    def work(member: Member) -> None:
        if several:
            say(f"\n{member.name}:")
        told = forecast(member.config, workers=workers or 0, look=headroom)
        print_forecast(told, Terminal())
        if json is not None and told.headroom is not None:
            path = json.parent / member.name / json.name if several else json
            write_record(path, "headroom", asdict(told.headroom))

    def failed(member: Member, error: PromptSearchError) -> None:
        if not several:
            raise error
        say(f"error: {error}", err=True)  # the study, too, goes on with the other models

    planned = on_each(found, work, failed)
    if planned < len(found):
        raise typer.Exit(1 if planned else 2)


def search(
    strategy: Annotated[
        str,
        typer.Argument(
            metavar="STRATEGY", help="A strategy's name, a label of the study, or module:Class."
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A built-in task, with the default model and budget."),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A study file; its other strategies are left out, but those it starts from.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of the strategy."),
    ] = None,
    out: Out = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Run one strategy on one task."""
    if (task is None) == (study is None):
        raise StudyError(
            "say what to search on: either --task NAME (a built-in task) or --study FILE"
        )
    config = (
        _on_task(str(task), strategy, option or (), set_ or ())
        if study is None
        else _of_study(study, strategy, option or (), set_ or ())
    )
    _run(config, out, quiet)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    lengths: Annotated[
        str,
        typer.Option(
            metavar="METRIC,METRIC",
            help="The two metrics that the report draws against prompt length; left out: the "
            "task's own and the first beside it.",
        ),
    ] = "",
    trust_code: TrustCode = False,
) -> None:
    """Write a study's report again, and show its table.

    Nothing that the study's files name is run.
    """
    from promptsearch.report import (
        is_of_models,
        load_models,
        load_results,
        print_models,
        print_report,
        write_models_report,
        write_pages,
    )

    first, _, second = (name.strip() for name in lengths.partition(","))
    if lengths and not (first and second):
        raise StudyError(f"--lengths {lengths[:100]}: expected two metrics, METRIC,METRIC")
    if is_of_models(folder):
        if lengths:
            raise StudyError(
                f"--lengths draws the report of one model: {folder} holds several; name the "
                "folder of one of them"
            )
        print_models(load_models(folder, trust_code=trust_code), Terminal())
        written = write_models_report(folder, trust_code=trust_code)
        say(f"The report lies in {written}.")
        return
    results = load_results(folder, trust_code=trust_code)
    if lengths and not results.study.families:
        raise StudyError(
            f"--lengths {lengths[:100]}: no row of this study ran at several lengths, so nothing "
            "is drawn against them"
        )
    written = write_pages(results, (first, second) if lengths else None)
    print_report(results, Terminal())
    say(f"The report lies in {written}.")


def slim(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to; it holds no study yet.")],
    command: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="What makes the study again; left out: made of the folder's name."
        ),
    ] = "",
) -> None:
    """Write what a reader needs of a study in eight small files, for a repository.

    The report can be made of them again, and runs can be added.
    """
    from promptsearch.report.slim import write_slim_record

    say(f"The report lies in {write_slim_record(folder, out, command=command)}.")


def _on_task(
    task: str, strategy: str, options: Sequence[str], overrides: Sequence[str]
) -> StudyConfig:
    """The study of one strategy on a built-in task."""
    from promptsearch.study.config import parse_config

    keys = {
        "name": _name(task, strategy),
        "model": DEFAULT_MODEL,
        "task": task,
        "budget": DEFAULT_BUDGET,
        "seeds": 1,
        "strategies": [{strategy: _options(options)}],
    }
    return parse_config(keys, overrides, folder=Path(), source="the command line")


def _of_study(
    path: Path, strategy: str, options: Sequence[str], overrides: Sequence[str]
) -> StudyConfig:
    """A study file's study with the rows of one strategy and those that they start from."""
    from promptsearch.study.config import load_config, parse_config

    study = load_config(path, overrides)
    rows = [row for row in study.strategies if strategy in (row.label, row.name)]
    asked = [row.model_dump() for row in rows] or [{strategy: {}}]
    for row in asked:
        for given in row.values():
            given.update(_options(options))
    keys = {
        **study.model_dump(),
        "execution": study.execution.model_dump(),
        "name": _name(study.name, strategy),
        "strategies": asked,
    }
    alone = parse_config(keys, folder=study.folder, source=str(path))
    others = _sources(alone.strategies, study.strategies)
    keys["strategies"] = [*asked, *(row.model_dump() for row in others)]
    return parse_config(keys, folder=study.folder, source=str(path))


def _name(before: str, strategy: str) -> str:
    """The name of the study of one strategy."""
    return as_name(f"{before}-{strategy.rpartition(':')[2]}", "study")


def _sources(
    rows: Sequence[StrategyConfig], study: Sequence[StrategyConfig]
) -> list[StrategyConfig]:
    """The other rows of a study from which the given rows start, directly or through others."""
    found = list(rows)
    for row in found:  # the list grows as its rows name others
        found += [
            other
            for other in study
            if row.start and other.label == row.start.run
            if other.label not in [each.label for each in found]
        ]
    return found[len(rows) :]


def _options(assignments: Sequence[str]) -> dict[str, Any]:
    """The values of `KEY=VALUE`s, each read as YAML.

    Raises:
        StudyError: One of them is not of this form.
    """
    options = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        # Without the value, which may be a secret in a wrong place.
        told = f"--option {cut(key, 100)}"
        if not (key and equals):
            raise StudyError(f"{told}: expected KEY=VALUE")
        options[key], _ = read_yaml(value, told)
        check_plain(options[key], lambda path: told)  # noqa: B023 - called here
    return options


def _run(
    config: StudyConfig,
    out: Path | None,
    quiet: bool,
    workers: int = 0,
    shard: tuple[int, int] | None = None,
    mixed: bool = False,
    ray: str | None = None,
) -> None:
    """Run a study and print its report; runs that failed make the exit code 1, or 2 if all did."""
    from promptsearch import comparison as engine
    from promptsearch.records.models import ModelsResults
    from promptsearch.report import print_models, print_report
    from promptsearch.report.progress import Display

    if quiet:
        log_errors_only()
    out = out or Path("results") / config.name
    with Display(Terminal(stderr=True, quiet=quiet)) as display:
        how: dict[str, Any] = {"workers": workers, "shard": shard, "mixed": mixed, "ray": ray}
        results = engine.compare(config, out=out, progress=display, **how)
    if not quiet and shard is not None:
        place, number = shard
        say(f"Shard {place} of {number} is done; the same command without --shard reports.")
    elif not quiet:
        if isinstance(results, ModelsResults):
            print_models(results, Terminal())
        else:
            print_report(results, Terminal())
        say(f"The report lies in {out / 'report.html'}.")
    for run in results.failing:
        say(f"error: {run.task}/{run.label}/seed{run.seed} failed: {run.error}", err=True)
    missing = results.missing if isinstance(results, ModelsResults) else ()
    for member in missing:
        say(f"error: no runs on {member.name}: {member.error}", err=True)
    if results.failing or missing:
        raise typer.Exit(1 if results.runs else 2)
