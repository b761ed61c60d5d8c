"""How far above the best of its space a search ended, where an exhaustive search knows that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.records.run import RunRecord


def references_of(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs of exhaustive searches."""
    return [run for run in runs if run.reference and _hard(run)]


def regret(runs: Sequence[RunRecord], references: Sequence[RunRecord]) -> float | None:
    """The mean search loss of runs above the reference's, in nats; None where they do not compare.

    Only hard prompts of the reference's length come from the space that it searched. Where the
    reference ran with several seeds, each has examples of its own, and compares with its own runs.
    """
    each = [(run, _reference(run, references)) for run in runs]
    if any(
        run.reference or not _hard(run) or best is None or run.length != best.length
        for run, best in each
    ):
        return None
    losses = [(run.search.loss_fp32, best.search.loss_fp32) for run, best in each if best]
    return float(np.mean([own - least for own, least in losses]))


def _hard(run: RunRecord) -> bool:
    return run.winner.kind == "hard"


def _reference(run: RunRecord, references: Sequence[RunRecord]) -> RunRecord | None:
    """The reference of the least loss on the examples of a run; None where there is none."""
    several = len({each.seed for each in references}) > 1
    same = [each for each in references if each.seed == run.seed or not several]
    return min(same, key=lambda each: each.search.loss_fp32, default=None)
