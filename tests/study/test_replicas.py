"""Asks that several processes score: the same numbers to the last bit, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch import compare
from promptsearch.errors import FileError, StudyError
from promptsearch.scoring import chunks
from promptsearch.scoring.chunks import cut
from promptsearch.study.execution import replicas
from promptsearch.study.execution.child import Child
from promptsearch.study.execution.replicas import Replicas, check_replicas
from promptsearch.study.execution.spread import Spread
from promptsearch.study.execution.wire import Order
from promptsearch.testing.rerun import results_of, without_times

pytestmark = pytest.mark.usefixtures("unreported")

STRATEGIES = [{"random": {"batch": 12}}, {"black_box_tuning": {"dimensions": 4}}]


def logs_of(folder):
    """Every line that was logged, but for times."""
    return {
        str(path.relative_to(folder)): without_times(
            list(map(json.loads, path.read_text().splitlines()))
        )
        for path in folder.rglob("evaluations.jsonl")
    }


@given(
    sizes=st.lists(st.integers(1, 50), max_size=12),
    examples=st.integers(1, 9),
    most=st.integers(1, 60),
)
def test_each_prompt_meets_each_example_once_and_chunks_hold_what_they_may(sizes, examples, most):
    found = list(cut(sizes, examples, most))
    met = [(p, e) for chunk in found for p in chunk.prompts for e in chunk.examples]
    assert sorted(met) == [(p, e) for p in range(len(sizes)) for e in range(examples)]
    for some, theirs in found:
        assert len(some) == 1 or sum(sizes[p] for p in some) <= most
        assert len(theirs) == examples or len(some) == 1
    # What stands before a prompt is cut without a look at what follows.
    for end in range(len(sizes)):
        begun = list(cut(sizes[:end], examples, most))
        assert begun[:-1] == found[: max(0, len(begun) - 1)]


def test_two_processes_score_what_one_does_though_a_replica_is_killed(
    study, tmp_path, monkeypatch, caplog
):
    """It is killed with its third chunk of vectors, behind a race over words."""
    monkeypatch.setitem(chunks.CHUNK_TOKENS, "cpu", 60)
    monkeypatch.setattr(replicas, "WORTH", 0.0)
    told, taken, killed = [], [], []
    tell, read, score = Child.tell, replicas.read_scores, Replicas._score

    def telling(child, kind, content):
        tell(child, kind, content)
        if kind == "score":
            told.append(content)
            if not killed and [one["prompts"][0]["kind"] for one in told].count("soft") == 3:
                killed.append(child.pid)
                os.kill(child.pid, signal.SIGKILL)

    def waiting(hands):
        """Begin when a replica has its model, since this study ends before."""
        hands.start()
        return hands

    def slowly(hands, *given):
        """The other process is to score many of the chunks."""
        time.sleep(0.02 * (hands._count - 1))
        score(hands, *given)

    monkeypatch.setattr(Child, "tell", telling)
    monkeypatch.setattr(Replicas, "_score", slowly)
    monkeypatch.setattr(replicas, "read_scores", lambda one: taken.append(one) or read(one))
    monkeypatch.setattr(Replicas, "__enter__", waiting)
    given = {"strategies": STRATEGIES, "race": True, "score_on": 8}
    for count in (1, 2):
        compare(study(**given, seeds=1, replicas=count), out=tmp_path / str(count))
        assert (count == 1) == (not told)
    assert killed and len(taken) > 4 and {one["scorer"] for one in told} >= {"0 search"}
    assert "a replica died by signal 9" in caplog.text
    one, two = (results_of(tmp_path / count) for count in "12")
    assert len(one) == 2 and without_times(one) == without_times(two)
    assert logs_of(tmp_path / "1") == logs_of(tmp_path / "2")
    with pytest.raises(StudyError, match="replicas was 2, now it is not given"):
        compare(study(**given, seeds=2), out=tmp_path / "2")


class Fake:
    """A replica without a process, which answers when it is told to."""

    made: ClassVar[list[Fake]] = []
    #: What it shows when it is ready.
    shown: ClassVar[dict[str, str]] = {}

    def __init__(self, order, environment, module):
        self.told, self.over = [], False
        Fake.made.append(self)

    def listen(self, hear):
        self.hear = hear
        threading.Thread(target=hear, args=("ready", self.shown), daemon=True).start()

    def tell(self, kind, content):
        self.told.append(content)

    def kill(self):
        self.over = True
        threading.Thread(target=self.hear, args=("died", None), daemon=True).start()

    def end(self):
        self.over = True


@pytest.fixture
def fakes(monkeypatch):
    """What stands in for replicas: those that were started."""
    monkeypatch.setattr(replicas, "Child", Fake)
    monkeypatch.setattr(replicas, "WORTH", 0.0)
    monkeypatch.setattr(replicas, "read_scores", lambda told: told)
    monkeypatch.setattr(Fake, "made", [])
    return Fake.made


@pytest.mark.timeout(30)
def test_a_chunk_that_cannot_be_handed_over_is_an_error_and_no_wait(fakes):
    """The disk is full when the replica has done its first chunk, and is given another."""
    full = FileError("no space is left on the disk", True)

    class Prompt:
        numbers, saved = 1, 0

        def save(self, folder):
            Prompt.saved += 1
            if Prompt.saved > 1:
                raise full

        def to_json(self):
            return {}

    class Scorer:
        asked = 0

        def score(self, prompts, examples):
            Scorer.asked += 1
            if Scorer.asked == 2:
                (child,) = fakes
                child.hear("scored", {"error": None, "scores": "theirs"})
            return "mine"

    part = ([Prompt()], np.arange(2))
    with Replicas(Order({}, "", "", 1, 1, []), 2, {}) as hands:
        hands.start()
        with pytest.raises(FileError, match="no space is left"):
            hands.scored("0 search", Scorer(), [part] * 4)
        # Where there is room again, it has work again.
        Prompt.saved, Scorer.asked = 0, -10
        scorer = SimpleNamespace(
            score=lambda *given: (
                fakes[0].hear("scored", {"error": None, "scores": "theirs"}) or "mine"
            )
        )
        assert sorted(hands.scored("0 search", scorer, [part] * 2)) == ["mine", "theirs"]


@pytest.mark.timeout(30)
def test_a_replica_with_other_code_ends_and_is_not_waited_for(fakes, monkeypatch, caplog):
    monkeypatch.setattr(Fake, "shown", {"code": "b"})
    with Replicas(Order({}, "", "", 1, 1, []), 3, {"code": "a"}) as hands:
        hands.start()
        assert len(fakes) == 2 and all(child.over for child in fakes)
        assert "no replica can start (it has other code, data or model)" in caplog.text


def test_what_replicas_cannot_do_is_said(study, tmp_path, tiny, films, monkeypatch):
    with pytest.raises(StudyError, match="replicas load the model and the task by themselves"):
        compare(study(replicas=2), out=tmp_path, model=tiny, task=films)
    monkeypatch.setattr(replicas, "cores", lambda: 3)
    check_replicas(tiny, 1_000_000, 3, Spread())
    with pytest.raises(StudyError, match="'replicas: 4' of 1 threads each want 4 cores"):
        check_replicas(tiny, 1_000_000, 4, Spread())
    with pytest.raises(StudyError, match="in each of 2 workers, of 1 threads each want 4 cores"):
        check_replicas(tiny, 1_000_000, 2, Spread(workers=2))
    served = SimpleNamespace(name="far", served={"url": "http://localhost"})
    with pytest.raises(StudyError, match="'far' is behind an endpoint: requests go out side by"):
        check_replicas(served, 0, 2, Spread())
    with pytest.raises(StudyError, match="leave one of them out"):
        check_replicas(tiny, 1_000_000, 2, Spread(ray=object()))
