"""The export of a run's winner.

A check that fails costs the export, never the run: what was scored stays as it is. `result.json`
then holds the reason under `export`, and the prompt lies in the run's folder `unexported`, so that
other runs can start from it and the export can be tried again.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.errors import (
    EndpointDown,
    ExportError,
    ModelError,
    PromptError,
    TaskError,
    TemplateError,
)
from promptsearch.export.certificate import PROBE
from promptsearch.export.saved import SavedPrompt, load_prompt, no_export, write_saved
from promptsearch.export.schema import read_object
from promptsearch.export.winners import PROMPT
from promptsearch.files import exists, remove, write_json
from promptsearch.prompts.kinds import prompt_from_json
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.load import RESULT
from promptsearch.records.measured import ExamplesRecord
from promptsearch.records.metrics import limits, shares_of
from promptsearch.records.run import NoExportRecord, RunRecord
from promptsearch.records.sealed import as_read, write_record
from promptsearch.scoring.layout import prompt_texts
from promptsearch.statistics import Sample, interval
from promptsearch.study.arena import Arena

log = logging.getLogger(__name__)

BEST, UNEXPORTED = "best", "unexported"


def export_winner(arena: Arena, winner: Prompt, result: RunRecord, run: Path) -> RunRecord:
    """Write a winner, load it again and score it anew.

    Args:
        arena: The run's arena.
        winner: The prompt.
        result: How the run ended.
        run: The run's folder.

    Returns:
        The same with what became of the export, and the bytes that must be kept to use the prompt.

    Raises:
        EndpointDown: The server is gone; another call goes on from here.
    """
    best, kept = run / BEST, run / UNEXPORTED
    try:
        export_best(arena, winner, result, best)
    except EndpointDown:
        raise
    except (ExportError, PromptError, ModelError, TemplateError) as error:
        log.error("%s, seed %d has %s", result.label, result.seed, no_export(error))
        remove(best)  # nothing there may be mistaken for an export
        winner.save(kept)
        write_json(kept / PROMPT, winner.to_json())
        failed, size = NoExportRecord(str(error)), _bytes(kept, result.winner.text)
        return replace(result, export=failed, bytes=size)
    remove(kept)
    return replace(result, export=None, bytes=_bytes(best, result.winner.text))


def export_again(arena: Arena, result: RunRecord, run: Path) -> None:
    """Try the export of a finished run anew, where it has none.

    Args:
        arena: The run's arena.
        result: How the run ended.
        run: The run's folder.
    """
    if result.export is None:
        return
    try:
        winner = winner_of(run, result)
    except PromptError as error:
        log.error("%s, seed %d has %s", result.label, result.seed, no_export(error))
        return
    write_record(run / RESULT, "result", asdict(export_winner(arena, winner, result, run)))


def winner_of(run: Path, result: RunRecord) -> Prompt:
    """The prompt that won a finished run: its export, or what was kept where it has none.

    Args:
        run: The run's folder.
        result: How it ended.

    Raises:
        PromptError: It is missing or damaged.
    """
    if result.export is None:
        return load_prompt(run).prompt
    kept = run / UNEXPORTED
    if exists(kept / PROMPT):
        return prompt_from_json(read_object(kept / PROMPT), kept)
    # A slim record, or a folder of before: the result holds the words of most prompts.
    return prompt_from_json(as_read(asdict(result.winner)), kept)


def export_best(arena: Arena, winner: Prompt, result: RunRecord, folder: Path) -> None:
    """Write a run's winner, load it again, and score its probe anew.

    Args:
        arena: The run's arena.
        winner: The prompt.
        result: How the run ended.
        folder: The run's folder `best`.

    Raises:
        ExportError: The loaded prompt scores differently.
    """
    remove(folder)  # an earlier call may have been stopped after it wrote another winner
    examples = arena.task.splits["select"].examples[:PROBE]
    example, task = examples[0], arena.task
    saved = SavedPrompt(
        prompt=_as_text(winner, arena) if arena.lm.served else winner,
        template=arena.template,
        choices=task.choices,
        options=task.options,
        normalise=task.normalise,
        decoding=task.decoding,
        about={
            "model": arena.lm.facts,
            "task": task.name,
            "strategy": result.strategy,
            "label": result.label,
            "seed": result.seed,
            "splits": {name: split.hash for name, split in task.splits.items()},
            "metric": task.metric,
            "select": _measured(result.select),
            "test": _measured(result.test) | _intervals(result.test, task.metric),
            "example": f"{example.fields} -> {example.answer!r}",
            "signature": result.signature,
        },
        probe=examples,
        losses=result.select.losses[:PROBE],
    )
    write_saved(saved, arena.lm, folder)
    load_prompt(folder).verify(arena.lm)


def _as_text(winner: Prompt, arena: Arena) -> Prompt:
    """What a server was sent of a prompt; the ids of its words mean nothing but in the study."""
    if winner.length is None:  # it is text already
        return winner
    return TextPrompt.standing(prompt_texts(arena.template, arena.lm, winner), arena.template)


def _measured(found: ExamplesRecord) -> dict[str, float]:
    """Loss and metric of a split; without the metric where its function failed."""
    return {"loss": found.loss, **({} if found.metric is None else {"metric": found.metric})}


def _intervals(test: ExamplesRecord, metric: str) -> dict[str, Any]:
    """The 95 % intervals of one run's test loss and metric.

    They cover the choice of examples, not the seed.
    """
    losses = interval(Sample(np.array([test.losses])), (0, np.inf))
    ends = {"loss_interval": [losses.low, losses.high]}
    try:
        parts = shares_of(test, metric)
    except TaskError:
        parts = None
    if parts is not None:  # a study's own metric may have failed
        found = interval(Sample(np.array([parts], dtype=np.float64)), limits(test, metric))
        ends["metric_interval"] = [found.low, found.high]
    return {
        "examples": len(test.losses),
        **{key: pair for key, pair in ends.items() if np.isfinite(pair).all()},
    }


def _bytes(folder: Path, text: str) -> int:
    """What must be kept to use a prompt: the file with its numbers, or its text."""
    files = list(folder.glob("*.safetensors"))
    return sum(path.stat().st_size for path in files) if files else len(text.encode())
