"""What all studies together say of each strategy: whether it beats the best control, at what cost.

The best control of a task is the row that does not search with the least mean loss on the select
split. A strategy beats it where its mean test metric is higher and a paired test over examples and
seeds says so, at 0.05, not corrected: each study is asked once for each strategy. Studies are not
independent of one another where they share a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.prompts.kinds import KINDS
from promptsearch.records.results import Results
from promptsearch.records.study import StudyRecord
from promptsearch.report.dialect import code, escape, table_lines
from promptsearch.report.notation import number, percent, short
from promptsearch.report.summary import Row, TaskSummary, summarise
from promptsearch.statistics import ALPHA, paired_test

#: What a strategy looks for, in the order of the tables, and what it needs of the model.
FAMILIES = {
    "words": "Words: every model takes them, by text alone",
    "vectors": "Vectors and prefixes: whoever serves the model must take them, too",
    "weights": "Changed weights, the baseline of fine-tuning",
}


@dataclass(frozen=True)
class Case:
    """One row of one study against the best control there.

    Args:
        study: The study's name.
        model: The name of its model.
        task: The task's name.
        kind: `choices` or `text`: answers to choose from, or text.
        metric: The metric's name.
        strategy: The strategy's name.
        family: What it looks for, see `FAMILIES`.
        selected: Its mean loss on the select split.
        score: Its mean test metric.
        control: The label of the best control.
        level: The control's mean test metric.
        gain: How much better the score is than the level, as a share of the metric's range; None
            where that has no bounds.
        beats: Whether a test says that it is better.
        tokens: LM tokens that a run spent, mean over its seeds.
    """

    study: str
    model: str
    task: str
    kind: str
    metric: str
    strategy: str
    family: str
    selected: float
    score: float
    control: str
    level: float
    gain: float | None
    beats: bool
    tokens: float


def cases(studies: Iterable[Results]) -> list[Case]:
    """Every row that searched beside a control, of all studies."""
    return [
        case
        for results in studies
        for task in summarise(results)
        if not task.left_out
        for case in _cases(results, task)
    ]


def _cases(results: Results, task: TaskSummary) -> list[Case]:
    rows = [row for row in task.rows if not row.reference]
    controls = [row for row in rows if not row.best.searches and row.best.start is None]
    if not controls:
        return []
    best = min(controls, key=_selected)
    searched = [row for row in rows if row.chosen and row.best.searches]
    return [_case(results.study, task, row, best) for row in searched]


def _case(study: StudyRecord, task: TaskSummary, row: Row, control: Row) -> Case:
    scale = task.scale
    samples = [scale.turned(each.scores) for each in (row, control)]
    test = paired_test(row.label, samples[0], control.label, samples[1])
    difference, width = samples[0].mean - samples[1].mean, scale.bounds[1] - scale.bounds[0]
    return Case(
        *(study.name, study.model.name, task.name, task.info.kind, task.info.metric),
        strategy=row.best.strategy,
        family=_family(row),
        selected=_selected(row),
        score=row.metric.mean,
        control=control.label,
        level=control.metric.mean,
        gain=difference / width if np.isfinite(width) else None,
        beats=difference > 0 and test.p <= ALPHA,
        tokens=row.spent,
    )


def _selected(row: Row) -> float:
    return float(np.mean([run.select.loss for run in row.runs]))


def _family(row: Row) -> str:
    if row.best.access == "weights":
        return "weights"
    return "vectors" if KINDS[row.best.winner.kind].trained else "words"


def evidence(found: Sequence[Case]) -> list[str]:
    """The evidence as lines of Markdown: what to begin with, each study, each strategy.

    Args:
        found: All cases.
    """
    own = {family: [case for case in found if case.family == family] for family in FAMILIES}
    known = {family: some for family, some in own.items() if some}
    lines = [f"* {_advice(family, some)}" for family, some in known.items()]
    lines += ["", "## By task", "", _BY_TASK, "", *_by_task(found)]
    for family, some in known.items():
        lines += ["", f"## {FAMILIES[family]}", "", f"{_counted(some)}.", "", *_by_strategy(some)]
    return lines


def _advice(family: str, own: Sequence[Case]) -> str:
    """What to begin with in a family, and whether to look for room first."""
    groups = _groups(own)
    often = [name for name in groups if len(groups[name]) > 1] or list(groups)
    first = code(min(often, key=lambda name: _order(groups[name])))
    told = f"**{family.capitalize()}**: begin with {first}. {_counted(own)}"
    if 2 * sum(case.beats for case in own) < len(own):
        told += "; look first whether there is room, with `promptsearch plan STUDY.yaml --headroom`"
    return f"{told}."


_BY_TASK = (
    "Each line is a task of a study: its best control, and of each family the row with the least "
    "loss on the select split, with its mean test metric; **bold** where a paired test at 0.05 "
    "says that it is better than the control."
)


def _by_task(found: Sequence[Case]) -> list[str]:
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in found:
        groups.setdefault((case.study, case.model, case.task), []).append(case)
    rows = []
    for (study, model, task), own in groups.items():
        first = own[0]
        cells = [*map(escape, (study, model, task, first.kind, first.metric))]
        cells.append(f"{code(first.control, in_table=True)} {number(first.level)}")
        for family in FAMILIES:
            best = min(
                (case for case in own if case.family == family),
                key=lambda case: case.selected,
                default=None,
            )
            cells.append("" if best is None else _told(best))
        rows.append(cells)
    heads = ["study", "model", "task", "answers", "metric", "best control", *FAMILIES]
    return table_lines(heads, rows)


def _told(case: Case) -> str:
    score = f"**{number(case.score)}**" if case.beats else number(case.score)
    return f"{code(case.strategy, in_table=True)} {score}"


def _counted(own: Sequence[Case]) -> str:
    tasks = {(case.study, case.model, case.task) for case in own}
    won = {(case.study, case.model, case.task) for case in own if case.beats}
    beat = sum(case.beats for case in own) or "none"
    return (
        f"Of {len(own)} rows, {beat} beat the best control; "
        f"it was beaten in {len(won)} of {len(tasks)} tasks"
    )


def _groups(own: Sequence[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in own:
        groups.setdefault(case.strategy, []).append(case)
    return groups


def _order(some: Sequence[Case]) -> tuple[float, float]:
    """What strategies are ordered by, the best first: how often they beat, then their gain."""
    return -float(np.mean([case.beats for case in some])), -np.nan_to_num(_gain(some), nan=-np.inf)


def _by_strategy(own: Sequence[Case]) -> list[str]:
    groups = _groups(own)
    rows = [
        [
            code(name, in_table=True),
            str(len(groups[name])),
            percent(float(np.mean([case.beats for case in groups[name]]))),
            f"{100 * _gain(groups[name]):+.1f}",
            short(float(np.median([case.tokens for case in groups[name]]))),
        ]
        for name in sorted(groups, key=lambda name: _order(groups[name]))
    ]
    heads = ["strategy", "rows", "beat the control", "mean gain, points", "tokens of a run"]
    return table_lines(heads, rows)


def _gain(some: Sequence[Case]) -> float:
    """The mean gain; NaN where no metric has bounds."""
    known = [case.gain for case in some if case.gain is not None]
    return float(np.mean(known)) if known else np.nan
