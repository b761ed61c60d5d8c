"""A study: strategies x tasks x seeds under equal budgets, resumable, in one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from promptsearch.errors import FileError, RecordError
from promptsearch.export.winners import packed_winners
from promptsearch.files import exists, sweep
from promptsearch.models.endpoint.way import losses_of
from promptsearch.models.packaged import cache_folder
from promptsearch.models.protocol import TextModel
from promptsearch.records.cache import ScoreCache
from promptsearch.records.load import RESULT, load_kept
from promptsearch.records.run import FailedRecord, RunRecord
from promptsearch.study.cell import Cell
from promptsearch.study.events import Progress
from promptsearch.study.execution import in_process
from promptsearch.study.identity import settle
from promptsearch.study.lock import locked
from promptsearch.study.prepare import Prepared, prepare
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.task import Task


class Study:
    """Runs a study file in a folder.

    Args:
        config: The study.
        folder: Where everything lies.
        progress: Called at each step.
        report: Writes what a reader sees of the folder: called when the runs have ended, or were
            stopped.
    """

    def __init__(
        self,
        config: StudyConfig,
        folder: Path,
        progress: Callable[[Progress], None],
        report: Callable[[Path], object],
    ) -> None:
        self._config = config
        self._folder = folder
        self._progress = progress
        self._report = report

    def run(self, model: TextModel | None = None, task: Task | None = None) -> None:
        """Run what is not done yet, and report.

        Args:
            model: An LM that is loaded already.
            task: A task that is made already.

        Raises:
            PromptSearchError: Something is wrong with the input, or with the folder.
            EndpointDown: A server is gone; another call goes on from here.
        """
        self._tell("loading", f"loading {self._config.model}")
        prepared = prepare(self._config, model, task)
        if (served := prepared.lm.served) is not None:
            lm = prepared.lm
            self._tell("note", f"{lm.name}, behind {lm.device}: {losses_of(served)}")
        with locked(self._folder):
            sweep(self._folder)
            if prepared.prunings:
                self._tell("loading", "finding the words of most influence")
                prepared = prepared.pruned(self._folder)
            trouble = self._execute(prepared)
            if trouble.damage:
                self._report_if_possible()
                raise trouble.damage[0]
            self._report(self._folder)
            if trouble.down:
                raise trouble.down

    def _execute(self, prepared: Prepared) -> in_process.Trouble:
        record = settle(self._folder, prepared)
        kept = load_kept(self._folder, record)
        self._tell_what_is_lost(kept.values())
        runs = list(prepared.runs(self._folder))
        cells = [
            Cell(run, record, number, len(runs), self._progress, kept)
            for number, run in enumerate(runs, start=1)
        ]
        cache = ScoreCache(cache_folder() / "scores.sqlite")
        try:
            return in_process.execute(cells, cache)
        except KeyboardInterrupt:  # whoever stops a study sees what there is
            self._report_if_possible()
            raise
        finally:
            cache.close()

    def _tell_what_is_lost(self, kept: Iterable[RunRecord | FailedRecord]) -> None:
        """Say which finished runs of a slim record have a score, and no winner any more."""
        done = [run for run in kept if isinstance(run, RunRecord)]
        names = {f"{run.task}/{run.label}/seed{run.seed}" for run in done}
        lost = sorted(
            name
            for name in names - packed_winners(self._folder)
            if not exists(self._folder / name / RESULT)
        )
        if lost:
            self._tell(
                "note",
                f"{len(lost)} of {len(names)} runs in the slim record count as done, but without "
                f"their winners, which can be exported and started from no more: "
                f"{', '.join(lost[:8])}{', ...' if len(lost) > 8 else ''}",
            )

    def _report_if_possible(self) -> None:
        with suppress(RecordError, FileError):
            self._report(self._folder)

    def _tell(self, stage: str, message: str) -> None:
        self._progress(Progress("", 0, 0, stage, message=message))
