"""Workers on the machines of a Ray cluster.

Plain actors: Ray's own retries and restarts would not know what a run's log knows. Each actor is a
`Post`, which keeps the same worker process as on one machine. The study's own process holds the
leases of cells and is the only one that writes into the study's folder: it needs no other machine
to see that. An actor dies with the process that made it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptsearch.errors import PromptSearchError, StudyError
from promptsearch.files import cut, failing, read
from promptsearch.study.execution.fleet import in_words
from promptsearch.study.execution.jobs import Job
from promptsearch.study.execution.lease import LEASES, Lease
from promptsearch.study.execution.mirror import Change, apply, contents
from promptsearch.study.execution.post import Post
from promptsearch.study.execution.wire import Order, told_end
from promptsearch.study.execution.workers import Tell, Worker
from promptsearch.study.settings.execution import RayConfig

log = logging.getLogger(__name__)

#: The seconds in which a head must answer, in which resources must be had where there are none
#: yet, in which an actor must be placed, and in which it must end.
_ANSWER, _FREE, _PLACED, _END = 5.0, 10.0, 30.0, 10.0
#: The endings of the files of a study's folder that all cells need, and of no report.
_RECORDS = (".json", ".csv", ".parquet", ".safetensors")


@dataclass
class Cluster:
    """A Ray cluster that this process is connected to.

    Args:
        ray: The library.
        asked: What each worker takes, by the names of Ray's resources.
    """

    ray: Any
    asked: Mapping[str, float]

    def room(self) -> int:
        """How many workers it holds, if it has nothing else to do."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(_times(self.asked, node) for node in nodes)

    def free(self) -> int:
        """How many workers there is room for now."""
        return _times(self.asked, self.ray.available_resources())

    def refusal(self, what: str, workers: int = 0) -> StudyError:
        """The error that says what was asked for, and what is there."""
        there = [
            f"{node['NodeManagerHostname']} {_shown(node['Resources'])}"
            for node in self.ray.nodes()
            if node["Alive"]
        ]
        asked = f"{workers or 'any number of'} workers with {_shown(self.asked)} each"
        return StudyError(
            f"the Ray cluster {what}. Asked for: {asked}. There: {'; '.join(there) or 'no node'}. "
            "Ask for fewer with --workers, for less under execution.ray, or start more nodes"
        )


def _times(asked: Mapping[str, float], there: Mapping[str, float]) -> int:
    """How often a demand fits into what is there."""
    return int(min(there.get(name, 0.0) / amount + 1e-9 for name, amount in asked.items()))


def _shown(resources: Mapping[str, float]) -> str:
    plain = {name: n for name, n in resources.items() if not name.startswith(("node:", "object_"))}
    return ", ".join(f"{n:g} {name}" for name, n in sorted(plain.items())) or "nothing"


@contextmanager
def connected(config: RayConfig, threads: int, gpu: bool, workers: int) -> Iterator[Cluster]:
    """A context with a Ray cluster that has room for some workers.

    Args:
        config: The cluster, and what each worker takes of it.
        threads: The threads of each worker.
        gpu: Whether the study computes on GPUs.
        workers: How many there are to be; 0: as many as there is room for.

    Raises:
        StudyError: Ray is not installed, or the cluster cannot be reached, or is too small.
    """
    try:
        import ray
    except ImportError as error:
        raise StudyError(
            "a Ray cluster is asked for, and Ray is not installed: install it as "
            "'promptsearch-kit[ray]', on this machine and all others of the cluster"
        ) from error
    gpus = config.num_gpus if config.num_gpus is not None else float(gpu)
    asked = {"CPU": config.num_cpus or float(threads), **config.resources}
    cluster = Cluster(ray, asked | ({"GPU": gpus} if gpus else {}))
    mine = not ray.is_initialized()  # else whoever did it goes on with it
    if mine:
        _connect(ray, config.address)
    try:
        if (room := cluster.room()) < max(1, workers):
            raise cluster.refusal(f"has room for {room}", workers)
        yield cluster
    finally:
        if mine:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    if host:  # Ray itself asks for minutes
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
        except OSError as error:
            raise StudyError(
                f"the Ray cluster at {address} does not answer ({error}): start its head there "
                f"with 'ray start --head --port={port}', or name another address"
            ) from error
    before = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StudyError(
            f"the Ray cluster '{address}' cannot be used ({' '.join(str(error).split())[:300]}): "
            "call from a machine on which 'ray start' joined the cluster, or take the address "
            "'local' for this machine alone"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # a study ends in good order by itself


class RayWorker(Worker):
    """A worker on a node of a cluster.

    Args:
        carrier: What started it.
        actor: Its post.
        tell: Called with all that it says.
    """

    def __init__(self, carrier: RayCarrier, actor: Any, tell: Tell) -> None:
        super().__init__()
        self._carrier = carrier
        self._actor = actor
        self._tell = tell
        self._lease: Lease | None = None
        self._words = "without a word"
        self._node = ""
        self._gone = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        return f"the worker on node {self._node[:12]}"

    @property
    def over(self) -> bool:
        """Whether it takes nothing of the cluster any more."""
        return self._ended.is_set()

    def give(self, job: Job) -> None:
        """Let it make a cell, if nobody else does."""
        self.job = job
        folder = self._carrier.folder
        try:
            lease = Lease(folder / LEASES, job.name)
            if (other := lease.take()) is None:
                self._lease = lease
                self._actor.give.remote(job.name, _luggage(job, folder))
                return
            end = told_end(held=other)
        except PromptSearchError as error:
            end = told_end(error)
        self._tell(self, "ended", end)

    def freed(self) -> Job:
        """Take the cell that it has ended away from it; others may take it at once."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        return super().freed()

    def end(self) -> None:
        """End it."""
        ray = self._carrier.cluster.ray
        self._ended.set()
        if not self._gone:
            with suppress(ray.exceptions.RayError):
                ray.get(self._actor.end.remote(), timeout=_END)
        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(self._actor)
        self._thread.join(_END)  # it may write into the run's folder
        if self._lease is not None:
            self._lease.release()

    def last_words(self) -> str:
        """How it ended."""
        return self._words

    def _live(self) -> None:
        """Start it, and hear it until it ends."""
        ray, how = self._carrier.cluster.ray, "died"
        try:
            self._hear()
        except PromptSearchError as error:  # of this machine's disk, or of the node's
            self._tell(self, "ended", told_end(error))
            how = "lost"
        except ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self._words = f"in the cluster: {lines[0][:200]} {lines[-1][:200]}"
            self._gone = True
            if not self._ended.is_set() and self._node and self._is_gone():
                how = "lost"
        finally:  # whatever happens, the study waits for no worker that nobody hears
            self._tell(self, how, None)

    def _hear(self) -> None:
        """Hear it until it is dead, or ended."""
        carrier, get = self._carrier, self._carrier.cluster.ray.get
        self._node = get(self._actor.node.remote(), timeout=_PLACED)
        get(self._actor.begin.remote(carrier.order, carrier.study, carrier.home))
        while not self._ended.is_set():
            cell, changes, said, died = get(self._actor.news.remote())
            if self._ended.is_set():
                return
            apply(changes, carrier.folder / cell)
            for kind, content in said:
                if kind == "ready":
                    log.info("%s: %s", self, in_words(content))
                self._tell(self, kind, content)
            if died is not None:
                self._words = died
                return

    def _is_gone(self) -> bool:
        """Whether its node has left the cluster, which is known after a while."""
        ray, end = self._carrier.cluster.ray, time.monotonic() + _FREE
        while time.monotonic() < end:
            if not any(each["Alive"] for each in ray.nodes() if each["NodeID"] == self._node):
                return True
            time.sleep(0.5)
        return False


def _luggage(job: Job, folder: Path) -> dict[str, list[Change]]:
    """What a cell needs: its folder, and the winner of the cell that it starts from."""
    mine = contents(job.folder)
    for change in mine:
        if change.path.endswith(".jsonl") and change.content is not None:
            cut(job.folder / change.path, len(change.content))  # half a line stays behind
    if job.source is None:
        return {job.name: mine}
    there = contents(folder / job.source)
    return {job.name: mine, job.source: [c for c in there if not c.path.endswith(".jsonl")]}


@dataclass
class RayCarrier:
    """Starts workers on the nodes of a cluster.

    Args:
        cluster: The cluster.
        order: What each worker is told.
        folder: The study's folder.
        files: What relative paths of the study lead to.
    """

    cluster: Cluster
    order: Order
    folder: Path
    files: list[Change]
    study: Any = field(init=False)
    home: Any = field(init=False)
    _workers: list[RayWorker] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        # Once for all of them; those of one node read it from the node's own store.
        put = self.cluster.ray.put
        self.study, self.home = put(_shared(self.folder)), put(self.files)

    def start(self, tell: Tell) -> Worker | None:
        """Start a worker, where the cluster has room for one.

        Args:
            tell: Called with all that it says.

        Raises:
            StudyError: There is no room for a single one.
        """
        cluster, end = self.cluster, time.monotonic() + _FREE
        self._workers = [worker for worker in self._workers if not worker.over]
        while not self._room():
            if self._workers:
                return None
            if time.monotonic() > end:
                raise cluster.refusal("has no room for a worker now")
            time.sleep(0.5)
        asked = dict(cluster.asked)
        options = {"num_cpus": asked.pop("CPU"), "num_gpus": asked.pop("GPU", 0)}
        actor = cluster.ray.remote(**options, resources=asked, max_concurrency=4)(Post)
        worker = RayWorker(self, actor.remote(), tell)
        self._workers.append(worker)
        return worker

    def _room(self) -> bool:
        return self.cluster.room() > len(self._workers) and self.cluster.free() > 0


def _shared(folder: Path) -> list[Change]:
    """What all cells need of a study's folder: its records, and its pools."""
    with failing(folder, "read"):
        files = [path for path in sorted(folder.iterdir()) if path.suffix in _RECORDS]
    records = [Change(path.name, read(path)) for path in files if path.is_file()]
    pools = contents(folder / "pools") if (folder / "pools").is_dir() else []
    return records + [Change(f"pools/{each.path}", each.content) for each in pools]
