"""The report of a study of several models: as Markdown, as HTML, and its files.

Each model's own report stands in the folder of its study, and is linked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from promptsearch.files import write_aside
from promptsearch.records.models import ModelsResults, load_models
from promptsearch.report import notation
from promptsearch.report.across import Line, TaskAcross, across
from promptsearch.report.by_size import by_size
from promptsearch.report.drawing import colour
from promptsearch.report.escaped import code, escape, table_lines
from promptsearch.report.facts import study_yaml
from promptsearch.report.frame import run_table, to_parquet
from promptsearch.report.markdown import interval_cell
from promptsearch.report.page import page_of

#: What the parts of the report show.
TABLE = (
    "The mean test metric of each strategy on each model, with its 95 % interval. Nothing is "
    "ranked across models: who won on one is said below, and in its report"
)
FIGURE = (
    "The same against the number of parameters, on a logarithmic axis. Dashed: prompts that were "
    "given, not searched. Dotted: a reference"
)
CARRIED = (
    "The winners of each model as text on the test splits of the others, tokenised anew by each, "
    "after all was chosen: mean test metric over the seeds. * the model that they were found for"
)


def write_models_report(folder: Path, *, trust_code: bool = False) -> Path:
    """Write `report.md`, `report.html` and `runs.parquet` of a study of several models.

    Args:
        folder: The study's folder.
        trust_code: As for `write_report`.

    Returns:
        The path of `report.html`.

    Raises:
        RecordError: A record in it is damaged.
    """
    results = load_models(folder, trust_code=trust_code)
    write_aside(folder / "runs.parquet", to_parquet(table_of_runs(results)))
    write_aside(folder / "report.md", models_to_markdown(results))
    path = folder / "report.html"
    write_aside(path, models_to_html(results))
    return path


def table_of_runs(results: ModelsResults) -> pd.DataFrame:
    """The table of all runs of all models, as `run_table` has it, with a first column `model`."""
    tables = [run_table(part).assign(model=name) for name, part in results.parts.items()]
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["model"])
    return whole[["model", *(column for column in whole.columns if column != "model")]]


def tokens_told(results: ModelsResults) -> str:
    """What carrying winners over took; empty where nothing was carried over."""
    carried = results.transfer.carried if results.transfer else ()
    spent = sum(each.tokens for each in carried)
    return f"It took {spent:,} LM tokens, which no run is charged." if spent else ""


def failures(results: ModelsResults) -> list[str]:
    """What could not be carried over, each with the reason."""
    carried = results.transfer.carried if results.transfer else ()
    return [
        f"{each.task}, {each.label}, seed {each.seed}, from {each.source} to {each.target}: "
        f"{each.error}"
        for each in carried
        if each.error
    ]


def head_of(task: TaskAcross, model: str) -> str:
    """A model as a table's head: its name and its size."""
    size = task.models[model]
    return f"{model} ({notation.short(size)})" if size else model


def models_to_markdown(results: ModelsResults) -> str:
    """The report as text, in the dialect of GitHub.

    Args:
        results: The results, from `load_models`.
    """
    lines = [f"# {escape(results.study.name)}", "", *_models(results)]
    for task in across(results):
        models = list(task.models)
        heads = ["strategy", *(escape(head_of(task, model)) for model in models)]
        title = f"## {escape(task.name)}: {escape(task.scale.name)}{task.scale.arrow}"
        lines += ["", title, "", f"{TABLE}.", ""]
        lines += table_lines(heads, [_cells(line, models) for line in task.lines])
        if task.floor is not None:
            floor = notation.number(task.floor)
            lines += ["", f"Always giving the most frequent answer: {floor}."]
        if task.one_seed:
            lines += ["", f"{notation.ONE_SEED}."]
        lines += ["", *(f"- {code(m)}: {escape(said, None)}" for m, said in task.verdicts.items())]
        if task.carried:
            lines += ["", "### Carried over", "", f"{escape(CARRIED)}.", ""]
            rows = [
                [code(label, in_table=True), code(source, in_table=True), *map(escape, cells)]
                for label, source, *cells in (each.cells(models) for each in task.carried)
            ]
            lines += table_lines(["strategy", "found on", *map(escape, models)], rows)
    if told := tokens_told(results):
        lines += ["", told]
    lines += [f"- not carried over: {escape(each)}" for each in failures(results)]
    lines += ["", "## Study file, with every default filled in", ""]
    lines += [f"    {line}" for line in study_yaml(results.study.settings).splitlines()]
    return "\n".join(lines) + "\n"


def _models(results: ModelsResults) -> list[str]:
    """A line for each model: where its report is, or why there is none."""
    lines = []
    for member in results.study.models:
        name = code(member.name)
        if member.name in results.parts:
            model = results.parts[member.name].study.model
            size = f"{model.parameters:,} parameters" if model.parameters else "of unknown size"
            hash_ = code(f"{model.hash[:8]}")
            lines.append(f"- {name}: {size}, hash {hash_}, [report]({member.name}/report.md)")
        elif not member.error:
            lines.append(f"- {name}: not made yet")
        if member.error:
            lines.append(f"- {name} could not be run: {escape(member.error)}")
    return lines


def _cells(line: Line, models: Sequence[str]) -> list[str]:
    shown = [interval_cell(line.rows[m].metric) if m in line.rows else "" for m in models]
    return [code(line.label, in_table=True) + (" (reference)" if line.reference else ""), *shown]


def models_to_html(results: ModelsResults) -> str:
    """The report as one page without any reference to another host.

    Args:
        results: The results, from `load_models`.
    """
    tasks = across(results)
    figures = {
        task.name: by_size(task, f"s{place}") if task.sizes > 1 else ""
        for place, task in enumerate(tasks)
    }
    page = page_of("across.html.j2", notation=notation, colour=colour, head_of=head_of)
    return page.render(
        results=results,
        tasks=tasks,
        figures=figures,
        texts={"table": TABLE, "figure": FIGURE, "carried": CARRIED},
        tokens=tokens_told(results),
        failures=failures(results),
        study_file=study_yaml(results.study.settings),
    )
