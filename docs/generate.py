"""Writes the pages that follow from the code, and the one that follows from all recorded studies.

`python docs/generate.py` writes them. `python docs/generate.py --check` exits with 1 where a page
is not what the code, or the record, says.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import confidence_study
import reference_study
import typer.main

from promptsearch.cli import app
from promptsearch.records.load import load_headroom, load_results
from promptsearch.records.slim import SLIM
from promptsearch.report.evidence import cases, evidence
from promptsearch.search.listing import known_strategies
from promptsearch.search.options import options_of
from promptsearch.search.plugins import find_strategy
from promptsearch.study.config import config_schema
from promptsearch.study.settings.strategy import ROW_KEYS
from promptsearch.tasks.task import Task, builtin_tasks

HERE = Path(__file__).parent
#: The recorded studies.
RESULTS = HERE.parent / "results"
_MADE = "<!-- Written by docs/generate.py: change the code, then run it again. -->"


def command_line() -> str:
    """Every command as its `--help` shows it."""
    group: Any = typer.main.get_command(app)
    lines = [
        _MADE,
        "# Command line",
        "",
        (
            "Exit codes: 0 done, 1 some runs failed (the report says which), 2 wrong input, 128 + "
            "signal when stopped."
        ),
    ]
    for name, command in group.commands.items():
        with command.make_context(f"promptsearch {name}", [], resilient_parsing=True) as context:
            context.terminal_width = 90  # as wide as the page
            text = command.get_help(context)
        lines += ["", f"## `{name}`", "", "```text", *text.rstrip().split("\n"), "```"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def study_file() -> str:
    """Every key of a study file, from its JSON Schema."""
    schema = config_schema()
    parts = schema["$defs"]
    lines = [
        _MADE,
        "# Study file",
        "",
        (
            "YAML, TOML or JSON. `promptsearch schema` prints the JSON Schema, which editors read "
            "to complete and check. `models` is another spelling of `model`, and `tasks` of "
            "`task`: either takes one or a list. In YAML, `&name` marks a part that `*name` "
            "repeats, and `<<: *name` takes over the keys of a mapping; a key written beside it "
            "wins."
        ),
        "",
        *_keys(
            {k: v for k, v in schema["properties"].items() if k not in ("tasks", "models")},
            ["model", *schema["required"]],
        ),
        "## Keys of a row",
        "",
        (
            "Each row under `strategies` is a strategy's name, or that name with options, such as "
            "`evolution: {label: small, population: 8}`. Beside the options of the strategy "
            "({doc}`strategies`) it may have:"
        ),
        "",
        *(
            line
            for key, (_, default, text) in ROW_KEYS.items()
            for line in (f"`{key}`", f": {_lower(text[:-1])}; left out: {default}", "")
        ),
    ]
    titles = {
        "TaskConfig": "task",
        "LmEvalConfig": "a task of lm-evaluation-harness",
        "Data": "data",
        "Sources": "data with a source for each split",
        "SplitSource": "a source of one split",
        "SplitSizes": "splits",
        "PerClass": "the size of a split by class",
        "DecodingConfig": "decoding",
        "PoolSource": "pool",
        "EndpointConfig": "a model behind an endpoint",
        "PriceConfig": "price",
        "ProposerConfig": "proposer",
        "ExecutionConfig": "execution",
        "RayConfig": "ray",
    }
    for part, title in titles.items():
        text = parts[part].get("description", "").split("\n\n")[0].replace("\n", " ")
        lines += ["", f"## Keys of {title}", "", text, ""]
        lines += _keys(parts[part]["properties"], parts[part].get("required", ()))
    return "\n".join(lines).rstrip() + "\n"


def _lower(text: str) -> str:
    """A text that goes on a sentence: its first letter small, but that of an abbreviation."""
    return text if text[:2].isupper() else text[0].lower() + text[1:]


def _keys(properties: Mapping[str, Any], required: Any) -> Iterator[str]:
    for key, value in properties.items():
        default = value.get("default")
        text = value.get("description", "").replace("{", "\\{").replace("}", "\\}")
        if key in required:
            text = f"**must be given**; {text}"
        elif default not in (None, "") and "left out:" not in text:
            text = f"{text}; default `{str(default).lower()}`"
        yield from (f"`{key}`", f": {text}", "")


def strategies() -> str:
    """Every installed strategy of this package with its options, from its docstring."""
    lines = [
        _MADE,
        "# Strategies",
        "",
        (
            "`promptsearch strategies NAME` shows the same for any strategy, yours included. Each "
            "file in `strategies/` begins with its paper and with what differs from it."
        ),
    ]
    own = [
        n
        for n, points in known_strategies().items()
        if points[0].value.startswith("promptsearch.strategies")
    ]
    for name in sorted(own):
        strategy = find_strategy(name)
        text = (inspect.getdoc(strategy) or "").partition("\nArgs:")[0].strip()
        kinds = ", ".join(sorted(kind.__name__ for kind in strategy.proposes))
        lines += [
            "",
            f"## `{name}`",
            "",
            text,
            "",
            f"Proposes {kinds}; needs {strategy.access}.",
            "",
        ]
        for option in options_of(strategy):
            if option.name != "label":
                default = "must be given" if option.required else f"default `{option.default!r}`"
                # The backslash ends the line, also where it is shown.
                told = (f": {option.type}; {default}\\", f"  {option.text}")
                lines += [f"`{option.name}`", *told, ""]
    return "\n".join(lines).rstrip() + "\n"


def tasks() -> str:
    """Every built-in task: what it is, its template and answers, and the sizes of its splits."""
    lines = [
        _MADE,
        "# Built-in tasks",
        "",
        (
            "Small, of different kinds, and installed with the package: `task: NAME` in a study "
            "file. `promptsearch tasks NAME` shows a task's file, and what can be reached on it "
            "without a language model. Origin and licence of the data are in the file NOTICE "
            "beside them."
        ),
    ]
    for name, description in builtin_tasks().items():
        task = Task.load(name)
        sizes = ", ".join(f"{split} {len(part)}" for split, part in task.splits.items())
        shown = task.template.shown.replace("\n", "⏎")
        lines += [
            "",
            f"## `{name}`",
            "",
            description,
            "",
            f"`{shown}`; {task.metric}; {sizes}.",
        ]
    return "\n".join(lines).rstrip() + "\n"


def which_search() -> str:
    """What all recorded studies say of each strategy against the best control."""
    found = [load_results(path.parent) for path in sorted(RESULTS.glob(f"**/{SLIM}"))]
    lines = [
        "<!-- Written by docs/generate.py from the records in results/: run it again. -->",
        "# Which search for a task like mine",
        "",
        (
            "Look for the line most like your task in the first table, then for the strategies of "
            "its family. All of it is counted from the studies in `results/`, on small models; a "
            "control is a row that does not search, such as prompts by hand or solved examples. "
            "Strategies that stand in few rows may owe their place to luck, and studies of one "
            "task are not independent of one another."
        ),
        "",
        *evidence(cases(results for results in found if reference_study.is_whole(results))),
    ]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """What the records of the reference study say together."""
    folders = sorted(RESULTS.glob("reference-*"))
    found = [load_results(folder) for folder in folders if (folder / SLIM).exists()]
    made = [results for results in found if reference_study.is_whole(results)]
    expected = [load_headroom(folder) for folder in folders]
    looks = {task.task: task for look in expected if look is not None for task in look.tasks}
    return reference_study.page(made, looks)


def confidence() -> str:
    """What searches that see log-probabilities gain over those that see right and wrong."""
    return confidence_study.page(*(load_results(RESULTS / n) for n in confidence_study.RECORDS))


#: The page below this folder -> what makes it.
PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": command_line,
    "reference/study-file.md": study_file,
    "reference/strategies.md": strategies,
    "reference/tasks.md": tasks,
    "guides/which-search.md": which_search,
    "gallery/reference.md": reference,
}
if all((RESULTS / name / SLIM).exists() for name in confidence_study.RECORDS):
    PAGES["gallery/confidence.md"] = confidence


def main() -> None:
    """Write the pages, or compare them."""
    stale = [name for name, page in PAGES.items() if not _same(HERE / name, page())]
    if "--check" in sys.argv[1:]:
        if stale:
            raise SystemExit(
                f"not what the code says: {', '.join(stale)}. Run: python docs/generate.py"
            )
        return
    for name in stale:
        (HERE / name).write_text(PAGES[name](), "utf-8")
        print(f"wrote {HERE / name}")


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text("utf-8") == text


if __name__ == "__main__":
    main()
