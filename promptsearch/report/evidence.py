"""What all studies together say of each strategy: whether it beats the best control, at what cost.

What a row is beside the best control stands in `best_control.py`: it is better where a paired test
at 0.05 says so, with Holm's correction for the rows of its task, as in the report of its study.
Counts of uncorrected tests would hold one lucky row in forty of those that are no better. Studies
are not independent of one another where they share a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from promptsearch.records.results import Results
from promptsearch.records.study import StudyRecord
from promptsearch.report.best_control import SOUGHT
from promptsearch.report.escaped import code, escape, table_lines
from promptsearch.report.notation import number, percent, short
from promptsearch.report.summary import Row, TaskSummary, summarise

#: What is searched for, and what it takes to use it.
_NEEDS = {
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
        sought: What it looks for: words, vectors or weights.
        best: Whether it is the best search for that, by the select split.
        score: Its mean test metric.
        sign: 1 where a higher one is better, -1 where a lower one is.
        control: The label of the best control.
        level: The control's mean test metric.
        beats: Whether the corrected test says that it is better.
        tokens: LM tokens that a run spent, mean over its seeds.
    """

    study: str
    model: str
    task: str
    kind: str
    metric: str
    strategy: str
    sought: str
    best: bool
    score: float
    sign: int
    control: str
    level: float
    beats: bool
    tokens: float

    @property
    def place(self) -> tuple[str, str, str]:
        """What its row shares with those that it compares with: study, model and task."""
        return self.study, self.model, self.task


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
    found = task.against
    if found is None:
        return []
    rows = {row.label: row for row in task.rows}
    tests = {found.row(test): test for test in found.tests}
    best = {found.row(test) for test in found.best.values()}
    return [
        _case(
            *(results.study, task, rows[label], rows[found.control]),
            best=label in best,
            beats=found.beaten(test),
        )
        for label, test in tests.items()
        if rows[label].searches
    ]


def _case(
    study: StudyRecord, task: TaskSummary, row: Row, control: Row, *, best: bool, beats: bool
) -> Case:
    return Case(
        *(study.name, study.model.name, task.name, task.info.kind, task.info.metric),
        strategy=row.best.strategy,
        sought=row.sought,
        best=best,
        score=row.metric.mean,
        sign=task.scale.sign,
        control=control.label,
        level=control.metric.mean,
        beats=beats,
        tokens=row.spent,
    )


def evidence(found: Sequence[Case]) -> list[str]:
    """The evidence as lines of Markdown: what to begin with, each study, each strategy.

    Args:
        found: All cases.
    """
    own = {sought: [case for case in found if case.sought == sought] for sought in SOUGHT}
    known = {sought: some for sought, some in own.items() if some}
    lines = [f"* {_advice(sought, some)}" for sought, some in known.items()]
    lines += ["", "## By task", "", _BY_TASK, "", *_by_task(found)]
    for sought, some in known.items():
        lines += ["", f"## {_NEEDS[sought]}", "", f"{_counted(some)}.", "", *_by_strategy(some)]
    return lines


def _advice(sought: str, own: Sequence[Case]) -> str:
    """What to begin with, and whether to look for room first."""
    groups, met = _groups(own), _meetings(own)
    often = [name for name in met if len({case.place for case in groups[name]}) > 1]
    told = f"**{sought.capitalize()}**: "
    if some := [name for name in often or met if met[name]]:
        first = min(some, key=lambda name: _order(met[name]))
        of = ", of those with two tasks or more" if 0 < len(often) < len(met) else ""
        told += (
            f"begin with {code(first)}{of}: it is ahead in {_ahead(met[first])} meetings with "
            f"other searches for {sought}. "
        )
    told += _counted(own)
    if 2 * sum(case.beats for case in own) < len(own):
        told += "; look first whether there is room, with `promptsearch plan STUDY.yaml --headroom`"
    return f"{told}."


_BY_TASK = (
    "Each line is a task of a study: its best control, and the best search for words, vectors and "
    "weights, all chosen by the select split, with their mean test metric; **bold** where a paired "
    "test at 0.05, with Holm's correction for the rows of the task, says that the search is better."
)


def _by_task(found: Sequence[Case]) -> list[str]:
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in found:
        groups.setdefault(case.place, []).append(case)
    rows = []
    for (study, model, task), own in groups.items():
        first = own[0]
        cells = [*map(escape, (study, model, task, first.kind, first.metric))]
        cells.append(f"{code(first.control, in_table=True)} {number(first.level)}")
        for sought in SOUGHT:
            best = [case for case in own if case.best and case.sought == sought]
            cells.append(_told(best[0]) if best else "")
        rows.append(cells)
    heads = ["study", "model", "task", "answers", "metric", "best control", *SOUGHT]
    return table_lines(heads, rows)


def _told(case: Case) -> str:
    score = f"**{number(case.score)}**" if case.beats else number(case.score)
    return f"{code(case.strategy, in_table=True)} {score}"


def _counted(own: Sequence[Case]) -> str:
    tasks = {case.place for case in own}
    won = {case.place for case in own if case.beats}
    if not won:
        return f"Of {len(own)} rows, none beat the best control"
    beat = sum(case.beats for case in own)
    return (
        f"Of {len(own)} rows, {beat} beat the best control; "
        f"it was beaten in {len(won)} of {len(tasks)} tasks"
    )


def _groups(own: Sequence[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in own:
        groups.setdefault(case.strategy, []).append(case)
    return groups


def _meetings(own: Sequence[Case]) -> dict[str, list[float]]:
    """What each strategy reached against each other one, in the tasks of studies that both had.

    Rows of unlike tasks do not compare: some tasks have more to gain than others.

    Args:
        own: Cases of one kind of search.

    Returns:
        For each strategy, 1 for each row of another one in the same task that has a worse test
        metric, 0 for each with a better one, and a half where both are level.
    """
    met: dict[str, list[float]] = {case.strategy: [] for case in own}
    for one, other in permutations(own, 2):
        if one.place == other.place and one.strategy != other.strategy:
            met[one.strategy].append((float(one.sign * np.sign(one.score - other.score)) + 1) / 2)
    return met


def _order(met: Sequence[float]) -> tuple[float, int]:
    """What strategies are ordered by, the best first: the share of meetings, and their number."""
    return -float(np.mean(met)) if met else np.inf, -len(met)


def _ahead(met: Sequence[float]) -> str:
    """In how many of its meetings a strategy was ahead."""
    return f"{sum(met):g} of {len(met)}"


def _by_strategy(own: Sequence[Case]) -> list[str]:
    groups, met = _groups(own), _meetings(own)
    rows = [
        [
            code(name, in_table=True),
            str(len(groups[name])),
            _ahead(met[name]) if met[name] else "",
            percent(float(np.mean([case.beats for case in groups[name]]))),
            short(float(np.median([case.tokens for case in groups[name]]))),
        ]
        for name in sorted(groups, key=lambda name: _order(met[name]))
    ]
    heads = ["strategy", "rows", "ahead of others", "beat the control", "tokens of a run"]
    return table_lines(heads, rows)
