"""The page of the reference study: six tasks of different kinds, the same rows on each.

It is made from the records `results/reference-*`, those that are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from promptsearch.records.headroom import HeadroomRecord
from promptsearch.records.results import Results
from promptsearch.report.escaped import code, escape, table_lines
from promptsearch.report.foreseen import said
from promptsearch.report.front import tokens
from promptsearch.report.notation import count, number, short
from promptsearch.report.summary import Row, TaskSummary, summarise

#: The tasks of the study, each a file in examples/reference.
TASKS = ("movie-reviews", "subjects", "which-capital", "antonyms", "capitals", "past-tenses")

INTRODUCTION = """\
What do hard and soft prompts reach on one frozen model, what do they cost, and when does a search
pay? Six tasks of different kinds ({files}), the same rows on each as far as they have a meaning
there: prompts by hand and other controls, searches for words, trained vectors. Every run that
searches may spend 100,000 LM tokens, and every row that depends on a seed has five. The rows, and
what `promptsearch plan --headroom` expected of each task, were written down before the first run.

Recorded so far: {known} of 6. Each is made by

```sh
OMP_NUM_THREADS=1 promptsearch compare examples/reference/TASK.yaml \\
    --out results/reference-TASK
```
"""

SCORES = """\
Mean test metric over the seeds. **Bold**: better than the best control of the task, which has a
star, in a paired test over examples and seeds with Holm's correction at 0.05. The
best control is chosen by the select split."""

EXPECTED = """\
The gain of the best search over the best control, both chosen by the select split and scored once
on the test split, beside the 90 % interval that was expected. Where answers are chosen it is in
points of accuracy, else in nats of the loss."""

PRICES = """\
What a row costs: tokens charged to a run in its search, what its prompt adds to each input from
then on, and what whoever serves the model has to take. Means over the tasks."""


def page(studies: Sequence[Results], looks: Mapping[str, HeadroomRecord]) -> str:
    """The whole page.

    Args:
        studies: The records of the study, one for each task that was made.
        looks: Task -> what searches were expected to gain on it.
    """
    tasks = [task for results in studies for task in summarise(results)]
    tasks.sort(key=lambda task: TASKS.index(task.name))
    files = ", ".join(f"`{name}`" for name in TASKS)
    lines = [
        "<!-- Written by docs/generate.py from the records in results/: run it again. -->",
        "# The reference study",
        "",
        INTRODUCTION.format(files=files, known=len(tasks)),
    ]
    if tasks:
        lines += ["## What each row reaches", "", SCORES, "", *_scores(tasks), ""]
        lines += [*_verdicts(tasks), ""]
    lines += ["## What was expected", "", EXPECTED, "", *_expected(tasks, looks)]
    if tasks:
        lines += ["", "## What it costs", "", PRICES, "", *_prices(tasks)]
    if only := _only(tasks):
        lines += ["", "## What is only calibration, and what only format", "", *only]
    return "\n".join(lines) + "\n"


def is_whole(results: Results) -> bool:
    """Whether all runs of a study were made; a page of means has no place for some of them."""
    return all(
        {row.label for row in task.rows} == {*results.study.strategies}
        and all(len(row.runs) == row.wanted for row in task.rows)
        for task in summarise(results)
    )


def _labels(tasks: Sequence[TaskSummary]) -> list[str]:
    """The rows of all tasks, in the order of the study files."""
    places = {row.label: row.place for task in tasks for row in task.rows}
    return sorted(places, key=lambda label: (places[label], label))


def _row(task: TaskSummary, label: str) -> Row | None:
    return next((row for row in task.rows if row.label == label), None)


def _scores(tasks: Sequence[TaskSummary]) -> list[str]:
    better = {
        (task.name, found.row(test))
        for task in tasks
        if (found := task.against)
        for test in found.tests
        if found.beaten(test)
    }
    table = []
    for label in _labels(tasks):
        cells = [code(label, in_table=True)]
        for task in tasks:
            row = _row(task, label)
            cell = "" if row is None else f"{number(row.metric.mean)} ± {number(row.metric.half)}"
            if (task.name, label) in better:
                cell = f"**{cell}**"
            if task.against and task.against.control == label:
                cell += "\\*"
            cells.append(cell)
        table.append(cells)
    heads = ["row", *(f"{escape(task.name)}, {escape(task.info.metric)}" for task in tasks)]
    return table_lines(heads, table)


def _verdicts(tasks: Sequence[TaskSummary]) -> list[str]:
    return [
        f"* {escape(task.name)} (`results/reference-{task.name}/report.md`): "
        f"{escape(task.verdict, None)}"
        for task in tasks
    ]


def _expected(tasks: Sequence[TaskSummary], looks: Mapping[str, HeadroomRecord]) -> list[str]:
    made = {task.name: task for task in tasks}
    table = []
    for name in (name for name in TASKS if name in looks):
        gained = _gained(made[name], looks[name]) if name in made else ["not run yet", "", ""]
        table.append([escape(name), escape(said(looks[name].best, looks[name].measure)), *gained])
    return table_lines(["task", "expected", "best search", "gained", "within"], table)


def _gained(task: TaskSummary, look: HeadroomRecord) -> list[str]:
    search = _row(task, task.against.search) if task.against and task.against.search else None
    control = _row(task, task.against.control) if task.against else None
    if search is None or control is None:
        return ["", "", ""]
    if look.measure == "accuracy":
        gain = search.metric.mean - control.metric.mean
        shown = f"{100 * gain:+.1f} points"
    else:
        gain = control.loss.mean - search.loss.mean
        shown = f"{gain:+.2f} nats"
    best = f"{code(search.label, in_table=True)} over {code(control.label, in_table=True)}"
    return [best, shown, "yes" if look.best.low <= gain <= look.best.high else "no"]


def _prices(tasks: Sequence[TaskSummary]) -> list[str]:
    needs = {"words": "text", "vectors": "vectors or keys and values", "weights": "weights"}
    table = []
    for label in _labels(tasks):
        rows = [row for task in tasks if (row := _row(task, label))]
        table.append(
            [
                code(label, in_table=True),
                short(float(np.mean([row.spent for row in rows]))),
                count(float(np.mean([tokens(row) for row in rows]))),
                rows[0].best.access,
                needs[rows[0].sought],
            ]
        )
    heads = ["row", "tokens of a run", "tokens with every input", "looks at", "to be served"]
    return table_lines(heads, table)


#: What is compared with what, and what the difference says.
_PAIRS = (
    ("calibrated", "manual", "calibration alone, no search"),
    ("exemplars", "exemplars-random-labels", "the right labels of solved examples"),
    ("exemplars_nearest", "exemplars", "examples chosen for each input"),
    ("random", "manual", "the best of random words"),
    ("verbalizer", "calibrated", "other answer words, beyond calibration"),
)


def _only(tasks: Sequence[TaskSummary]) -> list[str]:
    table = []
    for label, other, meaning in _PAIRS:
        cells = []
        for task in tasks:
            one, two = _row(task, label), _row(task, other)
            cells.append(f"{one.metric.mean - two.metric.mean:+.3f}" if one and two else "")
        if any(cells):
            name = f"{code(label, in_table=True)} minus {code(other, in_table=True)}"
            table.append([name, meaning, *cells])
    heads = ["rows", "what it is", *(escape(task.name) for task in tasks)]
    return table_lines(heads, table) if table else []
