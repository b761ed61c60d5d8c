"""Studies on a real Ray cluster of two nodes on this machine: the same numbers, whoever is killed.

`make cluster` runs them, with a Ray of their own.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import psutil
import pytest

from promptsearch import compare
from promptsearch.errors import StudyError
from promptsearch.study.execution.lease import LEASES
from promptsearch.testing.rerun import results_of, without_times

pytest.importorskip("ray", reason="Ray is not installed: `make cluster` installs it")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.usefixtures("unreported"),
    pytest.mark.filterwarnings("default"),  # Ray's own
]

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
#: A strategy that ends its process where a file tells it to.
MODULE = """
import os, signal
from pathlib import Path
from promptsearch.strategies.random import Random

class Fatal(Random):
    def ask(self):
        mark = Path(__file__).with_name("mark")
        if int(mark.read_text()):
            mark.write_text(str(int(mark.read_text()) - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().ask()
"""


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, and two nodes with one each."""
    head = {**NODE, "num_cpus": 0, "include_dashboard": False}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    made.add_node(**NODE)
    made.add_node(**NODE)
    yield made
    made.shutdown()


def test_two_nodes_find_the_same_numbers_though_one_is_killed(
    cluster, study, alone, tmp_path, caplog
):
    heard, lost = [], []

    def kill(progress):
        heard.append(progress)
        if progress.stage == "search" and progress.spent and not lost:
            lost.append(sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0])
            cluster.remove_node(lost[0], allow_graceful=False)
            cluster.add_node(**NODE)

    with caplog.at_level(logging.INFO):
        found = compare(study(), out=tmp_path, ray=cluster.address, progress=kill)
    assert lost and "a worker died" in caplog.text
    assert len(found.runs) == 7 and not found.failed
    assert without_times(results_of(tmp_path)) == alone
    assert {p.run for p in heard if p.stage == "done"} == set(alone)
    assert not any((tmp_path / LEASES).iterdir())
    assert "the worker on node " in caplog.text and ": model " in caplog.text


def test_an_actor_that_is_killed_is_replaced_and_its_run_gone_on_with(
    cluster, study, alone, tmp_path, caplog
):
    killed = []

    def kill(progress):
        if progress.stage == "search" and progress.spent and len(killed) < 2:
            posts = [p for p in psutil.process_iter(["name"]) if "ray::Post" in p.info["name"]]
            killed.extend(posts)
            for post in posts:
                post.kill()

    with caplog.at_level(logging.WARNING):
        compare(study(), out=tmp_path, ray=cluster.address, workers=2, progress=kill)
    assert killed and f"a worker died ({next(iter(alone)).split('/')[0]}/" in caplog.text
    assert without_times(results_of(tmp_path)) == alone


def test_a_study_whose_driver_is_killed_goes_on(cluster, home, alone, tmp_path):
    command = [
        *(sys.executable, "-m", "promptsearch", "compare", str(home / "study.yaml")),
        *("--out", str(tmp_path), "--ray", cluster.address, "--quiet"),
    ]
    process = subprocess.Popen(command)
    while not list(tmp_path.rglob("evaluations.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    subprocess.run(command, check=True)
    assert without_times(results_of(tmp_path)) == alone


def test_a_cell_that_kills_its_worker_three_times_is_a_failure(
    cluster, study, tmp_path, monkeypatch
):
    (tmp_path / "fatal_strategy.py").write_text(MODULE)
    (tmp_path / "mark").write_text("3")
    monkeypatch.syspath_prepend(tmp_path)
    changed = study(
        strategies=["fatal_strategy:Fatal", "random"],
        seeds=1,
        execution={"ray": {"address": cluster.address}},
    )
    found = compare(changed, out=tmp_path / "out", workers=1)
    (run,), (failed,) = found.runs, found.failed
    assert run.label == "random"
    assert "3 workers that made it died, the last one by signal 9" in failed.error


def test_resources_that_cannot_be_had_are_refused_in_seconds(cluster, study, tmp_path):
    begin = time.monotonic()
    with pytest.raises(StudyError, match=r"room for 2\. Asked for: 9 workers with 1 CPU each\. "):
        compare(study(), out=tmp_path, ray=cluster.address, workers=9)
    where = {"ray": {"address": cluster.address, "num_gpus": 2, "resources": {"big": 1}}}
    with pytest.raises(StudyError, match=r"with 1 CPU, 2 GPU, 1 big each\. There: .*1 CPU"):
        compare(study(execution=where), out=tmp_path)
    with pytest.raises(StudyError, match="127.0.0.1:9 does not answer"):
        compare(study(), out=tmp_path, ray="127.0.0.1:9")
    assert time.monotonic() - begin < 30


def test_what_others_use_is_said(cluster, study, tmp_path):
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    try:

        @ray.remote(num_cpus=1)
        class Busy:
            def pid(self):
                return os.getpid()

        others = [Busy.remote() for _ in range(2)]
        ray.get([other.pid.remote() for other in others])
        with pytest.raises(StudyError, match="no room for a worker now"):
            compare(study(seeds=1), out=tmp_path, ray="auto")
        assert ray.is_initialized()  # it was not ours to end
    finally:
        ray.shutdown()
