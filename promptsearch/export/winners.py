"""The winners of a whole study in one file, from which each loads as from its run's folder.

`winners.safetensors` holds the `prompt.json` of each run's export in its header (under `winners`,
by `TASK/LABEL/seed0`), and the numbers of trained prompts that are small. Whoever needs larger ones
makes the run again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from promptsearch.errors import PromptError
from promptsearch.export.schema import PromptFacts, Values, checked, read_object
from promptsearch.files import exists, shown, write_aside, write_json
from promptsearch.plain.json import parse_json
from promptsearch.prompts.kinds import TRAINED
from promptsearch.prompts.tensors import read_tensors

WINNERS, PROMPT = "winners.safetensors", "prompt.json"
#: The most bytes that the numbers of a winner may have to be kept.
LARGEST = 32 << 10


class _Winner(Values):
    """What of a `prompt.json` must be right for it to be packed."""

    prompt: PromptFacts


def pack_winners(study: Path, out: Path) -> None:
    """Write the winners of a study into one file: those in folders of runs, and those in a file.

    Args:
        study: The study's folder.
        out: The folder of the file.

    Raises:
        PromptError: A winner is damaged.
    """
    told: dict[str, Any] = {}
    numbers: dict[str, Tensor] = {}
    for name, winner, tensors in [*_packed(study), *_exported(study)]:
        told[name] = winner
        numbers |= {f"{name}/{key}": tensor for key, tensor in tensors.items()}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    write_aside(out / WINNERS, safetensors.torch.save(numbers, metadata={"winners": text}))


def _exported(study: Path) -> Iterator[tuple[str, Any, dict[str, Tensor]]]:
    """The name, `prompt.json` and numbers of each export that is small enough."""
    for path in sorted(study.glob(f"*/*/seed*/best/{PROMPT}")):
        told = read_object(path)
        facts = checked(_Winner, told, path).prompt
        # Other files of numbers in the folder are those of an earlier winner.
        numbers = path.with_name(f"{facts.key}.safetensors")
        kept = exists(numbers)
        if facts.kind not in TRAINED or (kept and numbers.stat().st_size <= LARGEST):
            name = "/".join(path.relative_to(study).parts[:3])
            yield name, told, read_tensors(numbers) if kept else {}


def packed_winners(study: Path) -> set[str]:
    """The runs whose winners lie in a study's file of winners, each as `TASK/LABEL/seed0`."""
    return {name for name, _, _ in _packed(study)}


def unpack_winner(run: Path, folder: Path) -> bool:
    """Write the winner of a run as its folder `best` held it, from the file of all winners.

    Args:
        run: Where the run's folder would be.
        folder: Where the files go.

    Returns:
        Whether the study has such a file.

    Raises:
        PromptError: The file is damaged, or does not hold this winner.
    """
    run = run.absolute()
    if len(run.parts) < 4 or not exists(path := run.parents[2] / WINNERS):
        return False
    name = "/".join(run.parts[-3:])
    found = next((winner for winner in _packed(path.parent) if winner[0] == name), None)
    if found is None:
        raise PromptError(
            f"{shown(path)} does not hold the winner of {name}: it keeps words, and numbers of up "
            f"to {LARGEST >> 10} KiB. To have it, make the study again, with another folder as "
            "--out; slim.json beside it has the command"
        )
    _, told, numbers = found
    write_json(folder / PROMPT, told)
    if numbers:
        key = str(told["prompt"]["key"])
        whole = safetensors.torch.save(numbers, metadata={"key": key})
        write_aside(folder / f"{key}.safetensors", whole)
    return True


def _packed(study: Path) -> Iterator[tuple[str, Any, dict[str, Tensor]]]:
    """The name, `prompt.json` and numbers of each winner in a study's file, if it has one."""
    path = study / WINNERS
    if not exists(path):
        return
    tensors = read_tensors(path, "winners")
    try:
        with safe_open(path, "pt") as file:
            winners = parse_json((file.metadata() or {})["winners"].encode())
        told = {str(name): winner for name, winner in winners.items()}
        for winner in told.values():
            # The key becomes the name of a file, so that nothing but digits may stand in it.
            if not re.fullmatch(r"[0-9a-f]{20}", winner["prompt"]["key"]):
                raise ValueError("a prompt has no key")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PromptError(f"{shown(path)} is damaged: {error}") from error
    for name, winner in told.items():
        before = f"{name}/"
        mine = {key.removeprefix(before): t for key, t in tensors.items() if key.startswith(before)}
        yield name, winner, mine
