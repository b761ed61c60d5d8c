"""The report while a study runs: what stands there, when, and what it takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import promptsearch.report.live
from promptsearch.report.html import to_html
from promptsearch.report.live import EVERY, SHARE, LiveReport
from promptsearch.study.events import Progress

RECORD = Path(__file__).parents[2] / "results" / "exhaustive-subjects"
REFRESH = '<meta http-equiv="refresh" content="10">'


class Clock:
    """A clock that a test moves, and that pages move by what they take.

    Args:
        page: Seconds of a page.
        report: Seconds of a report.
    """

    def __init__(self, page: float, report: float) -> None:
        self.now, self.pages, self.reports = 0.0, list[float](), list[float]()
        self.took, self._page, self._report = 0.0, page, report

    def monotonic(self) -> float:
        return self.now

    def write(self, path: Path, page: str) -> None:
        self.pages.append(self.now)
        self._pass(self._page)

    def report(self, *_: object) -> str:
        self.reports.append(self.now)
        self._pass(self._report)
        return "report"

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.took += seconds


def event(stage: str, spent: int = 100, run: str = "t/a/seed0", **more: object) -> Progress:
    return Progress(run, 1, 3, stage, 0.75, spent, 1000, 2.0, **more)  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock(page=0.02, report=3.0)
    monkeypatch.setattr(promptsearch.report.live, "time", found)
    return found


def test_the_page_shows_what_goes_on_and_then_what_is_known(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "study"
    shutil.copytree(RECORD, folder)
    live, page = LiveReport(folder, "<b>capitals</b>"), folder / "report.html"
    assert not page.exists()
    live(event("waiting", run="t/b/seed0", facts={"row": "b", "access": "scores", "searches": 1}))
    live(Progress("", 0, 0, "loading", message="loading"))
    assert not page.exists()  # nothing runs yet, and the folder may be another study's
    live(event("begun", run="t/<i>a</i>/seed0"))
    text = page.read_text("utf-8")
    assert REFRESH in text and "Running: 0 of 3 runs have ended" in text
    assert "&lt;b&gt;capitals" in text and "t/&lt;i&gt;a" in text and "<i>" not in text
    clock.now = EVERY - 1
    live(event("done", run="t/<i>a</i>/seed0"))
    assert page.read_text("utf-8") == text  # not that often
    clock.now = EVERY
    live(event("search", 250))
    text = page.read_text("utf-8")
    assert "1 of 3 runs have ended" in text and "25 %" in text and "test metric" not in text
    clock.now = 100 + EVERY  # a hundredth of it pays for the report
    live(event("search", 500))
    text = page.read_text("utf-8")
    assert REFRESH in text and "1 of 3 runs have ended" in text and "50 %" in text
    assert 'class="verdict' in text and "Missing runs" not in text
    assert text.count("<html") == text.count("<main") == 1


def test_a_finished_report_loads_itself_no_more() -> None:
    from promptsearch.records.load import load_results

    text = to_html(load_results(RECORD))
    assert 'http-equiv="refresh"' not in text and "Running:" not in text


def test_pages_take_no_more_than_a_hundredth_of_the_time(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promptsearch.report.live, "write_aside", clock.write)
    monkeypatch.setattr(promptsearch.report.live, "load_results", clock.report)
    monkeypatch.setattr(promptsearch.report.live, "replace", lambda results, **_: results)
    monkeypatch.setattr(promptsearch.report.live, "to_html", lambda results: "")
    live = LiveReport(tmp_path, "s")
    for second in range(6_000):
        clock.now += 1.0
        live(event("done", run=f"t/a/seed{second}") if second % 40 == 0 else event("search"))
        if clock.reports and clock.now > 400:
            assert clock.took <= SHARE * clock.now + 1e-6
    # Pages come as often as they may, reports about as often as they can be paid.
    assert len(clock.pages) > 0.8 * 6_000 / EVERY
    assert 0.5 * 6_000 * SHARE / 3 < len(clock.reports) < 6_000 * SHARE / 3


def test_what_cannot_be_read_or_written_now_costs_the_report_and_not_the_run(
    tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "study.json").write_text("{")
    live = LiveReport(tmp_path, "s")
    clock.now = 1_000
    live(event("done"))
    assert "Running: 1 of 3" in (tmp_path / "report.html").read_text("utf-8")
    gone = LiveReport(tmp_path / "study.json" / "no folder", "s")
    gone(event("begun"))
