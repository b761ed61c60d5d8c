"""The runs of a study as one flat table."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import pandas as pd

from promptsearch.records.results import Results
from promptsearch.records.run import FailedRecord, RunRecord


def run_table(results: Results) -> pd.DataFrame:
    """The table of all runs, a row each, failed ones included, whose other values are missing.

    Args:
        results: The results, from `load_results`.

    Returns:
        Columns named as in `result.json`, nested keys joined by `_`; options as JSON.
    """
    done = [_done(run) for run in results.runs]
    columns = [key for row in done for key in row]
    rows = done + [_failed(run) for run in results.failed]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*_KEYS, *columns])))
    return frame.convert_dtypes()


def to_parquet(frame: pd.DataFrame) -> bytes:
    """The table as the content of a Parquet file."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


_TRAINING = ("rate", "steps", "before", "after", "reached", "clipped", "moved", "winner", "empty")
_KEYS = ("task", "label", "strategy", "seed", "status", "error", "options")


def _done(run: RunRecord) -> dict[str, Any]:
    return {
        **_common(run),
        "status": "done",
        "error": None,
        "access": run.access,
        "searches": run.searches,
        "reference": run.reference,
        "deterministic": run.deterministic,
        "dtype": run.dtype,
        "budget": run.budget,
        "spent": run.spent,
        **{
            f"ledger_{key}": value for key, value in run.ledger.to_json().items() if key != "budget"
        },
        **({} if run.flops is None else {"flops": run.flops}),
        **({} if run.cost is None else {"cost": run.cost}),
        "seconds": run.seconds,
        "stopped": run.stopped,
        "proposals": run.proposals,
        "failures": run.failures,
        "length": run.length,
        "trainable": run.trainable,
        "stored": run.stored,
        "bytes": run.bytes,
        "search_loss": run.search.loss,
        "search_loss_fp32": run.search.loss_fp32,
        "select_loss": run.select.loss,
        "select_metric": run.select.metric,
        "test_loss": run.test.loss,
        "test_metric": run.test.metric,
        **{f"test_{each.name}": each.score for each in run.test.metrics[1:]},
        "unended": run.test.unended,
        "gap": run.gap,
        **_trained(run),
        "start_task": None if run.start is None else run.start.task,
        "start_run": None if run.start is None else run.start.run,
        "start_seed": None if run.start is None else run.start.seed,
        "export_error": None if run.export is None else run.export.error,
        "winner_kind": run.winner.kind,
        "winner_key": run.winner.key,
        "winner_text": run.winner.text,
        "signature": run.signature,
    }


def _trained(run: RunRecord) -> dict[str, Any]:
    known = {} if run.training is None else asdict(run.training)
    values = {f"training_{key}": known.get(key) for key in _TRAINING}
    return {**values, "training_findings": "; ".join(known.get("findings", ()))}


def _failed(run: FailedRecord) -> dict[str, Any]:
    return {**_common(run), "status": "failed", "error": run.error}


def _common(run: RunRecord | FailedRecord) -> dict[str, Any]:
    options = json.dumps(run.options, ensure_ascii=False, default=str)
    return {
        "task": run.task,
        "label": run.label,
        "strategy": run.strategy,
        "seed": run.seed,
        "options": options,
    }
