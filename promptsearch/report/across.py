"""The same tasks and strategies on several models: what the report of such a study shows.

It ranks nothing: which strategy won on a model is said by the report of that model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.records.models import CarriedRecord, ModelsResults
from promptsearch.records.results import Results
from promptsearch.report.measured import Scale
from promptsearch.report.notation import number
from promptsearch.report.summary import Row, TaskSummary, summarise


@dataclass(frozen=True)
class Line:
    """A strategy on one task, at its chosen length, across the models.

    Args:
        label: Its name, without the length of a sweep.
        place: Its place in the study file, which gives it its colour.
        rows: Model -> its row in the report of that model.
    """

    label: str
    place: int
    rows: Mapping[str, Row]

    @property
    def reference(self) -> bool:
        """Whether it is a reference line on some model, with more or less to spend than others."""
        return any(row.reference for row in self.rows.values())

    @property
    def searches(self) -> bool:
        """Whether it looked for its prompt within the study's budget."""
        return all(row.searches for row in self.rows.values())


@dataclass(frozen=True)
class Carried:
    """The hard winners of a strategy on one model, on all models.

    Args:
        label: The strategy's label.
        source: The model that they were found for.
        scores: Model -> their mean test metric over the seeds; NaN where it failed.
    """

    label: str
    source: str
    scores: Mapping[str, float]

    def cells(self, models: Sequence[str]) -> list[str]:
        """The cells of a table's row: strategy, model, then the metric on each model.

        A star marks the model that they were found for; what was not scored is blank.
        """
        shown = [
            number(self.scores[model]) + ("*" if model == self.source else "")
            if model in self.scores
            else ""
            for model in models
        ]
        return [self.label, self.source, *shown]


@dataclass(frozen=True)
class TaskAcross:
    """One task on all models.

    Args:
        name: The task's name.
        scale: How the metric's scores are read.
        models: Model -> its number of parameters, in the order of the study file; None where it is
            not known.
        verdicts: Model -> who won on it, in words.
        lines: The strategies in the order of the study file.
        floor: The score of always giving the most frequent answer, see `TaskSummary`.
        carried: The hard winners that were carried over.
    """

    name: str
    scale: Scale
    models: Mapping[str, int | None]
    verdicts: Mapping[str, str]
    lines: tuple[Line, ...]
    floor: float | None
    carried: tuple[Carried, ...]

    @property
    def sized(self) -> list[str]:
        """The models whose size is known, the smallest first."""
        known = {name: size for name, size in self.models.items() if size}
        return sorted(known, key=lambda name: known[name])

    @property
    def sizes(self) -> int:
        """The number of sizes that are known, each counted once."""
        return len({self.models[name] for name in self.sized})

    @property
    def one_seed(self) -> bool:
        """Whether an interval does not cover the luck of the seed."""
        rows = [row for line in self.lines for row in line.rows.values()]
        return not all(row.metric.covers_seeds for row in rows)


def across(results: ModelsResults) -> tuple[TaskAcross, ...]:
    """The tasks of a study of several models, in the order of the study.

    Args:
        results: The results, from `load_models`.
    """
    found: dict[str, dict[str, TaskSummary]] = {}
    for model, part in results.parts.items():
        for task in summarise(part):
            found.setdefault(task.name, {})[model] = task
    return tuple(_task(name, on, results) for name, on in found.items())


def _task(name: str, on: Mapping[str, TaskSummary], results: ModelsResults) -> TaskAcross:
    first = next((task for task in on.values() if task.rows), next(iter(on.values())))
    rows: dict[str, dict[str, Row]] = {}
    places: dict[str, int] = {}
    for model, task in on.items():
        for row in task.rows:
            if row.chosen:
                rows.setdefault(row.family, {})[model] = row
                places.setdefault(row.family, row.place)
    lines = [Line(label, places[label], found) for label, found in rows.items()]
    return TaskAcross(
        name=name,
        scale=first.scale,
        models={model: results.parts[model].study.model.parameters for model in on},
        verdicts={model: task.verdict for model, task in on.items()},
        lines=tuple(sorted(lines, key=lambda line: line.place)),
        floor=first.floor,
        carried=tuple(_carried(name, results)),
    )


def _carried(task: str, results: ModelsResults) -> list[Carried]:
    """The winners that were carried over on a task, by strategy and model."""
    groups: dict[tuple[str, str], list[CarriedRecord]] = {}
    for each in results.transfer.carried if results.transfer else ():
        if each.task == task:
            groups.setdefault((each.label, each.source), []).append(each)
    found = []
    for (label, source), records in groups.items():
        scores = {
            target: _mean([each.metric for each in records if each.target == target])
            for target in dict.fromkeys(each.target for each in records)
        }
        own = _own(results.parts[source], task, label) if source in results.parts else []
        found.append(Carried(label, source, {source: _mean(own), **scores}))
    labels = [label for part in results.parts.values() for label in part.study.strategies]
    models = [member.name for member in results.study.models]
    return sorted(found, key=lambda each: (labels.index(each.label), models.index(each.source)))


def _own(part: Results, task: str, label: str) -> list[float | None]:
    """The test metric of each run of a strategy on the model that it ran on."""
    return [run.test.metric for run in part.runs if (run.task, run.label) == (task, label)]


def _mean(values: Sequence[float | None]) -> float:
    """The mean; NaN where a value is missing, or there are none."""
    if not values:
        return float("nan")
    return float(np.mean([np.nan if value is None else value for value in values]))
