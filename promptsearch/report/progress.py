"""What a study shows while it runs: bars on a terminal, one plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn
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
        self._running: dict[str, tuple[TaskID, Progress]] = {}
        self._ended: set[str] = set()
        self._lengths: dict[str, float] = {}
        self._last: dict[str, tuple[str, float]] = {}
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
        if ended:
            self._ended.add(progress.run)
        # A run that was done before takes no seconds, and says nothing about those to come.
        if ended and progress.seconds:
            self._lengths[progress.run] = progress.seconds
        self._move_bars(progress, ended)
        stays = ended or progress.stage == "note"
        if stays or (not self._console.is_terminal and self._due(progress)):
            head = f"[{progress.number}/{progress.total}] {progress.run}: " if progress.run else ""
            self._console.print(
                escape(head + self._facts(progress)), soft_wrap=True, highlight=False
            )

    def time_left(self, progress: Progress) -> float | None:
        """The seconds until the whole study ends; None where nothing is known yet.

        They are guessed from the runs that go on now and from the mean of those that ended; as many
        as go on now are supposed to go on side by side.

        Args:
            progress: Where the study stands.
        """
        ended = self._ended
        going = {run: told for run, (_, told) in self._running.items() if run}
        if progress.stage in ("done", "failed"):
            ended = ended | {progress.run}
            going.pop(progress.run, None)
        else:
            going[progress.run] = progress
            if not (progress.budget and progress.spent):
                return None
        rests = {run: rest for run, told in going.items() if (rest := _rest(told)) is not None}
        lasting = (going[run].seconds + rest for run, rest in rests.items())
        known = [*self._lengths.values(), *lasting]
        if not known:
            return None
        mean = sum(known) / len(known)
        waiting = max(0, progress.total - len(ended) - len(going))
        work = sum(rests.values()) + mean * (waiting + len(going) - len(rests))
        return work / max(1, len(going))

    def _move_bars(self, progress: Progress, ended: bool) -> None:
        left = self.time_left(progress)
        over = [run for run in self._running if not run or (ended and run == progress.run)]
        for run in over:  # what was loading is there as soon as something else is told
            self._bars.remove_task(self._running.pop(run)[0])
        if not ended and progress.stage != "note":
            bar = (
                self._running[progress.run][0]
                if progress.run in self._running
                else self._bars.add_task("", total=None, facts="")
            )
            self._running[progress.run] = bar, progress
            self._bars.update(
                bar,
                description=escape(progress.run),
                completed=progress.spent,
                total=progress.budget,
                facts=escape(self._facts(progress)),
            )
        if progress.run:
            count = f"{len(self._ended)} of {progress.total} runs"
            self._bars.update(
                self._study,
                completed=len(self._ended),
                total=progress.total or None,
                facts=count if left is None else f"{count}, about {_clock(left)} left",
            )

    def _due(self, progress: Progress) -> bool:
        stage, at = self._last.get(progress.run, ("", float("-inf")))
        now = time.monotonic()
        if stage == progress.stage and now - at < INTERVAL:
            return False
        self._last[progress.run] = progress.stage, now
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


def _rest(progress: Progress) -> float | None:
    """The seconds until a run has spent its budget; None where nothing is known yet."""
    if not (progress.budget and progress.spent):
        return None
    return progress.seconds * max(0, progress.budget - progress.spent) / progress.spent


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    )
