"""A study of twelve runs by two workers against one, each of one thread.

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


def _study(number: int, turn: int, device: str) -> float:
    """The seconds that workers took.

    Args:
        number: The number of workers.
        turn: The number of studies before this one, which gives it its seeds.
        device: Where the model computes.
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
        )
    if len(found.runs) != RUNS:
        raise SystemExit(f"{RUNS - len(found.runs)} runs failed")
    return told[-1] - told[0]
