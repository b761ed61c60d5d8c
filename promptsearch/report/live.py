"""`report.html` while a study runs: what goes on now, above what is known so far.

The part on what goes on is cheap and written every few seconds. The report below it takes seconds,
and is made anew when runs have ended since, as far as that takes a hundredth of the study's time.
The page loads itself anew until the finished report replaces it.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from promptsearch.errors import PromptSearchError
from promptsearch.files import write_aside
from promptsearch.records.load import load_results
from promptsearch.report import notation
from promptsearch.report.html import to_html
from promptsearch.report.page import page_of
from promptsearch.report.progress import clock
from promptsearch.study.events import Progress
from promptsearch.study.time_left import TimeLeft

log = logging.getLogger(__name__)

#: The seconds between two pages, at least.
EVERY = 10.0
#: The share of the study's time that its pages take, at most; the seconds that the first report is
#: supposed to take.
SHARE, FIRST = 0.01, 1.0
#: Where the parts that change stand in a report. No text of a prompt or a task can look like them,
#: since what they hold is escaped.
REFRESH, RUNNING = "<!-- refresh -->", "<!-- running -->"


class LiveReport:
    """A listener that writes `report.html` while a study runs.

    Args:
        folder: The study's folder.
        name: The study's name.
        every: The seconds between two pages, at least.
        share: The share of the study's time that the pages take, at most.
    """

    def __init__(self, folder: Path, name: str, every: float = EVERY, share: float = SHARE) -> None:
        self._folder, self._name = folder, name
        self._every, self._share = every, share
        self._left = TimeLeft()
        self._since, self._begin = datetime.now().astimezone(), time.monotonic()
        self._written = float("-inf")
        self._spent, self._last = 0.0, FIRST  # seconds: of all pages, of the last report
        self._report, self._fresh = "", True  # without the parts that change; whether it is so
        self._failed = 0
        self._template = page_of("running.html.j2", notation=notation)

    def __call__(self, event: Progress) -> None:
        """Take note of an event, and write the page where it is time."""
        self._left(event)
        self._failed += event.stage == "failed"
        self._fresh = self._fresh and not event.over
        now = time.monotonic()
        # Before a run begins there is nothing to be seen, and the folder may be another study's.
        if event.stage not in ("begun", "search", "select", "test", "done", "failed"):
            return
        if now - self._written < self._every or not self._affordable(0.0):
            return
        if not self._fresh and self._affordable(self._last):
            self._make_report()
        with suppress(PromptSearchError):  # a full disk is told by the run that meets it
            write_aside(self._folder / "report.html", self._page())
        self._written = time.monotonic()
        self._spent += self._written - now

    def _affordable(self, seconds: float) -> bool:
        """Whether so many seconds more stay within the share of the time so far."""
        return self._spent + seconds <= self._share * (time.monotonic() - self._begin)

    def _make_report(self) -> None:
        begin = time.monotonic()
        try:
            results = load_results(self._folder)
            # What is not made yet is no fault while it runs.
            self._report = to_html(replace(results, unfinished=()))
        except PromptSearchError as error:  # the finished report says it, if it stays
            log.debug("no report while the study runs: %s", error)
        self._last, self._fresh = time.monotonic() - begin, True

    def _page(self) -> str:
        left, now = self._left.seconds(), datetime.now().astimezone()
        running = self._template.render(
            name=self._name,
            since=f"{self._since:%Y-%m-%d %H:%M:%S}",
            now=f"{now:%Y-%m-%d %H:%M:%S}",
            every=round(self._every),
            over=self._left.over,
            total=self._left.total,
            failed=self._failed,
            left="" if left is None else clock(left),
            runs=sorted(self._left.going, key=lambda run: run.number),
            whole=not self._report,
        )
        if not self._report:
            return running
        refresh = f'<meta http-equiv="refresh" content="{max(1, round(self._every))}">'
        return self._report.replace(REFRESH, refresh, 1).replace(RUNNING, running, 1)
