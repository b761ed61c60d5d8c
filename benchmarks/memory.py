"""Peak memory at ten times the work.

It follows the limits of a pass and `memory`, not the number of prompts or examples.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from benchmarks.measure import peak_memory
from benchmarks.work import BEHIND, FRONT, hard, load, reviews
from promptsearch.scoring import Engine

#: (work, template, prompts, examples, ten times the prompts, ten times the examples)
WORK = (("prompt in front", FRONT, 8, 32), ("input before prompt", BEHIND, 64, 32))
#: Of keys and values: less than ten times the examples want.
MEMORY = 2**26


def memory() -> list[dict[str, Any]]:
    """MiB above what the model holds, for the work and for ten times as much of it.

    Each is measured in a process of its own.
    """
    rows = []
    for work, template, prompts, examples in WORK:
        sizes = {
            "1x": (prompts, examples),
            "10x prompts": (10 * prompts, examples),
            "10x examples": (prompts, 10 * examples),
        }
        found = {}
        for name, size in sizes.items():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                found[name] = pool.submit(_peak, template, *size).result()
            print(f"  {work}, {name}: {found[name]} MiB", flush=True)
        rows.append(
            {
                "work": (
                    f"peak memory of scoring, {work}, {prompts} prompts x {examples} reviews, bf16"
                ),
                "mib": found,
            }
        )
    return rows


def _peak(template: str, prompts: int, examples: int) -> int:
    task, lm = reviews(template), load()["bfloat16"]
    chosen = hard(lm, prompts, 5, 0)

    def score(some: int) -> None:
        engine = Engine(
            lm, task.template.bind(5), task.splits["search"], task.choices, memory=MEMORY, keep=True
        )
        engine.score(chosen[:some], np.arange(4 if some == 1 else examples))

    torch.set_num_threads(2)
    score(1)  # what libraries allocate once
    with peak_memory() as held:
        score(prompts)
    return round(held[0] / 2**20)
