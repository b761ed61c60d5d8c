"""A study of twelve runs by two workers against one, each of one thread; and on a Ray cluster.

The time goes from the first sign of a run to the end of the last one: that workers load the model
is left out. Every study has seeds of its own, which begin at the hour, so that none finds its
scores in the cache.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Comparison
from promptsearch import compare
from promptsearch.study.events import Progress

RUNS = 12
#: The packaged model's first layers, so that a round takes a minute.
MODEL = "smollm2-135m-instruct:layers=10"
REVIEWS = Path(__file__).parents[1] / "examples" / "movie-reviews.jsonl"


def workers(device: str) -> Comparison:
    """Twelve runs of a random search on movie reviews."""
    places = itertools.count(int(time.time()) % 2**28)
    work = f"{RUNS} runs of a study by 2 workers of one thread (model of 10 layers)"

    def check() -> str:
        _study(2, next(places), device)
        return f"{RUNS} runs done (their numbers are compared in the tests)"

    return Comparison(
        {work: lambda _: _study(2, next(places), device)},
        {"bfloat16": lambda _: _study(1, next(places), device)},
        "1 worker of one thread",
        {work: {"bfloat16": 1.8}},
        check,
    )


def ray(device: str) -> Comparison:
    """The same on a Ray cluster of this machine alone, which is there already."""
    try:
        import ray
    except ImportError as error:
        raise SystemExit("install the extra 'ray', or call it as `make cluster` does") from error
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    places = itertools.count(int(time.time()) % 2**28)
    work = f"{RUNS} runs of a study by 2 workers on a Ray cluster (model of 10 layers)"

    def check() -> str:
        _study(2, next(places), device, "auto")
        return f"{RUNS} runs done (their numbers are compared in the tests)"

    return Comparison(
        {work: lambda _: _study(2, next(places), device, "auto")},
        {"bfloat16": lambda _: _study(2, next(places), device)},
        "2 workers that are processes",
        {work: {"bfloat16": 0.9}},
        check,
    )


def _study(number: int, turn: int, device: str, cluster: str | None = None) -> float:
    """The seconds that workers took.

    Args:
        number: The number of workers.
        turn: The number of studies before this one, which gives it its seeds.
        device: Where the model computes.
        cluster: The address of a Ray cluster; None for processes of this machine.
    """
    told: list[float] = []

    def listen(progress: Progress) -> None:
        if progress.run and progress.stage != "waiting":
            told.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        found = compare(
            {
                "name": "workers",
                "model": MODEL,
                "device": device,
                "task": {
                    "name": "reviews",
                    "data": {"path": str(REVIEWS)},
                    "template": "{prompt} {text} It was{answer}",
                    "label": "label",
                    "answers": {0: " bad", 1: " good"},
                    "splits": {"search": 32, "select": 16, "test": 32},
                },
                "length": 3,
                "pool": 2000,
                "budget": 8_000,
                "score_on": 16,
                "seeds": list(range(RUNS * turn, RUNS * (turn + 1))),
                "strategies": ["random"],
            },
            out=folder,
            progress=listen,
            workers=number,
            ray=cluster,
        )
    if len(found.runs) != RUNS:
        raise SystemExit(f"{RUNS - len(found.runs)} runs failed")
    return told[-1] - told[0]
