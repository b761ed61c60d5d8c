"""TensorBoard: a folder of events for each run, below `tensorboard/` in the study's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.trackers.tracker import Tracker, flat

#: The folder of a study that `tensorboard --logdir` is given.
EVENTS = "tensorboard"


class TensorBoard(Tracker):
    """A writer of event files, with TensorBoard's own package and no framework beside it."""

    needs = "tensorboard"

    def __init__(self, study: str, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        super().__init__(study, folder)
        self._writer = EventFileWriter
        self._open: dict[str, Any] = {}

    def begin(self, run: str, facts: Mapping[str, Any], known: str) -> str:
        """Open a file of events in the run's folder, beside those of killed studies."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._open[run] = self._writer(str(self.folder / EVENTS / run))
        if not known:
            self._add(run, hparams_pb(flat(facts), trial_id=run), 0)
        return run

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers as scalars."""
        self._add(run, self._scalars(values), step)
        self._open[run].flush()

    def end(self, run: str, values: Mapping[str, float], failed: bool) -> None:
        """Write the last numbers, at the tokens that the run has spent, and close the file."""
        if values:
            named = {f"end/{name}": value for name, value in values.items()}
            self._add(run, self._scalars(named), int(values["tokens"]))
        self._open.pop(run).close()

    def close(self) -> None:
        """Close the files of runs that were stopped."""
        for writer in self._open.values():
            writer.close()

    def _scalars(self, values: Mapping[str, float]) -> Any:
        from tensorboard.compat.proto.summary_pb2 import Summary

        found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        return Summary(value=found)

    def _add(self, run: str, summary: Any, step: int) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, summary=summary)
        self._open[run].add_event(event)
