"""What all figures share: the look, the colours, names beside lines, and SVG text.

The same data give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from promptsearch.report.notation import visible

Floats = NDArray[np.float64]

#: The colours of strategies, by their place in the study file; colour-blind eyes can tell the first
#: eight apart (Okabe and Ito, Tol).
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d1f", "#56b4e9"),
    *("#e69f00", "#882255", "#44aa99", "#332288", "#999933", "#555555"),
)

#: The settings of matplotlib. Their names have the type of a list of literals in some of its
#: versions, of strings in others, which is why this is a dictionary of anything.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and in the page's own font
    "text.parse_math": False,  # a label with two dollar signs is not a formula
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": "#9aa3b0",
    "axes.labelcolor": "#4a5361",
    "xtick.color": "#4a5361",
    "ytick.color": "#4a5361",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def colour(place: int) -> str:
    """The colour of the strategy at this place of the study file."""
    return COLOURS[place % len(COLOURS)]


def name_lines(
    axes: Axes, places: Sequence[int], names: Sequence[str], ends: Sequence[float], apart: float
) -> None:
    """Write each line's name at the right edge, near the height of its line.

    Args:
        axes: Where to write.
        places: The places of the strategies in the study file, for their colours.
        names: The names to write.
        ends: The heights at which the lines end, in the units of the data.
        apart: The least distance of two names, as a share of the figure's height.
    """
    low, high = axes.get_ylim()
    heights = spread((np.array(ends) - low) / (high - low), apart)
    for place, name, height in zip(places, names, heights, strict=True):
        axes.text(
            1.01,
            height,
            visible(name)[:24],
            transform=axes.transAxes,
            color=colour(place),
            va="center",
        )


def spread(heights: Floats, least: float) -> Floats:
    """Push labels apart.

    Args:
        heights: The heights where the labels should be, shape `(labels,)`.
        least: The distance that neighbours must have at least.

    Returns:
        The heights where they can be, in the same order; the sum of the squared shifts is least.
    """
    order = np.argsort(heights, kind="stable")
    steps = least * np.arange(len(heights))
    apart = np.empty_like(heights)
    apart[order] = isotonic_regression(heights[order] - steps).x + steps
    return apart


def svg(figure: Figure) -> str:
    """A figure as an `<svg>` element, its coordinates to two decimals."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = buffer.getvalue()
    # Its figcaption tells it, and its numbers stand in a table: a screen reader passes it over.
    text = text[text.index("<svg") :].replace("<svg", '<svg aria-hidden="true"', 1)
    # Only within tags: what stands between them is read, such as the numbers on an axis.
    return re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), text)
