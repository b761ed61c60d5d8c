"""Weights & Biases: a project with the study's name, with its own variables (`WANDB_MODE`, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from promptsearch.trackers.tracker import Tracker, flat


class WandB(Tracker):
    """A run of Weights & Biases for each run."""

    needs = "wandb"

    def __init__(self, study: str, folder: Path) -> None:
        import wandb

        super().__init__(study, folder)
        self._wandb = wandb
        self._open: dict[str, Any] = {}

    def begin(self, run: str, facts: Mapping[str, Any], known: str) -> str:
        """Begin a run, or go on with one that was stopped."""
        known = known or uuid4().hex
        # Neither the code of the study nor what is printed is anybody's business.
        settings = self._wandb.Settings(
            console="off", disable_git=True, disable_code=True, x_disable_stats=True
        )
        self._open[run] = self._wandb.init(
            project=self.study,
            name=run,
            id=known,
            resume="allow",
            reinit="create_new",
            config=flat(facts),
            dir=str(self.folder),
            settings=settings,
        )
        return known

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers at their step."""
        self._open[run].log({**values, "tokens": step}, step=step)

    def end(self, run: str, values: Mapping[str, float], failed: bool) -> None:
        """Put the last numbers into the run's summary, and finish it."""
        opened = self._open.pop(run)
        opened.summary.update({f"end/{name}": value for name, value in values.items()})
        opened.finish(exit_code=int(failed))

    def close(self) -> None:
        """Finish the runs that were stopped, which may be gone on with."""
        for opened in self._open.values():
            opened.finish(exit_code=1)
