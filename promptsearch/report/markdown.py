"""The report as Markdown, in the dialect of GitHub."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from promptsearch.records.results import Results
from promptsearch.records.run import RunRecord, WinnerRecord
from promptsearch.records.signature import signature
from promptsearch.records.study import ModelRecord
from promptsearch.report import (
    answers,
    best_control,
    drawn,
    ensembles,
    explained,
    foreseen,
    front,
    further,
    lengths,
    papers,
    projection,
    sizes,
    training,
)
from promptsearch.report.columns import columns
from promptsearch.report.escaped import code, escape, table_lines
from promptsearch.report.facts import bars, facts, study_file
from promptsearch.report.families import FEW_SEEDS, Family, families
from promptsearch.report.notation import (
    NO_EXPORT,
    ONE_SEED,
    could_show,
    flops,
    in_slots,
    money,
    number,
    percent,
    probability,
    signed,
    whole,
)
from promptsearch.report.summary import Row, TaskSummary, summarise
from promptsearch.statistics import Comparison, Interval

#: What stands behind the name of a reference line.
_REFERENCE = " (reference, not ranked)"


def to_markdown(results: Results) -> str:
    """The whole report as text.

    Args:
        results: The results, from `load_results`.

    Returns:
        Markdown; whatever prompts, labels and errors hold stays text inside its cell or line.
    """
    tasks = summarise(results)
    model = results.study.model
    lines = [f"# {escape(results.study.name)}", ""]
    kin = families(tasks)
    lines += [
        f"- **{escape(each.name)}**, mean over {each.tasks} tasks: {escape(each.verdict, None)}"
        for each in kin
    ]
    lines += [f"- **{escape(task.name)}**: {escape(task.verdict, None)}" for task in tasks]
    lines += [line for each in kin for line in _family(each)]
    for task in tasks:
        notes = [f"- The data: {escape(note)}." for note in task.info.notes]
        lines += [
            "",
            f"## {escape(task.name)}",
            "",
            *notes,
            *([""] if notes else []),
            *_foreseen(results, task.name),
            *_task(task, model, results.trust_code),
            *_explained(results, task.name),
        ]
    lines += _missing(results)
    lines += ["", "## How this was made", ""]
    lines += [f"- {escape(name)}: {escape(value, None)}" for name, value in facts(results)]
    lines += [
        "",
        "Signature:",
        "",
        code(signature(results.study)),
        "",
        "Study file, with every default filled in:",
        "",
    ]
    lines += [f"    {line}" for line in study_file(results.study).splitlines()]
    lines += ["", "## What the columns mean", ""]
    meant = columns(results.study, tasks)
    lines += [f"- **{name}**: {escape(text)}" for name, text in meant.items()]
    return "\n".join(lines) + "\n"


def _family(family: Family) -> list[str]:
    """The part on the mean over the tasks of a family."""
    heads = ["strategy", escape(family.scale.name) + family.scale.arrow]
    rows = [
        [code(row.label, in_table=True) + (_REFERENCE * row.reference), interval_cell(row.metric)]
        for row in family.rows
    ]
    title = f"## {escape(family.name)}: mean over {family.tasks} tasks"
    note = ["", f"{FEW_SEEDS}."] if family.few_seeds else []
    return ["", title, "", *table_lines(heads, rows), *note]


def _task(task: TaskSummary, model: ModelRecord, trust_code: bool) -> list[str]:
    if not task.rows:
        return ["No run has finished."]
    regret = any(row.regret is not None for row in task.rows)
    heads = [
        "strategy",
        escape(task.info.metric) + task.scale.arrow,
        "test loss",
        "gap",
        *(["regret"] if regret else []),
    ]
    heads += ["tokens", *(["FLOPs"] if task.counted else [])]
    heads += [*(["cost"] if task.priced else []), "seconds", "access"]
    lines = table_lines(heads, [_cells(row, regret, task) for row in task.rows])
    if task.floor is not None:
        lines += ["", f"Always giving the most frequent answer: {number(task.floor)}."]
    if told := bars(task.info):
        lines += ["", escape(told)]
    if any(not row.scores.covers_seeds for row in task.rows):
        lines += ["", ONE_SEED + "."]
    lines += [line for row in task.rows for run in row.unexported for line in ("", _no_export(run))]
    lines += _further(task)
    if task.sweeps:
        ticks = lengths.lengths(task)
        told = f"{escape(task.info.metric)} against prompt length. {lengths.chosen(task)} (\\*)."
        by_length = [lengths.cells(rows, ticks) for rows in task.sweeps]
        lines += _named(told, map(str, ticks), by_length)
    if told := front.told(task):
        lines += ["", f"{escape(told)}."]
    lines += ["", "Winning prompts:", ""]
    lines += [
        f"- {code(row.label)}, seed {row.best.seed}: {_prompt(row.best.winner)}"
        for row in task.rows
    ]
    lines += _answers(task)
    lines += ["", "Space:", ""]
    takes = [sizes.cells(row, model) for row in task.rows]
    lines += table_lines(
        ["strategy", *sizes.COLUMNS],
        [[code(label, in_table=True), *cells] for label, *cells in takes],
    )
    lines += ["", sizes.sentence(model)]
    together = [ensembles.cells(*each) for each in ensembles.together(task)]
    lines += _named(f"{ensembles.TOLD}:", ensembles.COLUMNS, together)
    lines += _projection(task) + _training(task)
    lines += _named("Beside the papers:", papers.COLUMNS, map(papers.cells, papers.known(task)))
    if task.against:
        lines += ["", f"{escape(task.against.told)}:", ""]
        held = best_control.cells(task.against)
        named = [[code(label, in_table=True), *numbers] for label, *numbers in held]
        lines += table_lines(best_control.COLUMNS, named)
    if task.comparisons:
        lines += ["", "All pairs (paired test over examples and seeds, Holm's correction):", ""]
        lines += table_lines(
            ["better", "worse", "difference", "p", "p corrected", "would have shown"],
            [_pair(t) for t in task.comparisons],
        )
    if tests := drawn.against(task, trust_code):
        lines += ["", f"{drawn.TOLD}:", "", *(f"- {escape(line)}" for line in tests)]
    return lines


def _named(told: str, columns: Iterable[str], rows: Iterable[list[str]]) -> list[str]:
    """A part that is one table, whose first column names rows; empty where it has none.

    Args:
        told: The line above the table, in Markdown.
        columns: The other columns, in Markdown.
        rows: The cells of each row.
    """
    table = [[code(label, in_table=True), *map(escape, rest)] for label, *rest in rows]
    return ["", told, "", *table_lines(["strategy", *columns], table)] if table else []


def _further(task: TaskSummary) -> list[str]:
    """The part on other metrics; empty where there are none."""
    names = further.columns(task)
    if not names:
        return []
    rows = [further.cells(task, row) for row in task.rows]
    lines = _named(f"{further.told(task)}:", map(escape, names), rows)
    if task.beside and further.UNENDED in names:  # else the line above says it
        lines += ["", f"{further.UNENDED}: {further.WITHOUT_END}."]
    return lines + [
        line
        for label, seed, why in [*further.judges(task), *further.failures(task)]
        for line in ("", f"{code(label)}, seed {seed}: {escape(why)}")
    ]


def _answers(task: TaskSummary) -> list[str]:
    """The part "What they answered"; empty where no text was generated."""
    rows = answers.shown(task)
    if not rows:
        return []
    lines = ["", "What they answered:", ""]
    for row in rows:
        lines += [f"- {code(row.given)}, right: {code(row.wanted)}"]
        lines += [f"  - {code(label)}: {code(text)}" for label, text in row.answers.items()]
    return lines


def _projection(task: TaskSummary) -> list[str]:
    """The part "From vectors to words"; empty where no run goes from vectors to words."""
    rows = [projection.cells(*run) for run in projection.projected(task)]
    if not rows:
        return []
    shown = [
        [code(label, in_table=True), seed, *map(escape, some), code(text, in_table=True)]
        for label, seed, *some, text in rows
    ]
    table = table_lines(["strategy", "seed", *projection.COLUMNS], shown)
    return ["", "From vectors to words:", "", *table]


def _training(task: TaskSummary) -> list[str]:
    """The part "Did it train?"; empty where no run trains."""
    runs = training.trained(task)
    if not runs:
        return []
    found = [
        f"- {code(label)}, seed {seed}: {escape(text)}"
        for label, seed, text in training.findings(task)
    ]
    rows = [training.cells(*run) for run in runs]
    lines = _named("Did it train?", ["seed", *training.COLUMNS], rows)
    return [*lines, "", *(found or ["Nothing looks wrong."])]


def _foreseen(results: Results, task: str) -> list[str]:
    """What was expected beforehand; empty where nobody looked."""
    told = foreseen.forecast_of(results, task)
    return [escape(f"Expected beforehand: {told}."), ""] if told else []


def _explained(results: Results, task: str) -> list[str]:
    """The part "What makes winners win"; empty where nobody asked."""
    winners = explained.explained(results, task)
    if not winners:
        return []
    pieces = [
        f"- {code(winner.label)}, seed {winner.seed}: "
        + ", ".join(f"{code(piece)} {escape(rise)}" for piece, rise in explained.line(winner))
        for winner in winners
    ]
    told = (
        f"{explained.TOLD}. It took {whole(explained.tokens(winners))} LM tokens, charged to none."
    )
    table = _named(escape(told), ["seed", *explained.COLUMNS], map(explained.cells, winners))
    return ["", "What makes winners win:", *table, "", *pieces]


def _pair(test: Comparison) -> list[str]:
    p_values = [probability(test.p), probability(test.adjusted)]
    return [
        code(test.first, in_table=True),
        code(test.second, in_table=True),
        number(test.difference),
        *p_values,
        could_show(test.detectable),
    ]


def _cells(row: Row, regret: bool, task: TaskSummary) -> list[str]:
    best = row.best
    kind = (
        _REFERENCE
        if row.reference
        else " (control)"
        if row.control
        else ""
        if best.searches
        else " (does not search)"
    )
    brought = f" of its own, {whole(row.brought)} brought" if row.brought else ""
    seeds = f" ({len(row.runs)} of {row.wanted} seeds)" if len(row.runs) < row.wanted else ""
    return [
        code(row.label, in_table=True) + (NO_EXPORT if row.unexported else "") + kind + seeds,
        interval_cell(row.metric),
        interval_cell(row.loss),
        signed(row.gap),
        *([signed(row.regret) if row.regret is not None else ""] if regret else []),
        whole(row.spent)
        + (
            f" ({percent((row.spent - row.brought) / best.budget)}{brought})" if best.budget else ""
        ),
        *([flops(row.flops)] if task.counted else []),
        *([money(row.cost)] if task.priced else []),
        "–" if row.seconds is None else f"{row.seconds:,.1f}",
        best.access,
    ]


def _no_export(run: RunRecord) -> str:
    reason = escape(run.export.error) if run.export else ""
    return (
        f"{NO_EXPORT} {code(run.label)}, seed {run.seed}, has no export, its scores stand: {reason}"
    )


def interval_cell(value: Interval) -> str:
    """The cell of a mean with its interval; † where that does not cover the seeds."""
    mark = "" if value.covers_seeds else "†"
    if isnan(value.low):
        return f"{number(value.mean)}{mark}"
    return f"{number(value.mean)}{mark} \\[{number(value.low)}, {number(value.high)}\\]"


def _prompt(winner: WinnerRecord) -> str:
    if winner.nearest:
        return " ".join(f"{code(near.token)} {near.cosine:.2f}" for near in winner.nearest)
    return code(in_slots(winner.text))


def _missing(results: Results) -> list[str]:
    if not (results.failed or results.unfinished):
        return []
    lines = [
        "",
        "## Missing runs",
        "",
        "Run the study again to make them; what is finished is kept.",
        "",
    ]
    lines += [
        f"- failed: {escape(run.task)}, {code(run.label)}, seed {run.seed}: {code(run.error)}"
        for run in results.failed
    ]
    return lines + [
        f"- not made yet: {escape(task)}, {code(label)}, seed {seed}"
        for task, label, seed in results.unfinished
    ]
