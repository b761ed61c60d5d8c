"""The time that a study is said to take still, on studies that were made."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from promptsearch import compare
from promptsearch.models import LanguageModel
from promptsearch.records.load import load_results
from promptsearch.records.run import RunRecord
from promptsearch.study.events import Progress
from promptsearch.study.time_left import TimeLeft
from promptsearch.tasks.task import Task
from promptsearch.testing.tiny_task import tiny_study

RESULTS = Path(__file__).parents[2] / "results"
#: The share of its time that a run's search takes; the rest goes to selection and test.
SEARCH = 0.7


def cell(name: str, **facts: Any) -> Progress:
    facts = {"row": name.rpartition("/")[0], "access": "scores", "searches": True, **facts}
    return Progress(name, 1, 4, "waiting", budget=1000, facts=facts)


def going(name: str, seconds: float, spent: int = 0, stage: str = "search") -> Progress:
    return Progress(name, 1, 4, stage, 1.5, spent, 1000, seconds)


def done(name: str, seconds: float) -> Progress:
    return Progress(name, 1, 4, "done", 1.2, 990, 1000, seconds)


def left(*events: Progress) -> float | None:
    found = TimeLeft()
    for event in events:
        found(event)
    return found.seconds()


@cache
def recorded(name: str) -> list[RunRecord]:
    """The runs of a reference study in the order in which they are made: seed by seed."""
    found = load_results(RESULTS / name)
    made = {(run.task, run.label, run.seed): run for run in found.runs}
    every = (
        (task, label, seed)
        for seed in found.study.seeds
        for task in found.study.tasks
        for label in found.study.strategies
    )
    return [made[each] for each in every if each in made]


def told(run: RunRecord, at: int, of: int, passed: float) -> Progress:
    """What a run tells when so many of its seconds have passed."""
    share, name = passed / run.seconds, f"{run.task}/{run.label}/seed{run.seed}"
    spent = round(run.spent * min(1.0, share / SEARCH)) if run.searches else run.spent
    stage = "search" if run.searches and share < SEARCH else "select"
    stage = "done" if share >= 1 else stage
    return Progress(name, at, of, stage, 1.0, spent, run.budget, min(passed, run.seconds))


def replayed(runs: list[RunRecord], workers: int, share: float) -> tuple[float, float]:
    """The time that is said to be left, and that which is, when a share of it is over."""
    free, spans = [0.0] * workers, []
    for run in runs:
        begin = heapq.heappop(free)
        spans.append((begin, begin + run.seconds))
        heapq.heappush(free, begin + run.seconds)
    end = max(free)
    now, account = share * end, TimeLeft()
    for at, run in enumerate(runs, 1):
        facts: Mapping[str, Any] = {
            "row": f"{run.task}/{run.label}",
            "access": run.access,
            "searches": run.searches,
        }
        name = f"{run.task}/{run.label}/seed{run.seed}"
        account(Progress(name, at, len(runs), "waiting", budget=run.budget, facts=facts))
    for at, (run, (begin, _)) in enumerate(zip(runs, spans, strict=True), 1):
        if begin < now:
            account(told(run, at, len(runs), now - begin))
    said = account.seconds()
    assert said is not None
    return said, end - now


@pytest.mark.parametrize("workers", [1, 2, 4])
# Records whose runs were made under like conditions: others have rows that were made again beside
# other work, took their scores from the cache, or have one seed and rows that end at their steps,
# of which no run tells before its end what it leaves of the budget.
@pytest.mark.parametrize("name", ["reference-subjects", "prompts-and-weights"])
def test_it_is_right_within_a_factor_of_one_and_a_half_after_the_first_tenth(
    name: str, workers: int
) -> None:
    runs = recorded(name)
    for share in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        said, true = replayed(runs, workers, share)
        assert true / 1.5 <= said <= true * 1.5, share


def test_a_row_of_given_prompts_does_not_speak_for_searches() -> None:
    """Four searches of 100 s follow, not four more rows that take no time in a search."""
    given = cell("t/manual/seed0", searches=False)
    searches = [cell(f"t/random/seed{seed}") for seed in range(3)]
    selecting = going("t/manual/seed0", 20.0, spent=10, stage="select")
    assert left(given, *searches, selecting) is None  # nothing says yet how long searches take
    begun = going("t/random/seed0", 25.0, spent=250)
    assert left(given, *searches, done("t/manual/seed0", 20.0), begun) == pytest.approx(
        # Expected are 40 s, its share says 100 s and counts by a quarter; the others wait.
        (0.75 * 40 + 0.25 * 100 - 25) + 2 * 40
    )
    assert left(
        given, *searches, done("t/manual/seed0", 20.0), done("t/random/seed0", 100.0)
    ) == pytest.approx(200)


def test_the_time_left_counts_on_the_runs_to_come() -> None:
    assert left() is None and left(going("a", 0.0)) is None
    # This run takes 100 s and has 90 to go; one more like it follows, which nobody announced.
    assert left(Progress("t/a/seed0", 1, 2, "search", 1.5, 100, 1000, 10.0)) == pytest.approx(190)
    # What an earlier call made took its time there; a run that failed says nothing.
    waits = [replace(cell(f"t/a/seed{seed}"), total=3) for seed in range(3)]
    earlier = Progress("t/a/seed0", 1, 3, "done", facts={"seconds": 50.0})
    failed = Progress("t/a/seed1", 1, 3, "failed", message="no")
    assert left(*waits, earlier, failed) == pytest.approx(50)
    assert left(*waits, earlier, failed, Progress("t/a/seed2", 3, 3, "done", seconds=9.0)) == 0


def test_runs_that_the_cache_served_tell_nothing_of_others() -> None:
    waits = [cell(f"t/a/seed{seed}") for seed in range(4)]
    served = replace(done("t/a/seed0", 1.0), facts={"cached_share": 0.9})
    assert left(*waits, served) is None
    assert left(*waits, served, done("t/a/seed1", 50.0)) == pytest.approx(2 * 50)


def test_a_run_tells_how_much_of_it_lay_in_the_cache(
    tiny: LanguageModel, films: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptsearch.study.study.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("promptsearch.report.write.write_report", lambda folder: None)

    def facts(out: str) -> Mapping[str, Any]:
        told: list[Progress] = []
        given = tiny_study([{"manual": {"prompts": ["good movie?"]}}])
        compare(given, out=tmp_path / out, model=tiny, task=films, progress=told.append)
        (ended,) = (event.facts for event in told if event.stage == "done")
        return ended

    first, again = facts("first"), facts("again")
    assert (first["tokens_cached"], first["cached_share"]) == (0, 0.0)
    assert (again["tokens_cached"], again["cached_share"]) == (again["tokens_forward"], 1.0)


def test_training_takes_longer_under_the_same_budget_than_scoring() -> None:
    waits = [cell("t/a/seed0"), cell("t/soft/seed0", access="gradients")]
    assert left(*waits, done("t/a/seed0", 100.0)) == pytest.approx(140 + 2 * 120)


def test_runs_side_by_side_share_the_time() -> None:
    waits = [cell(f"t/a/seed{seed}") for seed in range(4)]
    # 10 s are left of one, 30 s of the other; two of 30 s each follow, one at each place.
    two = going("t/a/seed0", 10.0, spent=500), going("t/a/seed1", 10.0, spent=250)
    assert left(*waits, *two) == pytest.approx(60)
    # One that takes longer than expected is expected to take some time more.
    late = going("t/a/seed1", 50.0, stage="test")
    assert left(*waits, *(done(f"t/a/seed{seed}", 10.0) for seed in (0, 2, 3)), late) == 1
