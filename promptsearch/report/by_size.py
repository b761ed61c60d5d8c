"""The figure of a study of several models: the metric against the number of parameters.

It is figure 1 of Lester et al. (2021, "The Power of Scale for Parameter-Efficient Prompt Tuning",
arXiv:2104.08691), where tuning of the model, prompt tuning and prompt design are its lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from promptsearch.report.across import Line, TaskAcross
from promptsearch.report.against import Curve, against
from promptsearch.report.notation import short


def by_size(task: TaskAcross, prefix: str) -> str:
    """A figure of the mean test metric against model size, see `against`, whose part is `size`.

    A strategy that does not search is a dashed line, a reference is a dotted one.

    Args:
        task: A task on models of at least two sizes.
        prefix: The beginning of all ids, which makes them unique on a page with several figures.

    Returns:
        An `<svg>` element.
    """
    sizes = {model: size for model, size in task.models.items() if size}
    return against(
        [_curve(line, task, sizes) for line in task.lines],
        {size: short(size) for size in sorted(sizes.values())},
        task=task.name,
        part="size",
        number="parameters of the model",
        metric=task.scale.name,
        prefix=prefix,
        floor=task.floor,
    )


def _curve(line: Line, task: TaskAcross, sizes: Mapping[str, int]) -> Curve:
    metrics = [(sizes[name], line.rows[name].metric) for name in task.sized if name in line.rows]
    style: Literal["-", "--", ":"] = ":" if line.reference else "-" if line.searches else "--"
    return Curve(line.label, line.place, metrics, style)
