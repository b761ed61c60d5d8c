"""Processes that work for a study, as whoever started them hears of them."""

from __future__ import annotations

import os
import queue
import subprocess
import sys

import pytest

from promptsearch.study.execution.child import Child
from promptsearch.study.execution.wire import Order

#: Says that it is ready, then what stands in its place, and ends as it is told.
MODULE = """
import os, signal, sys, time
assert sys.stdin.readline()
sys.stdout.write('["ready", {{"model": "a"}}]\\n{said}')
sys.stdout.flush()
{end}
"""
KILLED, LIVING = "os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(600)"


@pytest.mark.parametrize(
    ("said", "end"),
    [
        ('["ended", {"error": nu', KILLED),
        ("[1, 2, 3]\\n", LIVING),
        ("7\\n", LIVING),
        ("", KILLED),
    ],
)
def test_a_child_that_says_half_a_line_or_none_of_ours_is_dead(tmp_path, said, end):
    (tmp_path / "saying.py").write_text(MODULE.format(said=said, end=end))
    heard: queue.SimpleQueue = queue.SimpleQueue()
    child = Child(
        Order({}, "", "", 1, 1, []), {**os.environ, "PYTHONPATH": str(tmp_path)}, "saying"
    )
    child.listen(lambda *told: heard.put(told))
    assert heard.get(timeout=20) == ("ready", {"model": "a"})
    assert heard.get(timeout=20) == ("died", None)
    assert "by signal 9" in child.last_words()
    child.end()


def test_death_is_told_though_nobody_could_hear_what_was_said(tmp_path, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda failed: None)
    (tmp_path / "saying.py").write_text(MODULE.format(said="", end=LIVING))
    heard: queue.SimpleQueue = queue.SimpleQueue()

    def hear(kind, content):
        heard.put(kind)
        assert kind == "died"

    child = Child(
        Order({}, "", "", 1, 1, []), {**os.environ, "PYTHONPATH": str(tmp_path)}, "saying"
    )
    child.listen(hear)
    assert [heard.get(timeout=20), heard.get(timeout=20)] == ["ready", "died"]
    child.end()


HEARING = """
import queue
from contextlib import ExitStack
from promptsearch.study.execution import replica, worker
from promptsearch.study.execution.wire import Order
replicas = ExitStack()
replicas.callback(print, "ended", flush=True)
work, order = queue.SimpleQueue(), Order({}, "", "", 1, 1, [])
"""


@pytest.mark.parametrize(
    ("call", "said"),
    [("replica._hear(work)", ""), ("worker._hear(work, order, replicas)", "ended\n")],
)
def test_a_child_ends_where_the_study_was_killed_in_the_middle_of_a_line(call, said):
    command = [sys.executable, "-c", f"{HEARING}{call}"]
    done = subprocess.run(command, input='["cell", "a/b/se', capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, said)
