"""Trackers: they hear of each run once, and nothing that happens to them reaches a run."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import promptsearch.trackers.tracking
from promptsearch.errors import UnknownName
from promptsearch.study.events import Progress
from promptsearch.trackers.logged import Logged
from promptsearch.trackers.process import Tracked
from promptsearch.trackers.tracker import Tracker, flat
from promptsearch.trackers.tracking import Tracking

#: A package with trackers: one that writes down what it hears, and some that fail in their ways.
MODULE = """
import json, os, sys, time
from promptsearch.trackers.tracker import Tracker

class Scripted(Tracker):
    def note(self, *line):
        print("trackers may print")
        with open(self.folder / "heard.jsonl", "a") as file:
            file.write(json.dumps(line) + "\\n")
    def begin(self, run, facts, known):
        self.note("begin", run, facts, known)
        return "id of " + run
    def log(self, run, step, values):
        self.note("log", run, step, sorted(values))
    def end(self, run, values, failed):
        self.note("end", run, values, failed)
    def close(self):
        self.note("close")

class Absent(Scripted):
    needs = "no_such_package"
    def __init__(self, study, folder):
        import no_such_package

class Broken(Scripted):
    def log(self, run, step, values):
        raise ConnectionError("the network is\\x1b[31m gone")

class Crashing(Scripted):
    def begin(self, run, facts, known):
        os.write(2, b"out of luck\\n")
        os._exit(3)

class Leaving(Scripted):
    def begin(self, run, facts, known):
        sys.exit(0)

class Hanging(Scripted):
    def begin(self, run, facts, known):
        time.sleep(1000)

class Other:
    pass
"""
NAMES = ("scripted", "absent", "broken", "crashing", "hanging", "other")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Installs trackers, as any package may bring them."""
    home = tmp_path_factory.mktemp("package")
    (home / "scripted_trackers.py").write_text(MODULE)
    info = home / "scripted_trackers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted-trackers\nVersion: 1.0\n")
    points = "\n".join(
        f"{name} = scripted_trackers:{name.capitalize()}" for name in (*NAMES, "leaving")
    )
    (info / "entry_points.txt").write_text(f"[promptsearch.trackers]\n{points}\n")
    sys.path.insert(0, str(home))
    yield
    sys.path.remove(str(home))


def step(stage: str, spent: int = 0, run: str = "t/a/seed0", **more: Any) -> Progress:
    return Progress(run, 1, 2, stage, 1.5 - spent / 1000, spent, 1000, 0.1, **more)


TOLD = {"strategy": "random", "seed": 0, "options": {"batch": 4}}
WHOLE = [
    Progress("", 0, 0, "loading", message="loading"),
    step("waiting"),
    step("begun", facts=TOLD),
    step("search", 100),
    step("search", 200),
    step("search", 300),
    step("select", 300),
    step("test", 300),
    step("done", 300, facts={"test_loss": 0.5, "tokens": 310, "told": TOLD}),
    Progress("", 0, 0, "ended"),
]


def track(folder: Path, events: list[Progress], *names: str) -> list[list[Any]]:
    """What the scripted tracker wrote down of events; each call is one of `compare`."""
    with Tracking(names or ["scripted"], "study", folder) as tracking:
        for event in events:
            tracking(event)
    heard = folder / "heard.jsonl"
    return [json.loads(line) for line in heard.read_text().splitlines()] if heard.exists() else []


def test_a_tracker_hears_of_each_run_once_however_often_the_study_is_run(
    tmp_path: Path, package: None
) -> None:
    heard = [
        ["begin", "t/a/seed0", TOLD, ""],
        # Of numbers that come fast, the first and the last.
        ["log", "t/a/seed0", 100, ["best_loss", "seconds"]],
        ["log", "t/a/seed0", 300, ["best_loss", "seconds"]],
        ["end", "t/a/seed0", {"test_loss": 0.5, "tokens": 310}, False],
        ["close"],
    ]
    killed, rest = WHOLE[:4], WHOLE
    assert track(tmp_path, killed) == [*heard[:2], ["close"]]
    begun_again = ["begin", "t/a/seed0", TOLD, "id of t/a/seed0"]
    # It goes on from its log: what was logged before is told again, and not logged again.
    gone_on = [*heard[:2], ["close"], begun_again, *heard[2:]]
    assert track(tmp_path, rest) == gone_on
    # A finished study, run again: its runs are told as done.
    again = [step("done", facts={"test_loss": 0.5, "tokens": 310, "told": TOLD})]
    assert track(tmp_path, again) == [*gone_on, ["close"]]


def test_runs_that_were_made_before_a_tracker_was_named_and_failures_are_logged(
    tmp_path: Path, package: None
) -> None:
    events = [
        step("done", facts={"test_loss": 0.5, "told": TOLD}),
        step("failed", run="t/b/seed0", message="a secret of the machine"),
    ]
    heard = [
        ["begin", "t/a/seed0", TOLD, ""],
        ["end", "t/a/seed0", {"test_loss": 0.5}, False],
        ["begin", "t/b/seed0", {}, ""],
        ["end", "t/b/seed0", {}, True],
        ["close"],
    ]
    assert track(tmp_path, events) == heard
    assert "secret" not in (tmp_path / "heard.jsonl").read_text()


def test_trackers_that_fail_are_named_once_and_stop_nothing(
    tmp_path: Path,
    package: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(promptsearch.trackers.tracking, "PATIENCE", 4.0)
    monkeypatch.setattr(promptsearch.trackers.tracking, "EVERY", 0.0)
    with caplog.at_level(logging.WARNING):
        begin = time.monotonic()
        with Tracking(NAMES, "study", tmp_path) as tracking:
            for event in WHOLE:
                tracking(event)
            told = time.monotonic() - begin
    assert told < 2  # nobody waits for them
    said = {message.split("'")[1]: message for message in caplog.messages}
    assert len(caplog.messages) == len(said) == len(NAMES) - 1
    assert "needs the package no_such_package: pip install" in said["absent"]
    assert r"ConnectionError: the network is\x1b[31m gone" in said["broken"]
    assert "ended with exit code 3: out of luck" in said["crashing"]
    assert "was not ready in time" in said["hanging"]
    assert "is no subclass of" in said["other"]
    heard = (tmp_path / "heard.jsonl").read_text().splitlines()
    assert sum(line.startswith('["end"') for line in heard) == 1


def test_a_tracker_that_ends_its_process_in_good_order_is_named_as_well(
    tmp_path: Path, package: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        track(tmp_path, WHOLE, "scripted", "leaving")
    (said,) = caplog.messages
    assert "'leaving' logs no more" in said and "ended with exit code 0" in said


def test_a_tracker_runs_nothing_that_lies_in_the_current_folder(
    package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("open('executed', 'w'); from nowhere import nothing")
    monkeypatch.chdir(tmp_path)
    assert track(tmp_path, WHOLE)
    assert not (tmp_path / "executed").exists()


def test_an_unknown_tracker_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown tracker 'tensorbord'. Did you mean 'tensorb"):
        Tracking(["tensorbord"], "study", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Killed(Tracker):
    """A tracker in whose `log` the process dies."""

    def begin(self, run: str, facts: Any, known: str) -> str:
        return "x"

    def log(self, run: str, step: int, values: Any) -> None:
        raise KeyboardInterrupt

    def end(self, run: str, values: Any, failed: bool) -> None:
        raise AssertionError


def test_a_number_whose_process_was_killed_is_not_logged_twice(tmp_path: Path) -> None:
    tracked = Tracked(Killed("study", tmp_path), Logged(tmp_path, "killed"))
    tracked.begin("a/../b", {})
    with pytest.raises(KeyboardInterrupt):
        tracked.log("a/../b", 5, {})
    later = Logged(tmp_path, "killed")
    assert (later["a/../b"].known, later["a/../b"].step, later["a/../b"].ended) == ("x", 5, False)
    (note,) = tmp_path.glob(".tracked/killed/*")
    note.write_text("{")  # a damaged note counts as none
    assert Logged(tmp_path, "killed")["a/../b"].step == -1


def test_facts_are_flat_for_trackers() -> None:
    facts = {"a": {"b": {"c": 1}, "d": None}, "e": [1, 2], "f": True, "g": "x", "h": 0.5}
    assert flat(facts) == {"a.b.c": 1, "e": "[1, 2]", "f": True, "g": "x", "h": 0.5}
