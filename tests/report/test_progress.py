"""What a study shows while it runs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

import promptsearch.report.progress
from promptsearch.report.progress import Display
from promptsearch.study.events import Progress


def lines(*steps: Progress, terminal: bool = False, quiet: bool = False) -> list[str]:
    file = io.StringIO()
    with Display(
        Console(file=file, width=150, force_terminal=terminal, quiet=quiet, color_system=None)
    ) as display:
        for step in steps:
            display(step)
    return file.getvalue().splitlines()


def searching(spent: int, seconds: float, number: int = 1, total: int = 3) -> Progress:
    return Progress(f"t/run{number}/seed0", number, total, "search", 1.5, spent, 1000, seconds)


def test_plain_lines_come_with_each_stage_and_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0])
    accurate = Progress("t/run3/seed0", 3, 3, "done", 0.75, 995, 1000, 61.0, aim="accuracy")
    monkeypatch.setattr(promptsearch.report.progress.time, "monotonic", lambda: next(now))
    assert lines(
        Progress("", 0, 0, "loading", message="loading small"),
        searching(100, 10.0),
        searching(200, 20.0),
        searching(300, 30.0),
        Progress("t/run1/seed0", 1, 3, "test", 1.5, 990, 1000, 60.0),
        Progress("t/run1/seed0", 1, 3, "done", 1.25, 995, 1000, 61.0),
        Progress("t/[b]run2/seed0", 2, 3, "failed", message="it [gave] up"),
        replace(accurate, facts={"cached_share": 0.05}),
        replace(accurate, seconds=0.5, facts={"cached_share": 0.98}),
    ) == [
        "loading small",
        "[1/3] t/run1/seed0: search, best loss 1.5000, 100 tokens (10%), about 4:50 left",
        "[1/3] t/run1/seed0: search, best loss 1.5000, 200 tokens (20%), about 4:40 left",
        "[1/3] t/run1/seed0: test, best loss 1.5000, 990 tokens (99%), about 2:18 left",
        "[1/3] t/run1/seed0: done, best loss 1.2500, 995 tokens (100%), 61.0 s",
        "[2/3] t/[b]run2/seed0: failed: it [gave] up",
        "[3/3] t/run3/seed0: done, best accuracy 0.7500, 995 tokens (100%), 61.0 s",
        "[3/3] t/run3/seed0: done, best accuracy 0.7500, 995 tokens (100%), 0.5 s with 98% cached",
    ]


def test_runs_side_by_side_have_a_line_each() -> None:
    text = "\n".join(
        lines(
            searching(500, 10.0, number=1, total=4),
            searching(250, 10.0, number=2, total=4),
            terminal=True,
        )
    )
    assert "t/run1/seed0" in text and "t/run2/seed0" in text


def test_long_times_are_shown_in_hours() -> None:
    (line,) = lines(searching(10, 50.0, total=1))
    assert line.endswith("about 1:22:30 left")


def test_a_terminal_gets_bars_that_leave_only_the_ends_of_runs() -> None:
    text = "\n".join(
        lines(
            searching(500, 10.0),
            Progress("t/run1/seed0", 1, 3, "done", 1.25, 995, 1000, 20.0),
            terminal=True,
        )
    )
    assert "study" in text
    assert "1 of 3 runs" in text
    assert text.count("[1/3] t/run1/seed0: done, best loss 1.2500, 995 tokens (100%), 20.0 s") == 1
    assert "[1/3] t/run1/seed0: search" not in text


def test_quiet_shows_nothing() -> None:
    assert lines(searching(500, 10.0), Progress("a", 1, 3, "done"), quiet=True) == []
    assert lines(searching(500, 10.0), quiet=True, terminal=True) == []
