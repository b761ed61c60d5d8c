"""The front of metric and prompt length: the rows that no shorter prompt equals.

Each prompt token is paid again with every input for as long as a prompt is in use, so that a long
prompt has to be better than a short one. The front of two aims is Pareto's, as multi-objective
searches draw it (Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II").
It is a picture of means and no verdict: neighbours on it may differ by luck.
"""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from promptsearch.report.drawing import STYLE, colour, name_lines, svg
from promptsearch.report.notation import count, number, visible
from promptsearch.report.summary import Row, TaskSummary


def tokens(row: Row) -> float:
    """The prompt tokens of a row's winners, or positions of a prefix: the mean over its seeds."""
    return float(np.mean([run.length for run in row.runs]))


def points(task: TaskSummary) -> list[Row]:
    """The rows that have a place in it: prompts whose metric is known.

    Changed weights are no prompt, and a reference line had other means than the others.
    """
    return [
        row
        for row in task.rows
        if row.sought != "weights" and not row.reference and np.isfinite(row.metric.mean)
    ]


def front(task: TaskSummary) -> list[Row]:
    """The rows of which no other has at most as many tokens and a metric at least as good.

    Where rows are equal in both, the first of the report stays.

    Args:
        task: A task of the report.

    Returns:
        The rows by length, the shortest first; each is better than the one before it.
    """
    found: list[Row] = []
    for row in sorted(points(task), key=lambda row: (tokens(row), -_height(task, row))):
        if not found or _height(task, row) > _height(task, found[-1]):
            found.append(row)
    return found


def told(task: TaskSummary) -> str:
    """The front in a sentence; empty where all prompts are of one length."""
    if len({tokens(row) for row in points(task)}) < 2:
        return ""
    steps = ", ".join(
        f"'{visible(row.label)}' {number(row.metric.mean)} with {count(tokens(row))}"
        for row in front(task)
    )
    return f"Best by {task.info.metric} for their length in prompt tokens: {steps}"


def drawn(task: TaskSummary, prefix: str) -> str:
    """A figure of the mean test metric against prompt tokens.

    A grey line joins the front, whose rows have their 95 % intervals.

    Args:
        task: A task of which `told` has something to say.
        prefix: The beginning of all ids, which makes them unique on a page with several figures.

    Returns:
        An `<svg>` element; what belongs to the strategy at place k is in groups with the id
        `PREFIX-k-front-line`.
    """
    rows = points(task)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"promptsearch {task.name} front"}):
        figure = Figure(figsize=(10, 3.9 * max(1.0, len(rows) / 16)), layout="constrained")
        axes = figure.add_subplot()
        best = front(task)
        axes.step(
            [tokens(row) for row in best],
            [row.metric.mean for row in best],
            where="post",
            color="#8a94a3",
            linewidth=1.2,
            zorder=0,
        )
        for row in rows:
            _point(axes, row, f"{prefix}-{row.place}-front-line", row in best)
        axes.set_xscale("symlog", linthresh=1)  # a prompt without a token has a place, too
        ticks = sorted({round(tokens(row)) for row in rows})
        axes.set_xticks(_apart(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("prompt tokens with every input")
        axes.set_ylabel(visible(task.info.metric))
        axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        names = [row.label for row in rows]
        heights = [row.metric.mean for row in rows]
        apart = 0.055 / max(1.0, len(rows) / 16)
        name_lines(axes, [row.place for row in rows], names, heights, apart)
        return svg(figure)


def _point(axes: Axes, row: Row, gid: str, best: bool) -> None:
    """Draw a row; one on the front with its interval, as those of all would hide each other."""
    ink, x = colour(row.place), tokens(row)
    if best:
        axes.plot([x, x], [row.metric.low, row.metric.high], color=ink, alpha=0.35, linewidth=2)
    shade = 1.0 if best else 0.55
    axes.plot([x], [row.metric.mean], "o", color=ink, alpha=shade, markersize=6, gid=gid)


def _apart(ticks: list[int], factor: float = 1.5) -> list[int]:
    """The ticks that can be read side by side on a logarithmic axis."""
    kept: list[int] = []
    for tick in ticks:
        if not kept or tick >= max(1, kept[-1]) * factor:
            kept.append(tick)
    return kept


def _height(task: TaskSummary, row: Row) -> float:
    """The mean test metric, turned so that higher is better."""
    return task.scale.sign * row.metric.mean
