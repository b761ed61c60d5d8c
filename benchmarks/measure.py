"""Clock, memory, the machine's own limit, and rounds that alternate between us and peers."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from promptsearch.models.device import card

#: One side of a round, called with its number: seconds for one unit of work (a prompt on all
#: examples, a step, a request).
Side = Callable[[int], float]


@dataclass(frozen=True)
class Comparison:
    """Work that is done by us and by peers, in turns.

    Args:
        ours: What we do in a round, by the name of the work; called with the round's number.
        peers: What a user would run instead, by dtype: the same unit of work, on as much of it as a
            round can bear.
        against: Who the peers are.
        bars: Work -> dtype of the peer -> the ratio that is wanted.
        check: Says how equal the results are; raises where they differ.
        remarks: Work -> what its rounds had to say.
    """

    ours: Mapping[str, Side]
    peers: Mapping[str, Side]
    against: str
    bars: Mapping[str, Mapping[str, float]]
    check: Callable[[], str]
    remarks: Mapping[str, list[str]] = field(default_factory=dict)

    def run(self, rounds: int) -> list[dict[str, Any]]:
        """Check that results are equal, alternate, and sum up: a row for each of our works."""
        checked = self.check()
        print(f"  results: {checked}", flush=True)
        seconds: dict[str, list[float]] = {name: [] for name in (*self.ours, *self.peers)}
        for number in range(rounds):
            for name, side in (*self.ours.items(), *self.peers.items()):
                seconds[name].append(side(number))
            print(
                "  round",
                number,
                {name: round(values[-1], 3) for name, values in seconds.items()},
                flush=True,
            )
        return [
            {
                "work": name,
                "against": self.against,
                "seconds": {"ours": seconds[name]} | {peer: seconds[peer] for peer in self.peers},
                "ratios": {
                    p: (np.array(seconds[p]) / np.array(seconds[name])).tolist() for p in self.peers
                },
                "bars": dict(self.bars[name]),
                "results": checked,
                "remarks": list(self.remarks.get(name, ())),
            }
            for name in self.ours
        ]


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The most bytes that the process held within, above what it held before.

    The process is asked fifty times a second.
    """
    process = psutil.Process()
    before = process.memory_info().rss
    found, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            found[0] = max(found[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result; a GPU is waited for."""
    _wait()
    begin = time.perf_counter()
    result = work()
    _wait()
    return time.perf_counter() - begin, result


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def product_peak(dtype: torch.dtype, device: str = "cpu") -> float:
    """The best rate of a matrix product of 2,048 x 2,048 on a device, in FLOP/s."""
    a, b = (torch.randn(2048, 2048).to(device, dtype) for _ in range(2))
    return 2 * 2048**3 / min(clock(lambda: a @ b)[0] for _ in range(20))


def product_rate(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """The rate at which this machine multiplies matrices for a while, in FLOP/s.

    They are matrices of 2,048 x 2,048, one product after the other.
    """
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    begin, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - begin) < seconds:
        a @ b
        count += 1
    return 2 * 2048**3 * count / taken


def equal(ours: Any, theirs: Any, each: float) -> str:
    """Say by how much losses differ; end where that is more than `each`.

    A GPU's kernels round otherwise for every shape: there it may be five times as much.
    """
    each *= 5 if torch.cuda.is_initialized() else 1
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    difference = float(np.abs(ours - theirs).max())
    if not difference < each:
        raise SystemExit(
            f"the results differ by {difference:.2g}, more than {each:.2g}: the comparison is void"
        )
    count = ours.size
    return (
        f"{count:,} {'loss' if count == 1 else 'losses'} in fp32 within {each:.0e} "
        f"({difference:.1e})"
    )


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures belong to.

    Args:
        device: The device that computed.
    """
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    cpu = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    there = torch.device(device)
    shown = {"gpu": card(there), "cuda": torch.version.cuda} if there.type == "cuda" else {}
    return shown | {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_gflops": {
            str(t).removeprefix("torch."): round(product_peak(t, device) / 1e9)
            for t in (torch.bfloat16, torch.float32)
        },
    }
