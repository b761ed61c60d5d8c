"""The command line.

The exit codes are 0 where all is done, 1 where some runs failed, 2 for wrong input, and 128 + the
number of the signal that stopped the command (130 for Ctrl-C). Modules that need torch are imported
inside the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from rich.progress import Progress
from rich.table import Table
from typer.core import TyperGroup

from promptsearch import signals
from promptsearch.errors import FieldError, PromptSearchError, StudyError, UnknownName
from promptsearch.files import write_aside
from promptsearch.plain.limits import check_plain
from promptsearch.plain.yaml import read_yaml
from promptsearch.printable import Terminal, printable, printable_json
from promptsearch.study.config import (
    StrategyConfig,
    StudyConfig,
    config_schema,
    load_config,
    parse_config,
)
from promptsearch.tasks.fields import text_of

#: The LM and the budget, in LM tokens, of a search without a study file.
DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_BUDGET = 100_000


class _Group(TyperGroup):
    """The commands; a signal or an error of the input becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # a reader that went away is met here, not when Python closes
            return done
        except BaseException as error:
            if (number := signals.asked(error)) is not None:
                signals.say(signals.MESSAGE)
                raise typer.Exit(signals.CODE + number) from error
            if isinstance(error, BrokenPipeError):
                # Python flushes once more at its end, which must not fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(signals.CODE + signals.PIPE) from error
            if isinstance(error, PromptSearchError):
                _say(f"error: {error}", err=True)
                raise typer.Exit(2) from error
            if isinstance(error, OSError):  # what no reader or writer of ours has met
                _say(f"error: {error}. What was written before is safe.", err=True)
                raise typer.Exit(2) from error
            # typer prints its own messages as they are.
            if isinstance(message := getattr(error, "message", None), str):
                error.message = printable(message)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Find the best prompt for a task and a frozen language model: "
        "hard and soft prompts on one objective and one budget."
    ),
)

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the study, such as budget=50000 or task.splits.test=200.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The study's folder; left out: results/NAME."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="The language model; left out: the one that the prompt is for.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="NAME",
        help="Of a model behind an endpoint: the environment variable that holds the key.",
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Import the modules that a study names as its metrics: runs its author's code.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        _say(installed("promptsearch-kit"))
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    # Bars and warnings of other libraries would tear ours. The variables are set before those are
    # imported, so that all of them obey.
    quiet = {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in {
        **quiet,
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    handler = RichHandler(console=Terminal(stderr=True), show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("promptsearch").setLevel(logging.INFO)


@app.command()
def compare(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="The study file, YAML or TOML.")
    ],
    out: Out = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Run a study and report it. The same command again goes on where it was stopped."""
    config = load_config(study, set_ or ())
    _run(config, out, quiet)


@app.command()
def plan(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="The study file, YAML or TOML.")
    ],
    set_: Set = None,
) -> None:
    """Say beforehand what a study computes and how long it takes on this machine, without a run."""
    config = load_config(study, set_ or ())
    from promptsearch.report.forecast import print_forecast
    from promptsearch.study.forecast import forecast

    print_forecast(forecast(config), Terminal())


@app.command()
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
    if study is not None:
        config = load_config(study, set_ or ())
        base, folder, source = config.model_dump(), config.folder, str(study)
        rows = [row for row in config.strategies if strategy in (row.label, row.name)]
        base["strategies"] = [row.model_dump() for row in rows] or [{strategy: {}}]
        sources = [row.model_dump() for row in _sources(rows, config.strategies)]
        base["name"] = f"{config.name}-{strategy.rpartition(':')[2]}"
    else:
        base = {
            "name": f"{task}-{strategy.rpartition(':')[2]}",
            "model": DEFAULT_MODEL,
            "task": task,
            "budget": DEFAULT_BUDGET,
        }
        base, folder, source = {**base, "strategies": [{strategy: {}}]}, Path(), "the command line"
        sources = []
    for row in base["strategies"]:
        for given in row.values():
            given.update(_options(option or []))
    base["strategies"] += sources
    _run(parse_config(base, () if study else set_ or (), folder=folder, source=source), out, quiet)


def _sources(
    rows: Sequence[StrategyConfig], study: Sequence[StrategyConfig]
) -> list[StrategyConfig]:
    """The other rows of a study from which the given rows start, directly or through others."""
    found = list(rows)
    for row in found:  # the list grows as its rows name others
        found += [
            other
            for other in study
            if row.start and other.label == row.start.run and other not in found
        ]
    return found[len(rows) :]


def _options(assignments: list[str]) -> dict[str, Any]:
    options = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not (key and equals):
            raise StudyError(f"--option {assignment[:100]}: expected KEY=VALUE")
        told = f"--option {assignment if len(assignment) <= 100 else f'{assignment[:97]}...'}"
        options[key], _ = read_yaml(value, told)
        check_plain(options[key], lambda path: told)  # noqa: B023 - called here
    return options


def _run(config: StudyConfig, out: Path | None, quiet: bool) -> None:
    from promptsearch import comparison as engine
    from promptsearch.report import print_report
    from promptsearch.report.progress import Display

    if quiet:
        logging.getLogger("promptsearch").setLevel(logging.ERROR)
    out = out or Path("results") / config.name
    with Display(Terminal(stderr=True, quiet=quiet)) as display:
        results = engine.compare(config, out=out, progress=display)
    if not quiet:
        print_report(results, Terminal())
        _say(f"The report lies in {out / 'report.html'}.")
    for run in results.failed:
        _say(f"error: {run.task}/{run.label}/seed{run.seed} failed: {run.error}", err=True)
    if results.failed:
        raise typer.Exit(1 if results.runs else 2)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    trust_code: TrustCode = False,
) -> None:
    """Write a study's report again, and show its table.

    Nothing that the study's files name is run.
    """
    from promptsearch.report import load_results, print_report, write_report

    results = load_results(folder, trust_code=trust_code)
    written = write_report(folder, trust_code=trust_code)
    print_report(results, Terminal())
    _say(f"The report lies in {written}.")


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run's folder: STUDY/TASK/STRATEGY/seed0.")
    ],
    to: Annotated[
        str,
        typer.Option(metavar="json|kv|peft|text|vllm", help="The format; json holds every prompt."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to.")],
    key: Key = None,
) -> None:
    """Write a run's winner in another format, ready for the Hub; check that it scores the same.

    The check loads the export again.
    """
    from promptsearch.export import export_run

    _say(str(export_run(run, to, out, key=key)))


@app.command()
def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="EXPORT_DIR", help="What export wrote, in any format, or a run's folder."
        ),
    ],
    model: Model = None,
    key: Key = None,
) -> None:
    """Load an export again, through its own library, and compare it with its certificate.

    The exit code is 1 where it differs.
    """
    from promptsearch.export import verify as look_again
    from promptsearch.models import LanguageModel

    found = look_again(folder, LanguageModel.load(model) if model else None, key=key)
    verdict = "the same" if found.same else "NOT the same"
    _say(
        f"{verdict}: {found.to}, {found.probe} inputs, "
        f"largest difference {found.distance:.2g} nats per scored token "
        f"(allowed: {found.tolerance:.2g})"
    )
    if found.signature:
        _say(f"measured as {found.signature}")
    if not found.same:
        raise typer.Exit(1)


@app.command()
def strategies(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One strategy, with all its options.")
    ] = None,
) -> None:
    """List the installed strategies, or explain one with its options."""
    from promptsearch.search.listing import known_strategies, summary

    console = Terminal(markup=False, highlight=False)
    if name is None:
        table = Table("strategy", "needs", "proposes", "what it does", box=None)
        for each, points in sorted(known_strategies().items()):
            told = summary(points[0]) if len(points) == 1 else None
            table.add_row(
                each,
                *(
                    _imported(each)
                    if told is None
                    else (told.access, ", ".join(told.proposes), told.text)
                ),
            )
        console.print(table)
        return
    from promptsearch.search.options import options_of
    from promptsearch.search.plugins import find_strategy

    found = find_strategy(name)
    console.print(
        f"{name}: {(found.__doc__ or '').strip().partition('Args:')[0].strip()}\n", soft_wrap=True
    )
    table = Table("option", "type", "default", "meaning", box=None)
    for option in options_of(found):
        table.add_row(
            option.name,
            option.type,
            "(required)" if option.required else repr(option.default),
            option.text,
        )
    table.add_row(
        "label",
        "str",
        repr(name.rpartition(":")[2]),
        "Names its runs in the study's folder and report.",
    )
    table.add_row("length", "int", "the study's", "Prompt tokens.")
    if found.starts_from:
        kinds = " or ".join(sorted(kind.__name__ for kind in found.starts_from))
        table.add_row(
            "start",
            "{run: LABEL}",
            "none",
            f"Begin at the winner of another row, a {kinds}; its tokens come on the bill.",
        )
    table.add_row(
        "budget",
        "int",
        "the study's",
        "LM tokens per run; a row with its own is not ranked among the others.",
    )
    console.print(table)


def _imported(name: str) -> tuple[str, str, str]:
    """The access, kinds of prompts and summary of a strategy that only its import tells."""
    from promptsearch.search.plugins import find_strategy

    try:
        found = find_strategy(name)
    except PromptSearchError as error:  # one broken plug-in must not hide the others
        return "", "", f"broken: {error}"
    proposes = ", ".join(sorted(kind.__name__ for kind in found.proposes))
    return str(found.access), proposes, (found.__doc__ or "").strip().partition("\n")[0]


@app.command("bench-strategies")
def bench_strategies(
    strategy: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STRATEGY]...",
            help=(
                "Names, or as in a study file 'optuna: {label: tpe, sampler: tpe}'; "
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
        int, typer.Option(min=1, max=100_000, help="Tokens in the pool of a planted objective.")
    ] = 100,
    length: Annotated[int, typer.Option(min=1, max=1_000, help="Tokens in its prompts.")] = 4,
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

    if table is not None and on:
        raise StudyError("say where to search: either --table PATH or --on KIND, not both")
    for kind in on or ():
        if kind not in bench.KINDS:
            raise UnknownName("planted objective", kind, bench.KINDS)
    counts = evaluations or [300]
    rows = bench.with_random(
        [bench.row(each) for each in strategy or bench.searching(table is not None)]
    )
    grounds = (
        [bench.Ground(kind, pool, length) for kind in on or bench.KINDS]
        if table is None
        else [bench.table_ground(table, out)]
    )
    with Progress(console=Terminal(stderr=True, quiet=quiet), transient=True) as bars:
        searches = bars.add_task("searches", total=len(rows) * len(grounds) * len(counts) * seeds)
        found = bench.bench(
            rows, grounds, seeds, counts, jobs, lambda outcome: bars.advance(searches)
        )
    lines = bench.summary(found)
    made_for = {row.label: find_strategy(row.name) for row in rows}

    def claimed(label: str, ground: str) -> bool:
        return bench.claims(made_for[label], ground)

    failed = found[found.error != ""]
    for error in sorted(set(failed.label + ": " + failed.error)):
        _say(f"error: {error}", err=True)
    if not quiet:
        print_bench(lines, claimed, Terminal())
    if out is not None:
        write_aside(out / "searches.parquet", found.to_parquet(index=False))
        arguments = [
            *(strategy or ()),
            *(f"--on={kind}" for kind in on or ()),
            *(f"--evaluations={count}" for count in counts),
        ]
        arguments += [f"--table={table}"] if table else [f"--pool={pool}", f"--length={length}"]
        arguments += [f"--seeds={seeds}", f"--out={out}"]
        write_aside(out / "README.md", bench_to_markdown(lines, claimed, arguments))
        _say(f"The tables lie in {out / 'README.md'}.")


@app.command()
def tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One task, as its file says it.")
    ] = None,
) -> None:
    """List the built-in tasks, or show one."""
    from promptsearch.tasks.task import builtin_tasks

    known = builtin_tasks()
    if name is None:
        for each, description in known.items():
            _say(f"{each}  {description}")
    elif name not in known:
        raise UnknownName("task", name, known)
    else:
        _say(
            (Path(__file__).parent / "tasks" / "builtin" / f"{name}.yaml")
            .read_text("utf-8")
            .rstrip()
        )


@app.command()
def apply(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]EXPORT_DIR...",
            help="A found prompt: a run's folder, or what export --to json wrote. "
            'Several have names; each input has its own prompt\'s under "prompt".',
        ),
    ],
    inputs: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Inputs with the template's fields, in a file of a kind that tasks are read from; "
            "- reads JSON lines from standard input.",
        ),
    ] = "-",
    model: Model = None,
) -> None:
    """Use found prompts: read inputs, and write them with their answers as JSON lines."""
    from promptsearch.export import load_prompt
    from promptsearch.export.prompted import PromptedModel
    from promptsearch.models import LanguageModel
    from promptsearch.tasks.data import read_inputs

    rows = read_inputs(inputs)
    folders = _named(prompts)
    lm = LanguageModel.load(model) if model else None
    if isinstance(folders, Path):
        found = load_prompt(folders).apply(rows, lm)
    else:
        saved = {name: load_prompt(folder) for name, folder in folders.items()}
        found = PromptedModel(lm or next(iter(saved.values())).model(), saved).apply(rows)
    for row in found:
        typer.echo(printable_json(row, default=_written))


def _named(given: list[str]) -> Path | dict[str, Path]:
    """Folders by name, or a single one without a name."""
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).exists()):
        return Path(given[0])
    found: dict[str, Path] = {}
    for each in given:
        name, equals, folder = each.partition("=")
        if not (name and equals and folder):
            raise StudyError(
                f'{each}: several prompts need names, which inputs give under "prompt": '
                "expected NAME=EXPORT_DIR"
            )
        if name in found:
            raise StudyError(f"{each}: the name {name} is given twice")
        found[name] = Path(folder)
    return found


def _written(value: Any) -> str:
    """The text of a value that JSON does not know: what the model read, or else Python's form."""
    try:
        return text_of(value)
    except FieldError:
        return str(value)


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    _say(json.dumps(config_schema(), indent=1))


def _say(text: str, err: bool = False) -> None:
    """Print a line that may hold text of strangers, with unprintable characters escaped."""
    typer.echo(printable(text), err=err)
