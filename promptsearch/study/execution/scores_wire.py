"""Scores as JSON values, to the last bit: JSON itself has no number that stands for none."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from promptsearch.records.scores import Floats, Scores


def told_scores(scores: Scores) -> dict[str, Any]:
    """Scores as a replica tells them."""
    return {
        "losses": _told(scores.losses),
        "metric": _told(scores.metric),
        "choices": None if scores.choices is None else _told(scores.choices),
        "computed": scores.computed,
        "failures": {str(i): reason for i, reason in scores.failures.items()},
    }


def read_scores(told: dict[str, Any]) -> Scores:
    """The scores that a replica told."""
    return Scores(
        losses=_read(told["losses"]),
        metric=_read(told["metric"]),
        choices=None if told["choices"] is None else _read(told["choices"]),
        computed=told["computed"],
        failures={int(i): reason for i, reason in told["failures"].items()},
    )


def _told(table: Floats) -> dict[str, Any]:
    raw = np.ascontiguousarray(table, dtype="<f8").tobytes()
    return {"shape": list(table.shape), "numbers": base64.b64encode(raw).decode("ascii")}


def _read(told: dict[str, Any]) -> Floats:
    raw = base64.b64decode(told["numbers"])
    return np.frombuffer(raw, dtype="<f8").reshape(told["shape"]).astype(np.float64)
