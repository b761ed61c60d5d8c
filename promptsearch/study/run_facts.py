"""What the events of a run say of it, as JSON values by name: for listeners that have no model.

Nothing here is secret: options stand as the study file gives them, and of an endpoint only the name
of its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from promptsearch.records.ledger import BILL
from promptsearch.records.run import RunRecord, SettingsRecord
from promptsearch.records.study import StudyRecord
from promptsearch.study.run import Run

#: The settings of a run that `begun` tells.
_TOLD = ("strategy", "label", "options", "seed", "budget", "length")


def waiting_facts(run: Run) -> dict[str, Any]:
    """What the time of a run may depend on: its row, and what its strategy does.

    Args:
        run: The run.
    """
    return {
        "row": f"{run.arena.task.name}/{run.label}",
        "access": run.strategy.access.value,
        "searches": run.strategy.searches,
    }


def begun_facts(settings: SettingsRecord, task: str, study: StudyRecord) -> dict[str, Any]:
    """What a run is told to do, and on what.

    Args:
        settings: The run's.
        task: The name of its task.
        study: Its study.
    """
    return {
        "study": study.name,
        "task": task,
        **{name: getattr(settings, name) for name in _TOLD},
        "model": study.model.name,
        "model_hash": study.model.hash,
        "dtype": study.dtype,
        "version": study.version,
    }


def done_facts(result: RunRecord, told: Mapping[str, Any]) -> dict[str, Any]:
    """How a run ended, in numbers: scores in nats and in the task's metric, tokens and seconds.

    Args:
        result: The run's.
        told: What it was told to do, from `begun_facts`, which the event repeats as `told`.
    """
    ledger = asdict(result.ledger)
    found = {
        "search_loss": result.search.loss_fp32,
        "select_loss": result.select.loss,
        "select_metric": result.select.metric,
        "test_loss": result.test.loss,
        "test_metric": result.test.metric,
        "gap": result.gap,
        "tokens": result.spent,
        **{f"tokens_{kind}": ledger[kind] for kind in (*BILL, "cached")},
        "cached_share": result.ledger.cached_share,
        "proposals": result.proposals,
        "seconds": result.seconds,
        "length": result.length,
        "trainable": result.trainable,
    }
    known = {name: value for name, value in found.items() if value is not None and isfinite(value)}
    return {**known, "told": dict(told)}
