"""MLflow: an experiment with the study's name, where `MLFLOW_TRACKING_URI` says.

Winners go to its prompt registry by `promptsearch export --to mlflow`, see
`promptsearch.export.mlflow`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.trackers.tracker import Tracker, flat

#: The most characters of a parameter.
_LONGEST = 500


class MLflow(Tracker):
    """A run of MLflow for each run, by MLflow's client, which needs no run to be the active one."""

    needs = "mlflow"

    def __init__(self, study: str, folder: Path) -> None:
        from mlflow import MlflowClient

        super().__init__(study, folder)
        self._client = MlflowClient()
        self._ids: dict[str, str] = {}
        found = self._client.get_experiment_by_name(study)
        self._experiment = (
            self._client.create_experiment(study) if found is None else found.experiment_id
        )

    def begin(self, run: str, facts: Mapping[str, Any], known: str) -> str:
        """Make a run, or set one that was stopped running again."""
        if known:
            self._client.set_terminated(known, "RUNNING")
            self._ids[run] = known
            return known
        made = self._client.create_run(self._experiment, run_name=run)
        self._ids[run] = made.info.run_id
        for name, value in flat(facts).items():
            self._client.log_param(self._ids[run], name, str(value)[:_LONGEST])
        return self._ids[run]

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers as metrics."""
        for name, value in values.items():
            self._client.log_metric(self._ids[run], name, value, step=step)

    def end(self, run: str, values: Mapping[str, float], failed: bool) -> None:
        """Log the last numbers, and say that the run is over."""
        if values:
            named = {f"end.{name}": value for name, value in values.items()}
            self.log(run, int(values["tokens"]), named)
        self._client.set_terminated(self._ids.pop(run), "FAILED" if failed else "FINISHED")

    def close(self) -> None:
        """Say of runs that were stopped that they were."""
        for known in self._ids.values():
            self._client.set_terminated(known, "KILLED")
