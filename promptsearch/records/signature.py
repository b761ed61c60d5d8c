"""The signature of a number: one line that says under which conditions it was measured.

sacreBLEU prints such a line beside every score. Here it has a long form, which a study has, and a
short form, which every score has. Both are made of the record, and no check believes them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from promptsearch.models.scheme import scheme_named
from promptsearch.records.run import RunRecord
from promptsearch.records.study import StudyRecord, TaskRecord


def signature(study: StudyRecord) -> str:
    """The long form: a line that two studies share only if their numbers may be compared.

    Args:
        study: The study, with all that its runs share.

    Returns:
        `key:value` pairs joined by `|`.
    """
    tasks = (f"{name}@{_task_hash(info)}" for name, info in study.tasks.items())
    return _line(
        {
            "name": study.name,
            "model": f"{study.model.name}@{study.model.hash[:8]}",
            "tokenizer": study.model.tokenizer_hash[:8],
            "tasks": ",".join(tasks),
            "score_on": study.score_on,
            "budget": study.budget,
            "seeds": ",".join(map(str, study.seeds)),
            "dtype": study.dtype,
            "device": study.device,
            "race": str(study.race).lower(),
            **_aims(study),
            **_prices(study),
            "threads": study.machine.get("threads", "?"),
            "torch": study.versions.get("torch", "?"),
            **_clock(study),
            "version": study.version,
        }
    )


def short_signature(study: StudyRecord, task: str, budget: int | None) -> str:
    """The short form: a line that two results share only if their numbers may be compared.

    It holds the conditions, not what is compared under them: strategy, options, prompt length,
    pool and seed are left out. Hashes are cut as in the long form.

    Args:
        study: The study, with all that its runs share.
        task: The name of the task that the result is on.
        budget: The most LM tokens that the result may cost, with those of a run that it started
            from; None for no limit.

    Returns:
        `key:value` pairs joined by `|`, about 105 characters.
    """
    return _line(
        {
            "task": _task_hash(study.tasks[task]),
            "model": f"{study.model.hash[:8]}+{study.model.tokenizer_hash[:8]}",
            "budget": budget,
            "on": study.tasks[task].score_on,
            "race": str(study.race).lower(),
            **_aims(study),
            **_prices(study),
            "dtype": study.dtype,
            **_kept(study),
            **_clock(study),
            **_measured(study.tasks[task]),
            "version": study.version,
        }
    )


def run_signature(study: StudyRecord, run: RunRecord) -> str:
    """The short form of a finished run: as recorded; made of the record where it is empty.

    Args:
        study: The run's study.
        run: The run.
    """
    # What is no reference had the study's budget, a run that it started from included.
    budget = study.budget
    if run.reference and run.budget is not None:
        budget = run.budget + run.ledger.brought
    return run.signature or short_signature(study, run.task, budget)


def _line(parts: dict[str, Any]) -> str:
    return "|".join(f"{key}:{value}" for key, value in parts.items())


def _clock(study: StudyRecord) -> dict[str, str]:
    """The limit in seconds, where there is one: it lasts as long as the machine is fast."""
    if not study.max_seconds:
        return {}
    return {"seconds": f"{study.max_seconds:g}@{_hash(study.machine)}"}


def _kept(study: StudyRecord) -> dict[str, str]:
    """In how few bits the model's layers keep their weights; nothing where they keep all."""
    scheme = scheme_named(study.model.name)
    return {"weights": scheme} if scheme else {}


def _prices(study: StudyRecord) -> dict[str, int]:
    """The version of the prices, without which a budget says nothing; nothing for the first one."""
    return {"prices": study.prices} if study.prices > 1 else {}


def _aims(study: StudyRecord) -> dict[str, str]:
    """What is searched and selected by, where it is not the loss."""
    aims = {"objective": study.objective} if study.objective else {}
    return aims | ({"select": study.select_by} if study.select_by != "loss" else {})


def _measured(info: TaskRecord) -> dict[str, str]:
    """How text answers are generated, and what the metric depends on; nothing for choices.

    A metric's own signature has parts, too, which are joined by commas here.
    """
    if not info.decoding:
        return {}
    return {"decoding": info.decoding, "metric": info.measured[0].replace("|", ",")}


def _task_hash(info: TaskRecord) -> str:
    content = [
        info.kind,
        info.template,
        info.metric,
        info.choices,
        {name: split.hash for name, split in info.splits.items()},
        *([info.decoding, *info.measured] if info.decoding else []),
    ]
    if info.end is not None:
        content.append({"end": info.end})
    if info.normalise != "none":
        content.append({"normalise": info.normalise})
    return _hash(content)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
