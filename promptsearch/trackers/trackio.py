"""Trackio: a project with the study's name, here or in a Space (`TRACKIO_SPACE_ID`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.trackers.tracker import Tracker, flat


class Trackio(Tracker):
    """A run of Trackio for each run."""

    needs = "trackio"

    def __init__(self, study: str, folder: Path) -> None:
        import trackio

        super().__init__(study, folder)
        self._trackio = trackio
        self._open: dict[str, Any] = {}

    def begin(self, run: str, facts: Mapping[str, Any], known: str) -> str:
        """Begin a run, or go on with one that was stopped."""
        self._open[run] = self._trackio.init(
            project=self.study, name=run, resume="allow", config=flat(facts), embed=False
        )
        return run

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers at their step."""
        self._open[run].log(dict(values), step=step)

    def end(self, run: str, values: Mapping[str, float], failed: bool) -> None:
        """Log the last numbers, and finish the run."""
        opened = self._open.pop(run)
        if values:
            named = {f"end/{name}": value for name, value in values.items()}
            opened.log(named, step=int(values["tokens"]))
        opened.finish()

    def close(self) -> None:
        """Finish the runs that were stopped."""
        for opened in self._open.values():
            opened.finish()
