"""The carrier of a cluster without one: what stands in for Ray runs posts in threads.

`test_cluster.py` asks the real one. Here workers write as a worker does, and die where told to.
"""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from promptsearch.errors import StudyError
from promptsearch.files import append, write_aside
from promptsearch.records.run import FailedRecord
from promptsearch.study.execution import cluster as carrying
from promptsearch.study.execution import post as posting
from promptsearch.study.execution.cluster import Cluster, RayCarrier
from promptsearch.study.execution.jobs import Job
from promptsearch.study.execution.lease import held
from promptsearch.study.execution.wire import Order, told_end
from promptsearch.study.execution.workers import Workers

LINES = 5


class RayError(Exception):
    pass


@dataclass
class Ray:
    """What a cluster's library does, in threads."""

    alive: dict[str, bool]
    actors: list = field(default_factory=list)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16))

    class exceptions:  # noqa: N801 - as the library calls it
        RayError = RayError

    def nodes(self):
        return [
            {"NodeID": n, "Alive": a, "NodeManagerHostname": n, "Resources": {"CPU": 1.0}}
            for n, a in self.alive.items()
        ]

    def available_resources(self):
        used = {actor.place for actor in self.actors if not actor.dead}
        return {"CPU": float(sum(a and n not in used for n, a in self.alive.items()))}

    def put(self, value):
        return value

    def get(self, told, timeout=None):
        return told.result(timeout)

    def kill(self, actor):
        actor.dead = True

    def remote(self, **options):
        assert options == {"num_cpus": 1, "num_gpus": 0, "resources": {}, "max_concurrency": 4}

        class Made:
            @staticmethod
            def remote():
                return Actor(self)

        return lambda cls: Made


class Actor:
    def __init__(self, ray):
        used = {actor.place for actor in ray.actors if not actor.dead}
        self.ray, self.dead, self.post = ray, False, posting.Post()
        self.place = next(n for n, a in ray.alive.items() if a and n not in used)
        ray.actors.append(self)

    def __getattr__(self, name):
        def run(*args):
            if self.dead or not self.ray.alive[self.place]:
                raise RayError("the actor died\nsince its node did")
            found = self.place if name == "node" else getattr(self.post, name)(*args)
            if not self.ray.alive[self.place]:
                raise RayError("the actor died\nsince its node did")
            return found

        class Method:
            @staticmethod
            def remote(*args) -> Future:
                return self.ray.pool.submit(run, *args)

        return Method


class Child:
    """A worker that goes on with its log, line by line, and may die on the way."""

    #: Cell -> how often its worker dies; and what is called at each line.
    deaths: dict = {}
    watched = staticmethod(lambda cell, line: None)

    def __init__(self, order, environment):
        assert order.guest and (self.place(order) / "study.json").exists()
        self.folder = self.place(order)

    def place(self, order):
        return Path(order.folder)

    def listen(self, hear):
        self.hear = hear
        hear("ready", {"model": "a"})

    def tell(self, kind, cell):
        threading.Thread(target=self.make, args=(cell,)).start()

    def make(self, cell):
        folder = self.folder / cell
        if cell == "t/b/seed0":
            assert (self.folder / "t/a/seed0" / "result.json").exists()
        log = folder / "evaluations.jsonl"
        begun = len(log.read_text().splitlines()) if log.exists() else 0
        for line in range(begun, LINES):
            append(log, f"{line}\n".encode())
            if Child.watched(cell, line) == "gone":  # with its node, and without a word
                return
            self.hear("progress", {"run": cell, "number": 1, "total": 3, "stage": "s"})
            if line >= 2 and Child.deaths.get(cell, 0):
                Child.deaths[cell] -= 1
                self.hear("died", None)
                return
        write_aside(folder / "result.json", cell)
        self.hear("ended", told_end())

    def end(self):
        shutil.rmtree(self.folder.parent)  # as a guest does

    def last_words(self):
        return "by signal 9"


@pytest.fixture
def carried(tmp_path, monkeypatch):
    """Makes three cells, the second of which starts from the first, on nodes that are there."""
    monkeypatch.setattr(posting, "Child", Child)
    monkeypatch.setattr(Child, "deaths", {})
    write_aside(tmp_path / "study.json", "{}")
    names = ["t/a/seed0", "t/b/seed0", "t/c/seed0"]
    failed = FailedRecord(
        task="t", strategy="s", label="a", seed=0, options={}, deterministic=False, error=""
    )
    jobs = [
        Job(name, names[0] if at == 1 else None, at + 1, 3, tmp_path / name, failed)
        for at, name in enumerate(names)
    ]

    def make(ray, deaths=None, watched=lambda cell, line: None):
        Child.deaths.update(deaths or {})
        monkeypatch.setattr(Child, "watched", staticmethod(watched))
        order, asked = Order({}, "", "", 1, 1, []), Cluster(ray, {"CPU": 1.0})
        carrier = RayCarrier(asked, order, tmp_path, [])
        heard = []
        trouble = Workers(
            carrier,
            asked.room(),
            heard.append,
            served=False,
            shown={"model": "a"},
            expected=lambda name: None,
        ).execute(jobs)
        assert not trouble.damage and not any((tmp_path / ".leases").iterdir())
        return heard

    return tmp_path, names, make


def logs(folder):
    return {
        str(path.parent.relative_to(folder)): path.read_text()
        for path in folder.rglob("evaluations.jsonl")
    }


def whole(names):
    return dict.fromkeys(names, "".join(f"{line}\n" for line in range(LINES)))


def test_what_workers_write_comes_back_though_they_die(carried):
    folder, names, make = carried
    append(folder / names[2] / "evaluations.jsonl", b"0\n1\nha")  # what a killed process left
    heard = make(Ray({"n1": True, "n2": True}), deaths={names[0]: 2})
    assert logs(folder) == whole(names)
    assert [(folder / name / "result.json").read_text() for name in names] == names
    assert {progress.run for progress in heard} == set(names)


def test_a_cell_that_kills_its_worker_three_times_is_a_named_failure(carried):
    folder, names, make = carried
    heard = make(Ray({"n1": True}), deaths={names[2]: 3})
    told = json.loads((folder / names[2] / "result.json").read_text())
    assert "3 workers that made it died, the last one by signal 9" in told["error"]
    assert [p.stage for p in heard if p.run == names[2]][-1] == "failed"
    assert (folder / names[1] / "result.json").read_text() == names[1]


def test_a_lost_node_is_no_fault_of_its_run_however_often(carried, monkeypatch):
    folder, names, make = carried
    ray = Ray({f"n{i}": i == 0 for i in range(6)})

    def lose(cell, line):
        """Lose the node with each line that is written, and get another one."""
        here = next(node for node, alive in ray.alive.items() if alive)
        later = next((n for n in ray.alive if n > here), None)
        if cell == names[0] and later:
            ray.alive.update({here: False, later: True})
            return "gone"

    make(ray, watched=lose)
    assert logs(folder) == whole(names)
    assert ray.alive["n5"]


def test_a_cluster_that_loses_all_of_its_nodes_is_refused_in_seconds(carried, monkeypatch):
    _folder, names, make = carried
    monkeypatch.setattr(carrying, "_FREE", 0.2)
    ray = Ray({"n1": True})
    with pytest.raises(StudyError, match=r"no room for a worker now.*1 CPU each\. There: no node"):
        make(ray, watched=lambda cell, line: ray.alive.update(n1=False) or "gone")


def test_a_cell_that_another_process_makes_is_waited_for(carried):
    folder, names, make = carried
    begun, end = threading.Event(), threading.Event()

    def hold():
        with held(folder, names[2]) as other:
            assert other is None
            begun.set()
            end.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    made = []
    make(
        Ray({"n1": True, "n2": True}),
        watched=lambda cell, line: (made.append(cell), cell == names[1] and end.set()),
    )
    thread.join()
    assert logs(folder) == whole(names) and made[-1] == names[2]
