"""The export of a run's winner. A check that fails costs the export, never the run: what was scored stays as it is.

`result.json` then holds the reason under `export`, and the numbers of a trained prompt lie in the run's folder `unexported`, so
that other runs can start from it and the export can be tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import EndpointDown, ExportError, ModelError, PromptError, TemplateError
from promptsearch.export.saved import export_best, load_prompt, no_export
from promptsearch.files import remove
from promptsearch.prompt import Prompt, TrainedPrompt, prompt_from_json, save_trained
from promptsearch.run import Arena
from promptsearch.sealed import read_record, write_record

log = logging.getLogger(__name__)

BEST, UNEXPORTED = "best", "unexported"


def export_winner(arena: Arena, winner: Prompt, result: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Write a winner, load it again and score it anew.

    Args:
        arena: Of the run.
        winner: The prompt.
        result: What `result.json` will hold.
        run: The run's folder.

    Returns:
        What `result.json` holds besides: `export` is None, or says why there is none under `error`; and the `bytes` that must be
        kept to use the prompt.

    Raises:
        EndpointDown: The server is gone; another call goes on from here.
    """
    best, kept = run / BEST, run / UNEXPORTED
    try:
        export_best(arena, winner, result, best)
    except EndpointDown:
        raise
    except (ExportError, PromptError, ModelError, TemplateError) as error:
        log.error("%s, seed %d has %s", result["label"], result["seed"], no_export(error))
        remove(best)  # nothing there may be mistaken for an export
        if isinstance(winner, TrainedPrompt):
            save_trained(winner, kept / f"{winner.key}.safetensors")
        return {"export": {"error": str(error)}, "bytes": _bytes(kept, result["winner"]["text"])}
    remove(kept)
    return {"export": None, "bytes": _bytes(best, result["winner"]["text"])}


def export_again(arena: Arena, run: Path) -> None:
    """Try the export of a finished run anew, where it has none.

    Args:
        arena: Of the run.
        run: The run's folder.
    """
    path = run / "result.json"
    result = read_record(path, "result", "restore it")
    if result.get("export") is None:
        return
    try:
        winner = winner_of(run, result)
    except PromptError as error:
        log.error("%s, seed %d has %s", result["label"], result["seed"], no_export(error))
        return
    write_record(path, "result", result | export_winner(arena, winner, result, run))


def winner_of(run: Path, result: Mapping[str, Any]) -> Prompt:
    """The prompt that won a finished run: its export, or what was kept where it has none.

    Args:
        run: The run's folder.
        result: Its `result.json`.

    Raises:
        PromptError: It is missing or damaged.
    """
    if result.get("export") is None:
        return load_prompt(run).prompt
    return prompt_from_json(dict(result["winner"]), run / UNEXPORTED)


def _bytes(folder: Path, text: str) -> int:
    """What must be kept to use a prompt: the file with its numbers, or its text."""
    files = list(folder.glob("*.safetensors"))
    return sum(path.stat().st_size for path in files) if files else len(text.encode())
