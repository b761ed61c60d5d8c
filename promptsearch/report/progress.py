"""What a study shows while it runs: bars on a terminal, one plain line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from promptsearch.records.ledger import MOST_CACHED
from promptsearch.study.events import Progress
from promptsearch.study.time_left import TimeLeft

#: The seconds between two plain lines about the same stage.
INTERVAL = 15.0


class Display:
    """A listener that shows the events of a study.

    Args:
        console: The console to print on; a terminal gets bars, anything else gets plain lines.

    Example:
        >>> with Display(Console(stderr=True)) as display:  # doctest: +SKIP
        ...     compare(config, progress=display)
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: dict[str, TaskID] = {}
        self._last: dict[str, tuple[str, float]] = {}
        self._left = TimeLeft()
        self._asked, self._known = float("-inf"), ""
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )
        self._study = self._bars.add_task("study", total=None, facts="")

    def __enter__(self) -> Display:
        """Start the bars."""
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bars, so that what follows stands on a clean screen."""
        self._bars.stop()

    def __call__(self, event: Progress) -> None:
        """Show where the study stands."""
        self._left(event)
        if event.stage in ("waiting", "ended"):
            return
        now, live = time.monotonic(), self._console.is_terminal
        if event.over or now - self._asked >= 1.0:  # with many runs it takes its time to count
            left, self._asked = self._left.seconds(), now
            self._known = "" if left is None else f", about {clock(left)} left"
        if live:
            self._move_bars(event)
        if event.over or event.stage == "note" or (not live and self._due(event, now)):
            head = f"[{event.number}/{event.total}] {event.run}: " if event.run else ""
            told = head + self._facts(event)
            self._console.print(escape(told), soft_wrap=True, highlight=False)

    def _move_bars(self, event: Progress) -> None:
        over = [run for run in self._running if not run or (event.over and run == event.run)]
        for run in over:  # what was loading is there as soon as something else is told
            self._bars.remove_task(self._running.pop(run))
        if not event.over and event.stage != "note":
            if event.run not in self._running:
                self._running[event.run] = self._bars.add_task("", total=None, facts="")
            self._bars.update(
                self._running[event.run],
                description=escape(event.run),
                completed=event.spent,
                total=event.budget,
                facts=escape(self._facts(event)),
            )
        if event.run:
            count = f"{self._left.over} of {event.total} runs"
            self._bars.update(
                self._study,
                completed=self._left.over,
                total=event.total or None,
                facts=count + self._known,
            )

    def _due(self, event: Progress, now: float) -> bool:
        stage, at = self._last.get(event.run, ("", float("-inf")))
        if event.stage == "begun" or (stage == event.stage and now - at < INTERVAL):
            return False
        self._last[event.run] = event.stage, now
        return True

    def _facts(self, event: Progress) -> str:
        """What a line says of an event; below bars, one of them says the time left."""
        facts = [event.stage] if event.run else []
        if event.best is not None:
            facts.append(f"best {event.aim} {event.best:.4f}")
        if event.spent:
            share = f" ({event.spent / event.budget:.0%})" if event.budget else ""
            facts.append(f"{event.spent:,} tokens{share}")
        if event.over and event.seconds:
            much = f" with {event.cached:.0%} cached" if event.cached > MOST_CACHED else ""
            facts.append(f"{event.seconds:.1f} s{much}")
        told = ", ".join(facts)
        if event.run and not event.over and not self._console.is_terminal:
            told += self._known
        return ": ".join(filter(None, [told, event.message]))


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: 4:50, 1:22:30."""
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    )
