"""A cell of a study: one run in its folder, made, gone on with, or found done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any

from promptsearch.errors import (
    EndpointDown,
    FileError,
    PromptError,
    PromptSearchError,
    RecordError,
    StudyError,
    Tampered,
)
from promptsearch.files import exists, remove, shown
from promptsearch.records.begun import BegunRecord
from promptsearch.records.cache import ScoreCache
from promptsearch.records.load import RESULT, RUN, Name, load_begun, load_run
from promptsearch.records.provenance import machine, versions
from promptsearch.records.run import (
    FailedRecord,
    RunRecord,
    SettingsRecord,
    StartRecord,
)
from promptsearch.records.sealed import as_read, write_record
from promptsearch.records.signature import short_signature
from promptsearch.records.study import StudyRecord
from promptsearch.search.books import Books
from promptsearch.search.options import deciding
from promptsearch.study.events import Progress
from promptsearch.study.publish import export_again, export_winner, winner_of
from promptsearch.study.run import Beginning, Run
from promptsearch.study.run_facts import begun_facts, done_facts, waiting_facts

log = logging.getLogger(__name__)

#: The logs in a run's folder.
EVALUATIONS, PROPOSALS = "evaluations.jsonl", "proposals.jsonl"


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        run: The run.
        study: The study, as its folder has it.
        number: The run's number, from 1.
        total: The number of runs in the study.
        listener: Called at each step.
        kept: How the runs of the study's slim record ended, by task, label and seed.
    """

    run: Run
    study: StudyRecord
    number: int
    total: int
    listener: Callable[[Progress], None]
    kept: Mapping[Name, RunRecord | FailedRecord]

    @property
    def name(self) -> str:
        """The run's folder in that of the study: `task/label/seed0`."""
        return f"{self.run.arena.task.name}/{self.run.label}/seed{self.run.seed}"

    @property
    def at(self) -> Progress:
        """The cell's place among the others."""
        return Progress(self.name, self.number, self.total, "failed")

    @property
    def waiting(self) -> Progress:
        """The cell as one that is to be made."""
        facts = waiting_facts(self.run)
        return replace(self.at, stage="waiting", budget=self.run.budget, facts=facts)

    @property
    def done(self) -> bool:
        """Whether an earlier call made it."""
        with suppress(RecordError):
            return isinstance(self._ended(self.run), RunRecord)
        return False

    def check(self) -> None:
        """See that the run may be gone on with, before anything is made or written.

        The key of the winner that it starts from is seen when it begins, and so is damage in its
        folder.

        Raises:
            StudyError: The folder holds a run made with other settings.
        """
        with suppress(RecordError):
            ended = self._ended(self.run)
            done = ended if isinstance(ended, RunRecord) else None
            if self._fixed(done):
                settings = self.run.settings(None)
                if (source := self.run.source) is not None:
                    named = StartRecord(source.label, source.seed, "", task=self._task_of(source))
                    settings = replace(settings, start=named)
                self._check_settings(settings, done)

    def execute(self, cache: ScoreCache) -> None:
        """Make the run, or go on with it; one that is done stays as it is.

        A run that fails is recorded as failed. One whose source has not ended stays as it is: a
        later call makes both.

        Args:
            cache: Scores of earlier runs.

        Raises:
            RecordError: The run's folder is damaged, or its run started from another winner.
            FileError: A file cannot be read or written.
            EndpointDown: A server is gone; another call goes on from here.
            StudyError: The folder holds a run made with other settings.
            Tampered: The strategy changed what is not its own, and it could not be mended.
        """
        run, ended = self.run, self._ended(self.run)
        done = ended if isinstance(ended, RunRecord) else None
        try:
            start = None
            if run.source is not None and (start := self._winner_of(run.source)) is None:
                return
        except (StudyError, PromptError) as error:
            if not done:
                self._fail(error)
            return
        settings = run.settings(start)
        if self._fixed(done):
            self._check_settings(settings, done)
        elif exists(run.folder / PROPOSALS) and self._differing(settings, done):
            self._discard(PROPOSALS)  # they answer what would not be asked now
        told = begun_facts(settings, run.arena.task.name, self.study)
        if done:
            self._discard()  # a kill after the result left it
            export_again(run.arena, done, run.folder)
            self._tell("done", message="in an earlier call", facts=done_facts(done, told))
            return
        begun, logs = BegunRecord(settings, versions(), machine()), (EVALUATIONS, PROPOSALS)
        if exists(run.folder / RUN) and any(exists(run.folder / name) for name in logs):
            begun = begun.after(load_begun(run.folder / RUN))
        # Other code may refuse to go on with a log: it still says then which code wrote it.
        note = once(partial(write_record, run.folder / RUN, "run", asdict(begun)))
        if not exists(run.folder / EVALUATIONS):
            note()
        self._tell("begun", facts=told)
        self._make(start, cache, told, note)

    def _make(
        self,
        start: Beginning | None,
        cache: ScoreCache,
        told: Mapping[str, Any],
        note: Callable[[], None],
    ) -> None:
        """Search, select, test, export, and write the result; `note` once the log is replayed."""
        run, begin = self.run, time.monotonic()

        def listener(stage: str, books: Books) -> None:
            if not books.log.replaying:
                note()
            best = books.ranking[0].value if books.ranking else None
            spent = books.ledger.spent - books.ledger.brought
            self._tell(stage, best, spent, time.monotonic() - begin)

        try:
            result, winner = run.execute(cache, listener, start)
            note()
            signed = short_signature(self.study, result.task, run.bill)
            result = export_winner(run.arena, winner, replace(result, signature=signed), run.folder)
        except (RecordError, FileError, EndpointDown):
            raise  # no fault of the run: what is there stays, and it goes on later
        except PromptSearchError as error:
            self._fail(error)
            if isinstance(error, Tampered):
                # Losses of a model that was not the right one.
                self._discard(EVALUATIONS, PROPOSALS)
                if not error.mended:
                    raise
            return
        write_record(run.folder / RESULT, "result", asdict(result))
        self._discard()
        spent, facts = result.spent - result.ledger.brought, done_facts(result, told)
        self._tell("done", result.search.loss, spent, result.seconds, facts=facts)

    def _fail(self, error: PromptSearchError) -> None:
        record_failure(self.run.folder, self.run.failed(error), self.at, self.listener)

    def _tell(
        self,
        stage: str,
        best: float | None = None,
        spent: int = 0,
        seconds: float = 0.0,
        message: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        here = replace(self.at, stage=stage, budget=self.run.budget, message=message)
        if (follows := self.run.arena.follows) is not None:
            here = replace(here, aim=follows.name)
            if best is not None and follows.higher_is_better:
                best = -best  # a search minimises minus the metric
        self.listener(replace(here, best=best, spent=spent, seconds=seconds, facts=facts or {}))

    def _discard(self, *more: str) -> None:
        """Delete the checkpoint, which is large and not needed any more, and other files."""
        for name in ("state.safetensors", "finalists", *more):
            remove(self.run.folder / name)

    def _ended(self, run: Run) -> RunRecord | FailedRecord | None:
        """How a run ended, by its folder or the study's slim record; None where it did not."""
        if exists(run.folder / RESULT):
            return load_run(run.folder / RESULT, self.study)
        return self.kept.get((run.arena.task.name, run.label, run.seed))

    def _fixed(self, done: RunRecord | None) -> bool:
        """Whether the settings may not change; a run that failed before may be corrected."""
        return done is not None or exists(self.run.folder / EVALUATIONS)

    def _check_settings(self, settings: SettingsRecord, done: RunRecord | None) -> None:
        """See that the run is gone on with as it was begun.

        Args:
            settings: The settings as they are now; an empty key of what it starts from is not
                known yet.
            done: How it ended before, where it did: that tells its settings, too.

        Raises:
            StudyError: It was begun with other settings.
            RecordError: It started from another winner, which concerns no other run.
        """
        if not (differing := self._differing(settings, done)):
            return
        key, old, new = differing
        if key == "start" and old and new and {**old, "key": new["key"]} == new:
            # The study file is what it was: it is the other run that was made again.
            raise RecordError(
                f"{shown(self.run.folder)} holds a run that started from the prompt {old['key']} "
                f"of '{new['run']}' with seed {new['seed']}, which is won by {new['key']} now: "
                "restore that run, or delete this folder, and the run is made anew"
            )
        raise StudyError(
            f"{self.run.folder} holds a run made with other settings: {key} was {old!r}, now "
            f"it is {new!r}. Give the row another label, or name another folder with --out."
        )

    def _differing(
        self, settings: SettingsRecord, done: RunRecord | None
    ) -> tuple[str, Any, Any] | None:
        """The first setting that is another one than the run was begun with: key, old, new.

        Where it writes besides its folder changes no number, and may be another place.
        """
        if exists(self.run.folder / RUN):
            before = load_begun(self.run.folder / RUN).settings
        elif done is not None:  # all but the length of its prompts, and what it started from
            before = replace(done.told(settings.length), start=settings.start)
        else:
            return None
        told, now = asdict(before), as_read(asdict(settings))
        for each in (told, now):
            each["options"] = deciding(self.run.strategy, each["options"])
        if before.start is not None and settings.start is not None and not settings.start.key:
            told["start"]["key"] = ""
        return next(((key, told[key], new) for key, new in now.items() if told[key] != new), None)

    def _task_of(self, source: Run) -> str | None:
        """The task of the run that it starts from; None where it is its own."""
        name = source.arena.task.name
        return None if name == self.run.arena.task.name else name

    def _winner_of(self, run: Run) -> Beginning | None:
        """What another run starts from: the winner of a finished one; None where it has not ended.

        Raises:
            StudyError: The run failed.
            PromptError: Its prompt is missing or damaged.
            RecordError: Its result is damaged.
        """
        ended = self._ended(run)
        if ended is None:
            return None
        if isinstance(ended, FailedRecord):
            raise StudyError(
                f"the run that it starts from, '{run.label}' with seed {run.seed}, failed: mend "
                "that one first"
            )
        prompt = winner_of(run.folder, ended)
        if (
            prompt.key != ended.winner.key and not run.arena.lm.served
        ):  # a server was sent another form of it
            raise PromptError(
                f"{shown(run.folder / 'best')} holds the prompt {prompt.key}, and the run was won "
                f"by {ended.winner.key}: restore it, or delete {RESULT} beside it, and the run "
                "ends again from its log"
            )
        return Beginning(prompt, ended.as_beginning(self.run.arena.task.name))


def record_failure(
    folder: Path, failed: FailedRecord, at: Progress, listener: Callable[[Progress], None]
) -> None:
    """Write that a run failed, and tell it.

    Args:
        folder: The run's folder.
        failed: What is written.
        at: The run's place among the others.
        listener: Is told.
    """
    log.warning("%s failed: %s", at.run, failed.error)
    write_record(folder / RESULT, "result", asdict(failed))
    listener(replace(at, message=failed.error))


def cells_of(
    runs: Sequence[Run],
    study: StudyRecord,
    listener: Callable[[Progress], None],
    kept: Mapping[Name, RunRecord | FailedRecord],
) -> list[Cell]:
    """The cells of all runs of a study, each after the one that it starts from.

    Args:
        runs: The runs, in this order.
        study: The study, as its folder has it.
        listener: Called at each step.
        kept: How the runs of the study's slim record ended.
    """
    return [Cell(run, study, at, len(runs), listener, kept) for at, run in enumerate(runs, 1)]
