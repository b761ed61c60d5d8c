"""The drawing of a metric against a number: the length of a prompt, or the size of a model.

The number stands on a logarithmic axis, and above it the mean test metric of each strategy, with
its 95 % interval as a band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from promptsearch.report.drawing import STYLE, colour, name_lines, svg
from promptsearch.report.notation import visible
from promptsearch.statistics import Interval


@dataclass(frozen=True)
class Curve:
    """A strategy in such a figure.

    Args:
        name: What stands at the end of its line.
        place: Its place in the study file, which gives it its colour.
        metrics: The numbers, ascending, each with the mean test metric there. A metric alone is
            that of a strategy of which the number says nothing: a dashed line from edge to edge.
        style: The style of its line, as matplotlib names it.
    """

    name: str
    place: int
    metrics: Sequence[tuple[int, Interval]] | Interval
    style: Literal["-", "--", ":"] = "-"


def against(
    curves: Sequence[Curve],
    ticks: Mapping[int, str],
    *,
    task: str,
    part: str,
    number: str,
    metric: str,
    prefix: str,
    floor: float | None = None,
) -> str:
    """A figure of a metric against a number.

    Args:
        curves: The strategies; one without a metric is left out.
        ticks: The numbers on the axis, each as it is written there.
        task: The task's name.
        part: What the number is, in one word, for ids.
        number: What it is, as it stands below the axis.
        metric: The metric's name.
        prefix: The beginning of all ids, which makes them unique on a page with several figures.
        floor: A metric that is reached without a model, a dotted line; None draws none.

    Returns:
        An `<svg>` element; what belongs to the strategy at place k is in groups with the ids
        `PREFIX-k-PART-line` and `PREFIX-k-PART-band`.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"promptsearch {task} {part}s"}):
        figure = Figure(figsize=(10, 3.9), layout="constrained")
        axes = figure.add_subplot()
        ends = [_draw(axes, curve, f"{prefix}-{curve.place}-{part}") for curve in curves]
        if floor is not None:
            axes.axhline(floor, color="#8a94a3", linestyle=(0, (2, 2)), linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(number)
        axes.set_ylabel(visible(metric))
        axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        named = [pair for pair in zip(curves, ends, strict=True) if np.isfinite(pair[1])]
        places, names = [curve.place for curve, _ in named], [curve.name for curve, _ in named]
        name_lines(axes, places, names, [end for _, end in named], 0.055)
        return svg(figure)


def _draw(axes: Axes, curve: Curve, gid: str) -> float:
    """Draw a strategy, and return the height at which its line ends; NaN where there is none."""
    ink, metrics = colour(curve.place), curve.metrics
    if isinstance(metrics, Interval):
        axes.axhline(metrics.mean, color=ink, linestyle="--", linewidth=1.6, gid=f"{gid}-line")
        return metrics.mean
    if not metrics:
        return float("nan")
    numbers, found = [number for number, _ in metrics], [metric for _, metric in metrics]
    axes.plot(
        numbers,
        [each.mean for each in found],
        marker="o",
        linestyle=curve.style,
        color=ink,
        linewidth=2,
        markersize=5,
        gid=f"{gid}-line",
    )
    low, high = [each.low for each in found], [each.high for each in found]
    axes.fill_between(numbers, low, high, color=ink, alpha=0.1, linewidth=0, gid=f"{gid}-band")
    return found[-1].mean
