"""The figure of a study of several models: the metric against the number of parameters.

It is figure 1 of Lester et al. (2021, "The Power of Scale for Parameter-Efficient Prompt Tuning",
arXiv:2104.08691), where tuning of the model, prompt tuning and prompt design are its lines.
"""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from promptsearch.report.across import Line, TaskAcross
from promptsearch.report.drawing import STYLE, colour, name_lines, svg
from promptsearch.report.notation import short, visible


def by_size(task: TaskAcross, prefix: str) -> str:
    """A figure of the mean test metric against model size, with its 95 % interval as a band.

    A strategy that does not search is a dashed line, a reference is a dotted one.

    Args:
        task: A task on at least two models whose number of parameters is known.
        prefix: The beginning of all ids, which makes them unique on a page with several figures.

    Returns:
        An `<svg>` element; what belongs to the strategy at place k is in groups with the ids
        `PREFIX-k-size-line` and `PREFIX-k-size-band`.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"promptsearch {task.name} sizes"}):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        axes = figure.add_subplot()
        drawn = [(line, _draw(axes, task, line, prefix)) for line in task.lines]
        if task.floor is not None:
            axes.axhline(task.floor, color="#8a94a3", linestyle=(0, (2, 2)), linewidth=1)
        ticks = sorted({size for size in task.models.values() if size})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [short(size) for size in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("parameters of the model")
        axes.set_ylabel(visible(task.scale.name))
        axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        shown = [(line, end) for line, end in drawn if np.isfinite(end)]
        places, names = [line.place for line, _ in shown], [line.label for line, _ in shown]
        name_lines(axes, places, names, [end for _, end in shown], 0.055)
        return svg(figure)


def _draw(axes: Axes, task: TaskAcross, line: Line, prefix: str) -> float:
    """Draw a strategy, and return the height at which its line ends; NaN where there is none."""
    at = [model for model in task.sized if model in line.rows]
    if not at:
        return float("nan")
    sizes = np.array([task.models[model] for model in at], dtype=np.float64)
    metrics = [line.rows[model].metric for model in at]
    ink, gid = colour(line.place), f"{prefix}-{line.place}-size"
    axes.plot(
        sizes,
        [metric.mean for metric in metrics],
        marker="o",
        linestyle=":" if line.reference else "-" if line.searches else "--",
        color=ink,
        linewidth=2,
        markersize=5,
        gid=f"{gid}-line",
    )
    low, high = [metric.low for metric in metrics], [metric.high for metric in metrics]
    axes.fill_between(sizes, low, high, color=ink, alpha=0.1, linewidth=0, gid=f"{gid}-band")
    return metrics[-1].mean
