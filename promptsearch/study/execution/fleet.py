"""What a machine computes with, shown before its first cell; a mixed fleet is refused."""

from __future__ import annotations

import hashlib
import importlib
import platform
from pathlib import Path

import torch

from promptsearch.errors import StudyError
from promptsearch.files import read
from promptsearch.records.provenance import machine, versions
from promptsearch.study.draws import hash_of_split
from promptsearch.study.execution.wire import Order
from promptsearch.study.prepare import Prepared
from promptsearch.tasks.task import SPLITS

#: What must be the same everywhere; the rest moves the last digits of losses at most.
_SAME = ("model", "tokenizer", "data", "dtype")


def shown_by(prepared: Prepared) -> dict[str, str]:
    """What this process computes with: hashes of what goes in, versions, dtype and processor.

    Args:
        prepared: The study, made ready here.
    """
    splits = [
        hash_of_split(prepared.arena(task).task, split, prepared.config)
        for task in prepared.tasks
        for split in SPLITS
    ]
    device = prepared.exact.device
    processor = (
        torch.cuda.get_device_name(device)
        if isinstance(device, torch.device) and device.type == "cuda"
        else str(machine()["cpu"])
    )
    return {
        "model": str(prepared.exact.hash)[:16],
        "tokenizer": str(prepared.exact.tokenizer_hash)[:16],
        "data": hashlib.sha256(" ".join(splits).encode()).hexdigest()[:16],
        "dtype": str(prepared.dtype).removeprefix("torch."),
        "code": code(),
        **versions(),
        "processor": processor,
    }


def code() -> str:
    """The first 16 hexadecimal digits of a hash of this library's code."""
    digest = hashlib.sha256()
    for package in ("promptsearch", "promptsearch.strategies"):
        (folder,) = importlib.import_module(package).__path__
        for path in sorted(Path(folder).rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            if not name.startswith("strategies/"):  # which lie inside the package or beside it
                digest.update(f"\0{package}/{name}\0".encode() + read(path))
    return digest.hexdigest()[:16]


def check_fleet(prepared: Prepared, order: Order) -> str:
    """See that this machine computes with what the study's own process computes with.

    Args:
        prepared: The study, made ready here.
        order: What the study's own process told.

    Returns:
        What it computes with, for people.

    Raises:
        StudyError: It is something else.
    """
    here = shown_by(prepared)
    for key, theirs in order.shown.items():
        if here.get(key) != theirs and (key in _SAME or not order.mixed):
            remedy = (
                "give all machines the same"
                if key in _SAME
                else "give all machines the same, or say 'mixed: true' under execution.ray: the "
                "last digits of losses then depend on who makes a run, and its run.json says so"
            )
            raise StudyError(
                f"the machine {platform.node()} differs from the one that leads the study: {key} "
                f"is {here.get(key)} there, and {theirs} here. No run was made there; {remedy}"
            )
    return ", ".join(f"{key} {value}" for key, value in here.items())
