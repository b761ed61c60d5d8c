"""The report as one HTML file that opens offline."""

from __future__ import annotations

from typing import Any

import numpy as np

from promptsearch.records.results import Results
from promptsearch.records.signature import signature
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
    notation,
    papers,
    projection,
    sizes,
    training,
)
from promptsearch.report.columns import columns
from promptsearch.report.drawing import colour
from promptsearch.report.facts import bars, facts, study_file
from promptsearch.report.families import FEW_SEEDS, families
from promptsearch.report.figures import by_length, curves, two_metrics
from promptsearch.report.page import page_of
from promptsearch.report.summary import TaskSummary, summarise


def to_html(results: Results, metrics: tuple[str, str] | None = None) -> str:
    """The whole page.

    Args:
        results: The results, from `load_results`.
        metrics: The two metrics that are drawn against prompt length, as for `write_report`.

    Returns:
        HTML without any reference to another file or host.
    """
    tasks = summarise(results)
    page = page_of(
        "report.html.j2",
        colour=colour,
        notation=notation,
        sizes=sizes,
        lengths=lengths,
        training=training,
        papers=papers,
        projection=projection,
        bars=bars,
        front=front,
        further=further,
        answers=answers,
        best_control=best_control,
        drawn=drawn,
        ensembles=ensembles,
        explained=explained,
    )
    return page.render(
        study=results.study,
        families=families(tasks),
        few_seeds=FEW_SEEDS,
        tasks=[_task(task, f"t{place}", results, metrics) for place, task in enumerate(tasks)],
        failed=results.failed,
        unfinished=results.unfinished,
        facts=facts(results),
        signature=signature(results.study),
        study_file=study_file(results.study),
        columns=columns(results.study, tasks),
    )


def _task(
    task: TaskSummary, prefix: str, results: Results, metrics: tuple[str, str] | None
) -> dict[str, Any]:
    pair = metrics or (task.info.metric, task.beside[0].name if task.beside else "")
    return {
        "task": task,
        "prefix": prefix,
        "figure": (
            curves(task, prefix, results.study.objective)
            if any(row.searches for row in task.rows)
            else ""
        ),
        "lengths": by_length(task, prefix) if task.sweeps else "",
        "front": front.drawn(task, prefix) if front.told(task) else "",
        "pair": pair,
        "two": two_metrics(task, prefix, *pair) if task.sweeps and task.beside else "",
        "axis": _Axis(task),
        "drawn": drawn.against(task, results.trust_code),
        "foreseen": foreseen.forecast_of(results, task.name),
        "explained": explained.explained(results, task.name),
        "regret": any(row.regret is not None for row in task.rows),
        "one_seed": any(not row.scores.covers_seeds for row in task.rows),
        "significant": sum(test.significant for test in task.comparisons),
    }


class _Axis:
    """The common scale of the intervals in a task's table: value -> x in a drawing 140 wide."""

    def __init__(self, task: TaskSummary) -> None:
        ends = [
            end for row in task.rows for end in (row.metric.mean, row.metric.low, row.metric.high)
        ]
        finite = [
            end
            for end in [*ends, *([] if task.floor is None else [task.floor])]
            if np.isfinite(end)
        ] or [0.0]
        self.low, self.high = min(finite), max(finite)

    def __call__(self, value: float) -> float:
        """The x of a value; a value beyond an end of the scale stands at that end."""
        width = self.high - self.low
        share = (min(max(value, self.low), self.high) - self.low) / width if width else 0.5
        return round(6 + 128 * share, 1)
