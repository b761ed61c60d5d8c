"""Studies in several processes: the same numbers, whoever is killed.

The model is a tiny one in a folder, which each worker loads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from promptsearch import compare
from promptsearch.errors import PromptSearchError, StudyError
from promptsearch.study.execution.lease import LEASES, held
from promptsearch.testing.rerun import results_of, without_times

pytestmark = pytest.mark.usefixtures("unreported")

#: A strategy that ends its process where a file tells it to.
MODULE = """
import os, signal
from pathlib import Path
from promptsearch.strategies.random import Random

class Deadly(Random):
    def ask(self):
        mark = Path(os.environ["DEADLY"])
        if int(mark.read_text()):
            mark.write_text(str(int(mark.read_text()) - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().ask()
"""


def test_two_workers_find_the_same_numbers_though_one_is_killed(study, alone, tmp_path, caplog):
    heard, victims = [], []

    def kill(progress):
        """Kill the process that holds a run's lease, as soon as one has searched a bit."""
        heard.append(progress)
        if progress.stage == "search" and progress.spent and not victims:
            path = next((tmp_path / LEASES).glob("*seed*.lease"))
            victims.append(json.loads(path.read_text())["process"])
            os.kill(victims[0], signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        found = compare(study(), out=tmp_path, workers=2, progress=kill)
    assert victims and "a worker died" in caplog.text
    assert len(found.runs) == 7 and not found.failed
    assert without_times(results_of(tmp_path)) == alone
    assert {p.run for p in heard if p.stage == "done"} == set(alone)
    assert not any((tmp_path / LEASES).iterdir())


def wait_for_the_end_of(group):
    """Wait until no process of a group is left."""
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(group, 0)
            time.sleep(0.1)


def test_a_study_that_is_stopped_or_killed_goes_on(study, home, alone, tmp_path):
    command = [
        *(sys.executable, "-m", "promptsearch", "compare", str(home / "study.yaml")),
        *("--out", str(tmp_path), "--workers", "2", "--quiet"),
    ]
    # Its own process may die; a scheduler whose time is up asks every process to end.
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)):
        logs = set(tmp_path.rglob("evaluations.jsonl"))
        process = subprocess.Popen(command, start_new_session=True)
        while set(tmp_path.rglob("evaluations.jsonl")) <= logs:
            assert process.poll() is None
            time.sleep(0.1)
        if number == signal.SIGTERM:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait() == code
        if number == signal.SIGTERM:
            assert 'http-equiv="refresh"' not in (tmp_path / "report.html").read_text()
            with pytest.raises(ProcessLookupError):  # no worker is left
                os.killpg(process.pid, 0)
        else:
            wait_for_the_end_of(process.pid)  # its workers may write for a moment yet
    compare(study(), out=tmp_path)
    assert without_times(results_of(tmp_path)) == alone


def test_shards_make_their_share_and_a_call_without_one_reports(study, alone, tmp_path):
    for place in (1, 2):
        compare(study(), out=tmp_path, shard=(place, 2))
        assert len(results_of(tmp_path)) == (4 if place == 1 else 7)
    found = compare(study(), out=tmp_path)
    assert len(found.runs) == 7
    assert without_times(results_of(tmp_path)) == alone


def test_a_cell_that_kills_its_worker_three_times_is_a_failure(study, tmp_path, monkeypatch):
    (tmp_path / "deadly_strategy.py").write_text(MODULE)
    (tmp_path / "mark").write_text("3")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DEADLY", str(tmp_path / "mark"))
    changed = study(strategies=["deadly_strategy:Deadly", "random"], seeds=1)
    found = compare(changed, out=tmp_path / "out", workers=1)
    (run,), (failed,) = found.runs, found.failed
    assert run.label == "random"
    assert "3 workers that made it died, the last one by signal 9" in failed.error


def test_workers_and_replicas_run_a_plug_in_of_the_current_folder_and_nothing_else_there(
    study, tmp_path, monkeypatch
):
    """In a stranger's folder, what is named runs, not what is called like a module."""
    mine = "from promptsearch.strategies.random import Random\n\nclass Mine(Random):\n    pass\n"
    (tmp_path / "mine.py").write_text(mine)
    (tmp_path / "queue.py").write_text("open('executed', 'w'); from nowhere import nothing")
    monkeypatch.chdir(tmp_path)
    changed = study(strategies=["mine:Mine"], seeds=1, budget=2000, replicas=1)
    found = compare(changed, out=tmp_path / "out", workers=1)
    assert len(found.runs) == 1 and not found.failed
    assert not (tmp_path / "executed").exists()


def test_a_worker_leaves_nothing_of_its_replicas_behind(study, tmp_path, monkeypatch):
    (tmp_path / "hasty.py").write_text(
        "from promptsearch.strategies.random import Random\n"
        "from promptsearch.study.execution import replicas\n"
        "replicas.WORTH = 0.0\n\nclass Hasty(Random):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    begun = []

    def watch(progress):
        begun.extend((tmp_path / "temporary").glob("promptsearch-*"))

    changed = study(strategies=["hasty:Hasty"], seeds=1, race=False, score_on=16, replicas=2)
    compare(changed, out=tmp_path / "out", workers=1, progress=watch)
    assert begun and not list((tmp_path / "temporary").iterdir())


def test_a_cell_that_another_process_makes_is_waited_for(study, alone, tmp_path, caplog):
    compare(study(strategies=[{"random": {"batch": 4}}], seeds=1, threads=1), out=tmp_path)
    name, freed = f"{next(iter(results_of(tmp_path))).split('/')[0]}/manual/seed0", []

    def hold():
        with held(tmp_path, name) as other:
            assert other is None
            begun.set()
            time.sleep(2.0)
            freed.append(time.monotonic())

    begun = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    with caplog.at_level(logging.INFO):
        compare(study(), out=tmp_path)
    thread.join()
    assert f"{name}: waiting for process {os.getpid()}" in caplog.text
    assert without_times(results_of(tmp_path)) == alone


def test_why_a_worker_cannot_begin_is_said(home, tmp_path):
    """What the study's own process has read may be gone when its workers look."""
    there = shutil.copytree(home, tmp_path / "home")

    def spoil(progress):
        if progress.message.startswith("starting"):
            (there / "rows.jsonl").unlink()

    with pytest.raises(PromptSearchError, match=r"rows\.jsonl"):
        compare(there / "study.yaml", out=tmp_path / "out", workers=1, progress=spoil)


def test_what_workers_cannot_do_is_said(study, tmp_path, tiny, films):
    with pytest.raises(StudyError, match="take no objects"):
        compare(study(), out=tmp_path, workers=2, model=tiny, task=films)
    with pytest.raises(StudyError, match="expected I/N with I from 1 to N"):
        compare(study(), out=tmp_path, shard=(3, 2))
    with pytest.raises(StudyError, match=r"900000 processes need .* GiB on cpu"):
        compare(study(), out=tmp_path, workers=900_000)
    with pytest.raises(StudyError, match=r"memory was 1000000, now it is 2000000"):
        compare(study(memory="2MB"), out=tmp_path)
