"""What a study shows while it runs: bars on a terminal, one plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:  # importing it loads torch, for which a command's `--help` must not wait
    from promptsearch.study.events import Progress

#: The seconds between two plain lines about the same stage.
INTERVAL = 15.0


class Display:
    """A display of each `Progress` that a study reports.

    Args:
        console: The console to print on; a terminal gets bars, anything else gets plain lines.

    Example:
        >>> with Display(Console(stderr=True)) as display:  # doctest: +SKIP
        ...     compare(config, progress=display)
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lengths: dict[str, float] = {}
        self._last = ("", "", float("-inf"))
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )
        self._study = self._bars.add_task("study", total=None, facts="")
        self._run = self._bars.add_task("", total=None, facts="")

    def __enter__(self) -> Display:
        """Start the bars."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bars, so that what follows stands on a clean screen."""
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Show where the study stands."""
        ended = progress.stage in ("done", "failed")
        # A run that was done before takes no seconds, and says nothing about those to come.
        if ended and progress.seconds:
            self._lengths[progress.run] = progress.seconds
        if self._console.is_terminal:
            self._move_bars(progress, ended)
        stays = ended or progress.stage == "note"
        if stays or (not self._console.is_terminal and self._due(progress)):
            head = f"[{progress.number}/{progress.total}] {progress.run}: " if progress.run else ""
            self._console.print(
                escape(head + self._facts(progress)), soft_wrap=True, highlight=False
            )

    def time_left(self, progress: Progress) -> float | None:
        """The seconds until the whole study ends; None where nothing is known yet.

        They are guessed from the present run and from the mean of the runs that ended.

        Args:
            progress: Where the study stands.
        """
        run = None
        if progress.stage in ("done", "failed"):
            run = 0.0
        elif progress.budget and progress.spent:
            run = progress.seconds * max(0, progress.budget - progress.spent) / progress.spent
        known = [
            *self._lengths.values(),
            *([] if run is None or run == 0 else [progress.seconds + run]),
        ]
        if run is None or not known:
            return None
        return run + (progress.total - progress.number) * sum(known) / len(known)

    def _move_bars(self, progress: Progress, ended: bool) -> None:
        left = self.time_left(progress)
        count = f"run {progress.number} of {progress.total}"
        facts = (
            ""
            if not progress.run
            else count
            if left is None
            else f"{count}, about {_clock(left)} left"
        )
        self._bars.update(
            self._study,
            completed=max(0, progress.number - (not ended)),
            total=progress.total or None,
            facts=facts,
        )
        self._bars.update(
            self._run,
            description=escape(progress.run),
            completed=progress.spent,
            total=progress.budget,
            facts=escape(self._facts(progress)),
        )

    def _due(self, progress: Progress) -> bool:
        run, stage, at = self._last
        now = time.monotonic()
        if (run, stage) == (progress.run, progress.stage) and now - at < INTERVAL:
            return False
        self._last = (progress.run, progress.stage, now)
        return True

    def _facts(self, progress: Progress) -> str:
        facts = [progress.stage] if progress.run else []
        if progress.best is not None:
            facts.append(f"best loss {progress.best:.4f}")
        if progress.spent:
            share = f" ({progress.spent / progress.budget:.0%})" if progress.budget else ""
            facts.append(f"{progress.spent:,} tokens{share}")
        if progress.stage in ("done", "failed"):
            facts += [f"{progress.seconds:.1f} s"] if progress.seconds else []
        elif not self._console.is_terminal and (left := self.time_left(progress)) is not None:
            facts.append(f"about {_clock(left)} left")
        return ": ".join(filter(None, [", ".join(facts), progress.message]))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    )
