"""A study: strategies x tasks x seeds under equal budgets, resumable, in one folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from promptsearch.errors import (
    EndpointDown,
    FileError,
    PromptError,
    PromptSearchError,
    RecordError,
    StudyError,
    Tampered,
)
from promptsearch.export.winners import packed_winners
from promptsearch.files import exists, failing, make_folder, read, remove, shown, sweep
from promptsearch.models.endpoint.way import losses_of
from promptsearch.models.packaged import cache_folder
from promptsearch.models.protocol import TextModel
from promptsearch.plain.json import parse_json
from promptsearch.records.cache import ScoreCache
from promptsearch.records.load import (
    RESULT,
    RUN,
    STUDY,
    load_begun,
    load_kept,
    load_run,
    load_study,
)
from promptsearch.records.provenance import commit, machine, own_version, versions
from promptsearch.records.run import (
    BeginningRecord,
    BegunRecord,
    FailedRecord,
    RunRecord,
    ScoreRecord,
    SettingsRecord,
)
from promptsearch.records.sealed import write_record
from promptsearch.records.signature import short_signature, signature
from promptsearch.records.study import ModelRecord, SplitRecord, StudyRecord, TaskRecord
from promptsearch.search.books import Books
from promptsearch.study.calibration import measure_noise
from promptsearch.study.prepare import Prepared, prepare
from promptsearch.study.publish import export_again, export_winner, winner_of
from promptsearch.study.run import Arena, Beginning, Run
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a study stands.

    Args:
        run: `task/label/seed0`.
        number: The run's number, from 1.
        total: Runs in the study.
        stage: `loading`, `search`, `select`, `test`, `done` or `failed`; `note` says something that
            stays on the screen.
        best: Lowest mean loss so far in nats.
        spent: LM tokens.
        budget: LM tokens; None before the run has one.
        seconds: The time of this run so far, in seconds.
        message: For people: what is loading, or why the run failed.
    """

    run: str
    number: int
    total: int
    stage: str
    best: float | None = None
    spent: int = 0
    budget: int | None = None
    seconds: float = 0.0
    message: str = ""


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
        #: What is wrong with the folders of single runs.
        self._damage: list[FileError | RecordError] = []

    def run(self, model: TextModel | None = None, task: Task | None = None) -> None:
        """Run what is not done yet, and report."""
        self._progress(Progress("", 0, 0, "loading", message=f"loading {self._config.model}"))
        prepared = prepare(self._config, model, task)
        if prepared.lm.served:
            told = (
                f"{prepared.lm.name}, behind {prepared.lm.device}: {losses_of(prepared.lm.served)}"
            )
            self._progress(Progress("", 0, 0, "note", message=told))
        with self._locked():
            sweep(self._folder)
            if prepared.prunings:
                self._progress(
                    Progress("", 0, 0, "loading", message="finding the words of most influence")
                )
                prepared = prepared.pruned(self._folder)
            self._settle(self._about(prepared), prepared)
            cache = ScoreCache(cache_folder() / "scores.sqlite")
            down: EndpointDown | None = None
            try:
                runs = list(prepared.runs(self._folder))
                for number, run in enumerate(runs, start=1):
                    try:
                        self._guarded(run, cache, number, len(runs))
                    except (
                        EndpointDown
                    ) as error:  # this run goes on in a later call; others may need no server
                        down = error
                        if prepared.lm.served:
                            break
            except KeyboardInterrupt:  # whoever stops a study sees what there is
                with suppress(RecordError, FileError):
                    self._report(self._folder)
                raise
            finally:
                cache.close()
            if self._damage:
                with suppress(RecordError, FileError):
                    self._report(self._folder)
                raise self._damage[0]
            self._report(self._folder)
            if down:
                raise down

    # Before the first token is spent.

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self._folder)
        path = self._folder / ".lock"
        lock = FileLock(path)
        with failing(path, "lock"):
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise StudyError(
                    f"another process works on the study in {shown(self._folder)}{_holder(path)}: "
                    "wait for it, or name another folder with --out"
                ) from error
        try:
            with failing(path, "write"):  # in place: the lock is on this very file
                path.write_text(
                    json.dumps(
                        {"process": os.getpid(), "machine": platform.node(), "since": _now()}
                    ),
                    "utf-8",
                )
            yield
        finally:
            lock.release()

    def _about(self, prepared: Prepared) -> StudyRecord:
        """What `study.json` holds, noise and signature left open."""
        config, lm = self._config, prepared.lm
        return StudyRecord(
            name=config.name,
            version=own_version(),
            commit=commit(),
            settings=config.model_dump(mode="json"),
            model=ModelRecord(
                name=lm.name,
                hash=prepared.exact.hash,
                tokenizer_hash=lm.tokenizer_hash,
                parameters=lm.parameters,
                source=str(lm.device if lm.served else config.model),
                served=lm.served,
            ),
            dtype=str(prepared.dtype).removeprefix("torch."),
            device=str(lm.device),
            memory=prepared.memory,
            race=config.race,
            machine=machine(),
            versions=versions(),
            budget=config.budget,
            seeds=list(config.seeds),
            score_on=config.score_on,
            max_seconds=config.max_seconds,
            strategies=[entry.given.label for entry in prepared.entries],
            families={
                entry.given.label: entry.family
                for entry in prepared.entries
                if entry.family != entry.given.label
            },
            tasks={task.name: _about_task(task, prepared.arena(task)) for task in prepared.tasks},
            signature="",
        )

    def _settle(self, about: StudyRecord, prepared: Prepared) -> None:
        """Compare with what the folder holds, and write `study.json`.

        New strategies, seeds and tasks extend a study.
        """
        path = self._folder / STUDY
        known: Collection[str] = ()
        if not exists(path) and (lost := next(self._folder.glob(f"*/*/seed*/{RUN}"), None)):
            raise RecordError(
                f"{shown(path)} is missing, and {shown(lost)} tells of a run of an earlier call: "
                "restore it from a copy, or name another folder with --out"
            )
        if exists(path):
            before = load_study(self._folder)
            try:
                differing = list(_differences(before, about))
            except (KeyError, TypeError, AttributeError) as error:
                raise RecordError(
                    f"{shown(path)} lacks what it should hold ({error!r}): restore it, or name "
                    "another folder with --out"
                ) from error
            if differing:
                key, old, new = differing[0]
                raise StudyError(
                    f"{self._folder} holds runs made with other settings: {key} was {old}, now it "
                    f"is {new}. Name another folder with --out. New strategies, seeds, tasks and "
                    "lengths of a sweep may "
                    "be added."
                )
            about, known = _extended(before, about), before.tasks
        measured = {
            task.name: replace(about.tasks[task.name], noise=measure_noise(prepared.arena(task)))
            for task in prepared.tasks
            if task.name not in known
        }
        about = replace(about, tasks=about.tasks | measured)
        self._shared = replace(about, signature=signature(about))
        self._kept = load_kept(self._folder, self._shared)
        self._tell_what_is_lost()
        write_record(path, "study", asdict(self._shared))

    def _tell_what_is_lost(self) -> None:
        """Say which finished runs of a slim record have a score, and no winner any more."""
        done = [run for run in self._kept.values() if isinstance(run, RunRecord)]
        names = {f"{run.task}/{run.label}/seed{run.seed}" for run in done}
        lost = sorted(
            name
            for name in names - packed_winners(self._folder)
            if not exists(self._folder / name / RESULT)
        )
        if lost:
            told = (
                f"{len(lost)} of {len(names)} runs in the slim record count as done, but without "
                f"their winners, which can be exported and started from no more: "
                f"{', '.join(lost[:8])}{', ...' if len(lost) > 8 else ''}"
            )
            self._progress(Progress("", 0, 0, "note", message=told))

    # The runs.

    def _guarded(self, run: Run, cache: ScoreCache, number: int, total: int) -> None:
        """Make a run.

        A damaged folder costs only this run, and is told when the others have ended.
        """
        try:
            self._execute(run, cache, number, total)
        except (FileError, RecordError) as error:
            if isinstance(error, FileError) and error.everywhere:
                raise
            name = f"{run.arena.task.name}/{run.label}/seed{run.seed}"
            log.warning("%s: %s", name, error)
            self._damage.append(error)
            self._progress(Progress(name, number, total, "failed", message=str(error)))

    def _execute(self, run: Run, cache: ScoreCache, number: int, total: int) -> None:
        name = f"{run.arena.task.name}/{run.label}/seed{run.seed}"
        path = run.folder / RESULT
        ended = self._ended(run)
        done = ended if isinstance(ended, RunRecord) else None
        try:
            start = None if run.source is None else self._winner_of(run.source)
        except (StudyError, PromptError) as error:
            if not done:
                self._failed(run, error, name, number, total)
            return
        settings = run.settings(start)
        if (
            exists(run.folder / "evaluations.jsonl") or done
        ):  # a run that failed before may be corrected
            self._check_settings(run.folder, settings, done)
        if done:
            export_again(run.arena, done, run.folder)
            self._progress(
                Progress(
                    name, number, total, "done", budget=run.budget, message="in an earlier call"
                )
            )
            return
        write_record(
            run.folder / RUN,
            "run",
            asdict(BegunRecord(settings, versions(), machine())),
        )
        begin = time.monotonic()

        def listener(stage: str, books: Books) -> None:
            best = books.ranking[0].value if books.ranking else None
            spent = books.ledger.spent
            self._progress(
                Progress(
                    name, number, total, stage, best, spent, run.budget, time.monotonic() - begin
                )
            )

        try:
            result, winner = run.execute(cache, listener, start)
            signed = short_signature(self._shared, result.task, run.bill)
            result = export_winner(run.arena, winner, replace(result, signature=signed), run.folder)
        except (
            RecordError,
            FileError,
            EndpointDown,
        ):  # no fault of the run: what is there stays, and it goes on later
            raise
        except PromptSearchError as error:
            self._failed(run, error, name, number, total)
            if isinstance(error, Tampered):
                _discard(
                    run.folder, "evaluations.jsonl", "proposals.jsonl"
                )  # losses of a model that was not the right one
                if not error.mended:
                    raise
            return
        write_record(path, "result", asdict(result))
        _discard(run.folder)
        self._progress(
            Progress(
                name,
                number,
                total,
                "done",
                result.search.loss,
                result.spent,
                run.budget,
                result.seconds,
            )
        )

    def _failed(
        self, run: Run, error: PromptSearchError, name: str, number: int, total: int
    ) -> None:
        log.warning("%s failed: %s", name, error)
        write_record(run.folder / RESULT, "result", asdict(run.failed(error)))
        self._progress(Progress(name, number, total, "failed", message=str(error)))

    def _ended(self, run: Run) -> RunRecord | FailedRecord | None:
        """How a run ended, by its folder or the study's slim record; None where it did not."""
        if exists(run.folder / RESULT):
            return load_run(run.folder / RESULT, self._shared)
        return self._kept.get((run.arena.task.name, run.label, run.seed))

    @staticmethod
    def _check_settings(folder: Path, settings: SettingsRecord, ended: RunRecord | None) -> None:
        """See that a run is gone on with as it was begun.

        Args:
            folder: The run's folder.
            settings: The settings as they are now.
            ended: How it ended before, where it did: that tells its settings, too.
        """
        if exists(folder / RUN):
            before = load_begun(folder / RUN).settings
        elif ended is not None:  # all but the length of its prompts, and what it started from
            before = replace(ended.told(settings.length), start=settings.start)
        else:
            return
        told = asdict(before)
        # As it would be read back: tuples are lists.
        for key, value in json.loads(json.dumps(asdict(settings))).items():
            if told[key] != value:
                raise StudyError(
                    f"{folder} holds a run made with other settings: {key} was "
                    f"{told[key]!r}, now it is {value!r}. Give the row another label, or "
                    "name another folder with --out."
                )

    def _winner_of(self, run: Run) -> Beginning:
        """What another run starts from: the winner of a finished one.

        Raises:
            StudyError: The run failed.
            PromptError: Its prompt is missing or damaged.
            RecordError: Its result is damaged.
        """
        ended = self._ended(run)
        if not isinstance(ended, RunRecord):
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
        return Beginning(
            prompt,
            BeginningRecord(
                run=run.label,
                seed=run.seed,
                key=ended.winner.key,
                kind=ended.winner.kind,
                text=ended.winner.text,
                spent=ended.spent,
                select=ScoreRecord(ended.select.loss, ended.select.metric),
                test=ScoreRecord(ended.test.loss, ended.test.metric),
            ),
        )


def _holder(path: Path) -> str:
    """Who holds a lock, and since when, as far as its file tells."""
    try:
        told = parse_json(read(path, 1 << 12))
        process, node, since = (str(told[key])[:80] for key in ("process", "machine", "since"))
    except (FileError, ValueError, KeyError, TypeError):
        return ""
    return (
        f" (process {process} on {node}, since {since})"
        if f"{process}{node}{since}".isprintable()
        else ""
    )


def _now() -> str:
    return datetime.now().astimezone().isoformat(" ", "seconds")


def _discard(folder: Path, *more: str) -> None:
    """Delete a run's checkpoint, which is large and not needed any more, and other files of it."""
    for name in ("state.safetensors", "finalists", *more):
        remove(folder / name)


def _label(row: dict[str, dict[str, Any]]) -> str:
    """The label of a row of the study file, as the settings hold it."""
    return str(next(iter(row.values()))["label"])


def _about_task(task: Task, arena: Arena) -> TaskRecord:
    answers = [e.answer for e in task.splits["test"].examples]
    return TaskRecord(
        kind=task.kind,
        template=task.template.shown,
        metric=task.metric,
        splits={name: SplitRecord(len(split), split.hash) for name, split in task.splits.items()},
        choices=None if task.choices is None else list(task.choices),
        majority=max(answers.count(a) for a in set(answers)) / len(answers),
        pool=len(arena.space.pool),
        pool_hash=hashlib.sha256(arena.space.pool.tobytes()).hexdigest()[:20],
        pool_made=arena.pool.made,
        pool_price=arena.pool.price,
        score_on=arena.score_on,
        notes=tuple(task.notes),
        noise=None,
    )


def _extended(before: StudyRecord, now: StudyRecord) -> StudyRecord:
    """A study with the strategies, seeds, tasks and lengths that are new.

    Where it was made, and what was measured then, stays.
    """
    settings = {_label(row): row for row in before.settings["strategies"]}
    settings |= {_label(row): row for row in now.settings["strategies"]}
    seeds = sorted({*before.seeds, *now.seeds})
    grown: dict[str, Any] = {"strategies": list(settings.values()), "seeds": seeds}
    if isinstance(length := now.settings["length"], list):
        grown["length"] = sorted({*before.settings["length"], *length})
    known = {
        name: replace(now.tasks.get(name, task), noise=task.noise)
        for name, task in before.tasks.items()
    }
    return replace(
        now,
        strategies=list(dict.fromkeys([*before.strategies, *now.strategies])),
        families={**before.families, **now.families},
        seeds=seeds,
        tasks={**known, **{name: task for name, task in now.tasks.items() if name not in known}},
        settings=now.settings | grown,
        commit=before.commit,
        machine=before.machine,
        versions=before.versions,
        memory=before.memory,
    )


def _differences(before: StudyRecord, now: StudyRecord) -> Iterator[tuple[str, Any, Any]]:
    """Settings that may not change within a folder: key, old, new."""
    for key in ("budget", "score_on", "dtype", "max_seconds"):
        if (old := getattr(before, key)) != (new := getattr(now, key)):
            yield key, old, new
    for key in ("hash", "tokenizer_hash"):
        if (old := getattr(before.model, key)) != (new := getattr(now.model, key)):
            yield f"the model's {key}", old, new
    for key in ("length", "pool", "race"):
        old, new = before.settings[key], now.settings[key]
        if old != new and not (
            isinstance(old, list) and isinstance(new, list) and key == "length"
        ):  # a sweep may grow
            yield key, old, new
    if (old := before.settings["proposer"]) != (new := now.settings["proposer"]):
        yield "proposer", old, new
    for name, task in now.tasks.items():
        known = before.tasks.get(name, task)
        old, new = asdict(known), asdict(task)
        for key in ("template", "metric", "splits", "choices"):
            if old[key] != new[key]:
                yield f"task '{name}', {key}", old[key], new[key]
        if known.pool_hash != task.pool_hash:  # the words of a pool's file may change
            yield (
                f"task '{name}', the pool",
                f"of {known.pool} tokens",
                f"of {task.pool} others",
            )
