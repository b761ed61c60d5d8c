"""What the select split says of runs: which one stands for others, and which length of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.records.run import RunRecord
from promptsearch.records.study import StudyRecord
from promptsearch.report.measured import Scale


def selected(run: RunRecord, by: Scale | None) -> float:
    """What a run is chosen by among others, lower is better, on the select split."""
    if by is None:
        return run.select.loss
    return np.inf if run.select.metric is None else -by.sign * run.select.metric


def chosen_labels(runs: Sequence[RunRecord], study: StudyRecord, by: Scale | None) -> set[str]:
    """The labels that stand for their families."""
    values: dict[str, list[float]] = {}
    for run in runs:
        values.setdefault(run.label, []).append(selected(run, by))
    ranked = sorted(values, key=lambda label: float(np.mean(values[label])))
    # The best label of a family comes last and replaces the others.
    return set({study.family(label): label for label in reversed(ranked)}.values())
