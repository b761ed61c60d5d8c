"""Everything that a study found, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptsearch.records.explained import ExplainedRecord
from promptsearch.records.headroom import StudyHeadroomRecord
from promptsearch.records.run import FailedRecord, RunRecord
from promptsearch.records.study import StudyRecord


@dataclass(frozen=True)
class Results:
    """Everything that a report is made of.

    Args:
        folder: The study's folder.
        study: What its runs share.
        runs: Finished, in the order of tasks, strategies and seeds.
        failed: Failed, in the same order.
        unfinished: Task, label and seed of the runs that are still to be made, of those that the
            last call asked for.
        trust_code: Whether the modules that the study names as metrics may be imported.
        explained: What makes hard winners win; None where nobody asked.
        headroom: What searches were expected to gain; None where nobody looked.
    """

    folder: Path
    study: StudyRecord
    runs: tuple[RunRecord, ...]
    failed: tuple[FailedRecord, ...]
    unfinished: tuple[tuple[str, str, int], ...]
    trust_code: bool = False
    explained: ExplainedRecord | None = None
    headroom: StudyHeadroomRecord | None = None

    @property
    def failing(self) -> tuple[FailedRecord, ...]:
        """The failed runs that the last call asked for."""
        wants = self.study.wants
        return tuple(run for run in self.failed if wants(run.task, run.label, run.seed))
