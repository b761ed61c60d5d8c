"""What one process of a study takes of its machine.

The last digits of float32 sums depend on the number of threads, and the order of the work on the
memory for keys and values. Both are therefore settled when a study first starts, recorded in
`study.json`, and the same for every later call and every number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from promptsearch.errors import StudyError
from promptsearch.files import exists
from promptsearch.models.protocol import TextModel
from promptsearch.records.load import STUDY, load_study
from promptsearch.study.settings.study import StudyConfig

#: What Python and its libraries take in a process, in bytes.
_PROCESS = 500 * 2**20


@dataclass(frozen=True)
class Share:
    """Threads and memory of one process.

    Args:
        threads: The threads of torch; None for as many as it takes by itself.
        memory: Bytes for keys and values; None where nothing says them yet.
        begun: Whether the study's folder says them.
        spread: Whether other processes compute beside this one.
    """

    threads: int | None = None
    memory: int | None = None
    begun: bool = False
    spread: bool = False

    def room(self, lm: TextModel) -> int:
        """The bytes for keys and values.

        Left open, they are half of the device's memory; beside other processes, that of one core,
        whatever the number of workers.

        Args:
            lm: The LM.
        """
        if self.memory is None:
            return lm.room() // (cores() if self.spread else 1)
        # A study that one process makes may go on where there is less.
        return min(self.memory, lm.room()) if self.begun and not self.spread else self.memory

    def differs(self, memory: int) -> bool:
        """Whether this process computes with other threads or another memory than this.

        Args:
            memory: The bytes that it keeps for keys and values.
        """
        threads = torch.get_num_threads()
        return self.threads not in (None, threads) or self.memory not in (None, memory)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A context in which torch takes these threads."""
        before = torch.get_num_threads()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def share_of(config: StudyConfig, folder: Path, spread: bool) -> Share:
    """What each process of a study takes: as its folder says, or its file, or by default.

    Args:
        config: The study.
        folder: The study's folder.
        spread: Whether several processes compute.

    Raises:
        StudyError: The folder was begun with other threads or another memory.
        RecordError: `study.json` is damaged.
    """
    asked = {
        "threads": config.threads,
        "memory": None if config.memory is None else int(config.memory),
    }
    if not exists(folder / STUDY):
        threads = asked["threads"] or (1 if spread else None)
        return Share(threads, asked["memory"], begun=False, spread=spread)
    before = load_study(folder)
    threads = before.machine.get("threads")
    known = {"threads": threads if isinstance(threads, int) else None, "memory": before.memory}
    for key, now in asked.items():
        if now is not None and known[key] not in (None, now):
            raise StudyError(
                f"{folder} holds runs made with other settings: {key} was {known[key]}, now it is "
                f"{now}. The last digits of scores depend on it: leave '{key}' out, or name "
                "another folder with --out"
            )
    return Share(
        known["threads"] or asked["threads"],
        known["memory"] or asked["memory"],
        begun=True,
        spread=spread,
    )


def check_room(lm: TextModel, memory: int, workers: int) -> None:
    """See that the machine holds so many workers.

    Args:
        lm: The LM that each of them loads.
        memory: What each of them takes for keys and values, in bytes.
        workers: How many there are.

    Raises:
        StudyError: It does not.
    """
    if lm.served is not None:
        return
    here = max(1, torch.cuda.device_count()) if lm.device.type == "cuda" else 1
    needed, beside = room_of(lm, memory), -(-workers // here)
    if beside * needed > (there := 2 * lm.room()):
        raise StudyError(
            f"{workers} processes need {beside * needed / 2**30:.1f} GiB on {lm.device} "
            f"({memory:,} bytes of keys and values each, and the model), and it has "
            f"{there / 2**30:.1f} GiB: "
            f"take {max(1, int(there // needed) * here)}, or begin a study with a smaller 'memory'"
        )


def room_of(lm: TextModel, memory: int) -> int:
    """The bytes of the model's device that one process takes at most.

    Args:
        lm: The LM.
        memory: What it takes for keys and values, in bytes.
    """
    # In float32, and once more in the dtype of the search.
    model = 6 * (lm.parameters or 0)
    return memory + model + (_PROCESS if lm.device.type == "cpu" else 0)


def cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
