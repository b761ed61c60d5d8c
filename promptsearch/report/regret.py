"""How far above the best of its space a search ended, where an exhaustive search knows that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.records.run import RunRecord


def reference_of(runs: Sequence[RunRecord]) -> RunRecord | None:
    """The run of an exhaustive search that found the least loss; None where there is none."""
    lines = [run for run in runs if run.reference and run.winner.kind == "hard"]
    return min(lines, key=lambda run: run.search.loss_fp32, default=None)


def regret(runs: Sequence[RunRecord], reference: RunRecord | None) -> float | None:
    """The mean search loss of runs above the reference's, in nats; None where they do not compare.

    Only hard prompts of the reference's length come from the space that it searched.
    """
    if reference is None or any(
        run.reference or run.winner.kind != "hard" or run.length != reference.length for run in runs
    ):
        return None
    return float(np.mean([run.search.loss_fp32 - reference.search.loss_fp32 for run in runs]))
