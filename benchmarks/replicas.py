"""One ask by two processes of one thread against the same ask by one: prompts of a whole space.

Model and examples are loaded before, by both processes. Both sides score the same chunks, and their
scores are compared to the last bit.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Comparison
from promptsearch.prompts.hard import HardPrompt
from promptsearch.records.scores import Scores
from promptsearch.scoring.scorer import SplitScorer
from promptsearch.study.config import load_config
from promptsearch.study.execution.fleet import shown_by
from promptsearch.study.execution.replicas import Replicas
from promptsearch.study.execution.wire import Order
from promptsearch.study.prepare import prepare
from promptsearch.study.share import Share

STUDY = Path(__file__).parents[1] / "examples" / "exhaustive-reviews.yaml"
PROMPTS = 256
_MEMORY = 2**30


def replicas(device: str) -> Comparison:
    """Prompts of the space of `examples/exhaustive-reviews.yaml`, on its 32 search examples."""
    config = load_config(STUDY, [f"device={device}", "threads=1", "replicas=2"])
    torch.set_num_threads(1)
    prepared = prepare(config, share=Share(1, _MEMORY, begun=True, spread=True))
    order = Order(
        settings=config.model_dump(mode="json"),
        home=str(config.folder.absolute()),
        folder=os.devnull,
        threads=1,
        memory=_MEMORY,
        path=list(sys.path),
    )
    arena = next(iter(prepared.arenas.values()))
    pool = arena.space.pool
    rng = np.random.default_rng(0)
    prompts = [HardPrompt(rng.choice(pool, 3).tolist()) for _ in range(PROMPTS)]
    hands = {count: Replicas(order, count, shown_by(prepared)) for count in (1, 2)}
    scorers: dict[int, SplitScorer] = {
        count: prepared.chunked(each).arena(arena.task).searching for count, each in hands.items()
    }

    def timed(count: int) -> tuple[float, Scores]:
        begin = time.perf_counter()
        found = scorers[count].score(prompts, arena.scored)
        return time.perf_counter() - begin, found

    def check() -> str:
        hands[2].start()
        one = scorers[1].score(prompts, arena.scored)
        two = scorers[2].score(prompts, arena.scored)
        if not (one.losses == two.losses).all():
            raise SystemExit("the losses of two processes differ from those of one")
        return f"{one.losses.size} losses are equal to the last bit"

    work = f"{PROMPTS} prompts of 3 words on 32 reviews, by 2 processes of one thread"
    return Comparison(
        {work: lambda _: timed(2)[0]},
        {"bfloat16": lambda _: timed(1)[0]},
        "1 process of one thread",
        {work: {"bfloat16": 1.8}},
        check,
    )
