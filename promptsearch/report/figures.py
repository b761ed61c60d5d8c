"""Figures as SVG text, the same bytes for the same data."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from promptsearch.report.against import Curve, against
from promptsearch.report.drawing import STYLE, Floats, colour, name_lines, svg
from promptsearch.report.lengths import lengths, mean_of
from promptsearch.report.notation import visible
from promptsearch.report.summary import Row, TaskSummary

#: The number of curves that a figure holds at its usual height; with more, the figure grows and the
#: bands of the curves grow faint.
_CURVES = 14


def curves(task: TaskSummary, prefix: str, objective: str = "") -> str:
    """A figure of the least search loss so far against tokens spent.

    A curve is the median over the seeds, and its band reaches from the least to the greatest. A
    thin dashed curve of the same colour is the loss of the same prompts on the select split, which
    no search has seen: what is between the two is luck. A strategy that does not search is a dashed
    line, a reference is a dotted one.

    Args:
        task: A task with at least one row that searches.
        prefix: The beginning of all ids, which makes them unique on a page with several figures.
        objective: The metric that searches followed instead of the loss; empty for the loss.

    Returns:
        An `<svg>` element; what belongs to the strategy at place k is in groups with the ids
        `PREFIX-k-line` and `PREFIX-k-band`.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"promptsearch {task.name}"}):
        drawn = [row for row in task.rows if row.chosen]
        crowd = max(1.0, len(drawn) / _CURVES)
        figure = Figure(figsize=(10, 3.9 * crowd), layout="constrained")
        axes = figure.add_subplot()
        shown: list[float] = []
        ends: list[float] = []
        for row in drawn:
            gid = f"{prefix}-{row.place}"
            losses = (
                _steps(axes, row, gid, 0.13 / crowd**2) if row.searches else _level(axes, row, gid)
            )
            if row.searches and not objective:
                shown += _fresh(axes, row, gid).ravel().tolist()
            shown += losses.ravel().tolist()
            ends.append(float(np.median(losses[:, -1])))
        margin = 0.06 * (max(shown) - min(shown)) or 0.1
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("LM tokens spent")
        axes.set_ylabel(
            f"least minus {visible(objective)} so far"
            if objective
            else "least search loss so far (nats)"
        )
        axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        places = [row.place for row in drawn]
        name_lines(axes, places, [row.label for row in drawn], ends, 0.055 / crowd)
        return svg(figure)


def by_length(task: TaskSummary, prefix: str) -> str:
    """A figure of the mean test metric against prompt length, see `against`, with part `length`.

    A strategy that was run at one length only is a dashed line.

    Args:
        task: A task with at least one sweep.
        prefix: The beginning of all ids, as for `curves`.

    Returns:
        An `<svg>` element.
    """
    swept = [
        Curve(rows[0].family, rows[0].place, [(row.length, row.metric) for row in rows])
        for rows in task.sweeps
    ]
    families = {curve.name for curve in swept}
    others = [
        Curve(row.family, row.place, row.metric) for row in task.rows if row.family not in families
    ]
    return against(
        [*swept, *others],
        {length: str(length) for length in lengths(task)},
        task=task.name,
        part="length",
        number="prompt tokens",
        metric=task.info.metric,
        prefix=prefix,
    )


def two_metrics(task: TaskSummary, prefix: str, first: str, second: str) -> str:
    """A figure of two mean test metrics against prompt length, on two axes.

    The first is solid, on the left axis, and the second dashed, on the right one (Li and Liang
    2021, "Prefix-Tuning", arXiv:2101.00190, figure 4).

    Args:
        task: A task with at least one sweep.
        prefix: The beginning of all ids, as for `curves`.
        first: The name of the first metric.
        second: The name of the second one.

    Returns:
        An `<svg>` element; what belongs to the strategy at place k is in groups with the ids
        `PREFIX-k-first-line` and `PREFIX-k-second-line`.

    Raises:
        UnknownName: The task has no such metric.
    """
    names = (first, second)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"promptsearch {task.name} {names}"}):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        left = figure.add_subplot()
        right = left.twinx()
        for axes, name, style, part in (
            (left, names[0], "o-", "first"),
            (right, names[1], "s--", "second"),
        ):
            for rows in task.sweeps:
                axes.plot(
                    [row.length for row in rows],
                    [mean_of(task, row, name) for row in rows],
                    style,
                    color=colour(rows[0].place),
                    linewidth=2,
                    markersize=5,
                    gid=f"{prefix}-{rows[0].place}-{part}-line",
                )
            axes.set_ylabel(visible(name))
        right.spines["right"].set_visible(True)
        ticks = lengths(task)
        left.set_xscale("log")
        left.set_xticks(ticks, [str(length) for length in ticks])
        left.xaxis.set_minor_locator(NullLocator())
        left.set_xlabel("prompt tokens")
        left.grid(axis="y", color="#e6e9ee", linewidth=0.8)
        left.set_axisbelow(True)
        handles = [
            Line2D([], [], color=colour(rows[0].place), linewidth=2, label=visible(rows[0].family))
            for rows in task.sweeps
        ]
        left.legend(handles=handles, frameon=False, fontsize=9)
        return svg(figure)


def _steps(axes: Axes, row: Row, gid: str, band: float) -> Floats:
    """Draw a row's curves, with a band of this opacity.

    Returns:
        The losses that must be visible, those after the first hundredth of the tokens, shape
        `(curves, points)`.
    """
    # A curve ends with its last step, but the run went on until all was spent.
    tokens, losses = on_one_grid(
        [
            np.array([*run.curve, (run.spent, run.curve[-1][1])], dtype=np.float64)
            for run in row.runs
        ]
    )
    ink = colour(row.place)
    axes.step(
        tokens, np.median(losses, axis=0), where="post", color=ink, linewidth=2, gid=f"{gid}-line"
    )
    if len(losses) > 1:
        low, high = losses.min(axis=0), losses.max(axis=0)
        axes.fill_between(
            tokens, low, high, step="post", color=ink, alpha=band, linewidth=0, gid=f"{gid}-band"
        )
    return losses[:, tokens >= tokens[-1] / 100]


def _fresh(axes: Axes, row: Row, gid: str) -> Floats:
    """Draw the median loss on the select split of the best prompts so far.

    Nothing is drawn where a run does not know it.

    Returns:
        The losses that must be visible, shape `(points,)`.
    """
    if not all(run.select_curve for run in row.runs):
        return np.array([])
    tokens, losses = on_one_grid(
        [
            np.array([*run.select_curve, (run.spent, run.select_curve[-1][1])], dtype=np.float64)
            for run in row.runs
        ]
    )
    middle: Floats = np.median(losses, axis=0)
    axes.step(
        *(tokens, middle),
        where="post",
        color=colour(row.place),
        linestyle="--",
        linewidth=1,
        gid=f"{gid}-select-line",
    )
    late: Floats = middle[tokens >= tokens[-1] / 100]
    return late


def _level(axes: Axes, row: Row, gid: str) -> Floats:
    loss = float(np.median([run.search.loss for run in row.runs]))
    axes.axhline(
        loss,
        color=colour(row.place),
        linestyle=":" if row.reference else "--",
        linewidth=1.6,
        gid=f"{gid}-line",
    )
    return np.array([[loss]])


def on_one_grid(curves: Sequence[Floats], points: int = 120) -> tuple[Floats, Floats]:
    """Step curves, read at the same numbers of tokens.

    The grid reaches from where all curves have begun to where the last one ends.

    Args:
        curves: Arrays of shape `(steps, 2)`: tokens spent, and the least loss so far.
        points: The most points to keep.

    Returns:
        Tokens, shape `(points,)`, and losses, shape `(curves, points)`.
    """
    begin, end = max(curve[0, 0] for curve in curves), max(curve[-1, 0] for curve in curves)
    grid = np.unique(np.concatenate([curve[:, 0] for curve in curves] + [[begin]]))
    grid = grid[(grid >= begin) & (grid <= end)]
    if len(grid) > points:  # evenly on the logarithmic axis
        grid = np.unique(np.geomspace(begin, end, points))
    # A run that ended early keeps its best loss.
    return grid, np.array(
        [curve[np.searchsorted(curve[:, 0], grid, side="right") - 1, 1] for curve in curves]
    )
