"""A study: strategies x tasks x seeds under equal budgets, resumable, in one folder."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from promptsearch.errors import FileError, PromptSearchError, RecordError, StudyError
from promptsearch.export.winners import packed_winners
from promptsearch.files import exists, sweep
from promptsearch.models.device import pick_device
from promptsearch.models.endpoint.way import losses_of
from promptsearch.models.packaged import cache_folder
from promptsearch.models.protocol import TextModel
from promptsearch.records.cache import ScoreCache
from promptsearch.records.load import RESULT, STUDY, load_kept, load_study
from promptsearch.records.run import FailedRecord, RunRecord
from promptsearch.records.sealed import write_record
from promptsearch.records.study import StudyRecord
from promptsearch.study.cell import Cell, cells_of
from promptsearch.study.events import Progress, told_to
from promptsearch.study.execution import in_process
from promptsearch.study.execution.cluster import Cluster, RayCarrier, connected
from promptsearch.study.execution.fleet import in_words, shown_by
from promptsearch.study.execution.in_process import Trouble
from promptsearch.study.execution.jobs import jobs_of
from promptsearch.study.execution.lease import elsewhere, owned
from promptsearch.study.execution.portable import portable
from promptsearch.study.execution.processes import Processes
from promptsearch.study.execution.replicas import Replicas, check_replicas
from promptsearch.study.execution.spread import Spread
from promptsearch.study.execution.wire import Order
from promptsearch.study.execution.workers import Carrier, Workers
from promptsearch.study.identity import beside, settle
from promptsearch.study.prepare import Prepared, prepare
from promptsearch.study.settings.study import StudyConfig
from promptsearch.study.share import check_room, share_of
from promptsearch.study.time_left import TimeLeft
from promptsearch.tasks.task import Task

log = logging.getLogger(__name__)

#: The seconds for which a shard waits until others have begun.
PATIENCE = 600.0
#: All cells in this process.
ALONE = Spread()


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
        self._left = TimeLeft()
        self._progress = told_to(self._left, progress)
        self._report = report

    def run(
        self, model: TextModel | None = None, task: Task | None = None, spread: Spread = ALONE
    ) -> None:
        """Run what is not done yet, and report; a shard leaves the report to a call without one.

        Args:
            model: An LM that is loaded already.
            task: A task that is made already.
            spread: Which processes make the cells.

        Raises:
            PromptSearchError: Something is wrong with the input, or with the folder.
            EndpointDown: A server is gone; another call goes on from here.
        """
        away = spread.workers or spread.ray
        if away and (model is not None or task is not None):
            raise StudyError(
                "workers load the model and the task by themselves and take no objects: name both "
                "in the study, or leave 'workers' out"
            )
        replicas = self._config.replicas or 0
        if self._config.device_map and (away or replicas > 1):
            raise StudyError(
                "'device_map' takes all GPUs of a machine for one model, and workers and replicas "
                "take one each: leave one of them out"
            )
        if replicas > 1 and (model is not None or task is not None):
            raise StudyError(
                "replicas load the model and the task by themselves and take no objects: name both "
                "in the study, or take 1 replica"
            )
        several = bool(replicas) or not spread.alone
        share = share_of(self._config, self._folder, several)
        with share.taken(), ExitStack() as stack:
            cluster = stack.enter_context(self._cluster(spread))
            self._tell("loading", f"loading {self._config.model}")
            prepared = prepare(self._config, model, task, share)
            lease = stack.enter_context(ExitStack())
            patience = 0.0 if spread.shard is None else PATIENCE
            lease.enter_context(owned(self._folder, "study", patience))
            settled = share_of(self._config, self._folder, several)
            if not share.begun and settled.differs(prepared.memory):
                self._tell("loading", "going by another process, which began the study meanwhile")
                stack.enter_context(settled.taken())
                prepared = prepare(self._config, prepared.lm, task, settled)
            if replicas:
                check_replicas(prepared.exact, prepared.memory, replicas, spread)
                hands = Replicas(self._order(prepared), 1 if away else replicas, shown_by(prepared))
                prepared = prepared.chunked(stack.enter_context(hands))
            if (served := prepared.lm.served) is not None:
                lm = prepared.lm
                self._tell("note", f"{lm.name}, behind {lm.device}: {losses_of(served)}")
            if not elsewhere(self._folder):
                sweep(self._folder)
            record, cells = self._cells(prepared, spread)
            self._tell_what_waits(cells)
            shown = {} if spread.alone else shown_by(prepared)
            if shown:
                self._tell("note", f"{spread}: {in_words(shown)}")
            if spread.shard is not None:
                lease.close()  # other shards may begin
            if away:
                if cluster is None:
                    check_room(prepared.exact, prepared.memory, spread.workers)
                order, jobs = self._order(prepared), jobs_of(cells)
                del prepared, cells  # the workers need the room of the model
                gc.collect()
                carrier, count = self._carrier(order, spread.workers, cluster)
                self._tell("loading", f"starting {min(count, len(jobs))} workers")
                behind, wanted = served is not None, {**shown, **record.versions}
                mixed = partial(self._note, spread) if spread.mixed else None
                workers = Workers(
                    carrier, count, self._progress, behind, wanted, self._left.expected, mixed
                )
                trouble = self._made(lambda: workers.execute(jobs))
            else:
                trouble = self._made_here(cells)
            if spread.shard is None and not trouble.damage:
                self._report(self._folder)
                self._tell("ended", "")
            elif trouble.damage:
                self._report_if_possible()
                raise trouble.damage[0]
            if trouble.down:
                raise trouble.down

    def _cells(self, prepared: Prepared, spread: Spread) -> tuple[StudyRecord, list[Cell]]:
        """The study's record, which its folder has once no cell is refused, and our cells."""
        if prepared.prunings:
            self._tell("loading", "finding the words of most influence")
            prepared = prepared.pruned(self._folder)
        record, others = settle(self._folder, prepared, spread)
        kept = load_kept(self._folder, record)
        cells = cells_of(list(prepared.runs(self._folder)), record, self._progress, kept)
        for cell in cells:
            cell.check()
        cells = spread.mine(cells)
        if others and not all(cell.done for cell in cells):
            record = self._noted(record, str(spread), others)
        write_record(self._folder / STUDY, "study", asdict(record))
        self._tell_what_is_lost(kept.values())
        return record, cells

    def _noted(self, record: StudyRecord, who: str, others: Mapping[str, str]) -> StudyRecord:
        """The record of the study with a process that has something otherwise; it is said, too."""
        told = f"{who} takes part with {in_words(others)}, unlike the process that began this study"
        log.warning("%s: %s says so", told, STUDY)
        return beside(record, others)

    def _note(self, spread: Spread, who: str, others: Mapping[str, str]) -> None:
        """Record a worker that has something otherwise."""
        owning = nullcontext() if spread.shard is None else owned(self._folder, "study", PATIENCE)
        with owning:  # which a call that is no shard does all the time
            record = self._noted(load_study(self._folder), who, others)
            write_record(self._folder / STUDY, "study", asdict(record))

    def _cluster(self, spread: Spread) -> AbstractContextManager[Cluster | None]:
        """A context with the cluster whose machines make the cells, where there is one."""
        if spread.ray is None:
            return nullcontext()
        gpu = pick_device(self._config.device).type == "cuda"
        return connected(spread.ray, torch.get_num_threads(), gpu, spread.workers)

    def _order(self, prepared: Prepared) -> Order:
        """What workers are told."""
        config = self._config
        return Order(
            settings=config.model_dump(mode="json"),
            home=str(config.folder.absolute()),
            folder=str(self._folder.absolute()),
            threads=torch.get_num_threads(),
            memory=prepared.memory,
            path=list(sys.path),
        )

    def _carrier(self, order: Order, workers: int, cluster: Cluster | None) -> tuple[Carrier, int]:
        """What workers run on, and how many they are."""
        if cluster is None:
            return Processes(order), workers
        settings, files = portable(self._config)
        order = replace(order, settings=settings)
        return RayCarrier(cluster, order, self._folder, files), workers or cluster.room()

    def _made_here(self, cells: Sequence[Cell]) -> Trouble:
        """Make cells in this process."""
        cache = ScoreCache(cache_folder() / "scores.sqlite")
        try:
            return self._made(lambda: in_process.execute(cells, self._folder, cache))
        finally:
            cache.close()

    def _made(self, make: Callable[[], Trouble]) -> Trouble:
        try:
            return make()
        except (KeyboardInterrupt, PromptSearchError):  # whoever stops it sees what there is
            self._report_if_possible()
            raise

    def _tell_what_waits(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self._progress(cell.waiting)

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
