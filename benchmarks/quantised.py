"""The packaged model with its layers' weights in 8 and 4 bits, beside float32: what it costs.

Memory of the weights, losses, the order of prompts, and time on one thread of the CPU. Time
is that of the processor, so what else a machine does matters little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from promptsearch import LanguageModel, Task
from promptsearch.models.quantised import stored
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine

MODEL = "smollm2-135m-instruct"
#: What each row of the table computes on.
WAYS = {"float32": MODEL, "int8": f"{MODEL}:quantise=int8", "nf4": f"{MODEL}:quantise=nf4"}
TASK, LENGTH, WRITTEN = "movie-reviews", 5, "Is this movie review good or bad?"
PROMPTS, EXAMPLES, ROUNDS, STEP = 16, 32, 2, 8
#: Test examples for the prompt that a person wrote.
TESTED = 300


def quantised() -> list[dict[str, Any]]:
    """A row for each way to keep the weights."""
    torch.set_num_threads(1)
    task = Task.load(TASK)
    rows: list[dict[str, Any]] = []
    for way, name in WAYS.items():
        lm = LanguageModel.load(name, device="cpu")
        row = {"weights": way, "mib": _mib(lm), **_losses(lm, task), **_seconds(lm, task)}
        first = rows[0]["losses"] if rows else row["losses"]
        row["order"] = float(spearmanr(np.mean(row["losses"], 1), np.mean(first, 1)).statistic)
        row["apart"] = float(np.abs(np.array(row["losses"]) - first).mean())
        rows.append(row)
        print("  ", {key: value for key, value in row.items() if key != "losses"}, flush=True)
    for row in rows:
        del row["losses"]
    return rows


def _mib(lm: LanguageModel) -> float:
    parts = [part for _, part in stored(lm.model)]
    return sum(part.numel() * part.element_size() for part in parts) / 2**20


def _engine(lm: LanguageModel, task: Task, split: str) -> Engine:
    template = task.template.bind(LENGTH)
    return Engine(lm, template, task.splits[split], task.choices, memory=2**20)


def _losses(lm: LanguageModel, task: Task) -> dict[str, Any]:
    """Losses of random words, and the scores of a prompt that a person wrote on the test split."""
    engine, rng = _engine(lm, task, "search"), np.random.default_rng(0)
    words = [HardPrompt(rng.choice(lm.words, LENGTH)) for _ in range(PROMPTS)]
    losses = engine.score(words, np.arange(EXAMPLES)).losses
    tested = _engine(lm, task, "test")
    found = tested.score([TextPrompt(WRITTEN)], np.arange(TESTED))
    return {
        "losses": losses.tolist(),
        "written": {"loss": float(found.losses.mean()), "accuracy": float(found.metric.mean())},
    }


def _seconds(lm: LanguageModel, task: Task) -> dict[str, Any]:
    """Seconds of the processor for a prompt's losses in two dtypes, and for a training step."""
    rng = np.random.default_rng(1)
    prompt = [HardPrompt(rng.choice(lm.words, LENGTH))]
    found: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        engine = _engine(lm.to(dtype), task, "search")
        name = str(dtype).removeprefix("torch.")
        found[f"score_{name}"] = _least(lambda e=engine: e.score(prompt, np.arange(EXAMPLES)))
        vectors = lm.vocabulary[torch.tensor(lm.words[:LENGTH])].float()

        def step(engine: Engine = engine, vectors: torch.Tensor = vectors) -> None:
            leaf = vectors.clone().requires_grad_(True)
            engine.loss(leaf, np.arange(STEP)).backward()

        found[f"step_{name}"] = _least(step)
    return found


def _least(work: Callable[[], Any]) -> float:
    taken = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)


def report(found: dict[str, Any]) -> str:
    """The page of what was found, in Markdown."""
    rows = found["rows"]
    lines = [
        "# Weights in 8 and 4 bits",
        "",
        "SmolLM2-135M-Instruct (Q4_1, dequantised) on the built-in task `movie-reviews`, "
        f"{TESTED} test examples;",
        f"`{found['command']}` on {found['machine']['cpu']}, one thread, torch "
        f"{found['machine']['torch']}, {found['date']}. Embeddings and head, 108 MiB, stay in "
        "float32.",
        "",
        "| | " + " | ".join(row["weights"] for row in rows) + " |",
        "|---|" + "---|" * len(rows),
    ]
    for label, value in {
        "MiB of all weights": lambda row: f"{row['mib']:.0f}",
        "a written prompt: test accuracy": lambda row: f"{row['written']['accuracy']:.3f}",
        "its loss, nats": lambda row: f"{row['written']['loss']:.3f}",
        "a loss against float32, nats": lambda row: f"{row['apart']:.3f}",
        "order of random prompts against float32": lambda row: f"{row['order']:.3f}",
        "scoring in float32, seconds": lambda row: f"{row['score_float32']:.2f}",
        "scoring in bfloat16": lambda row: f"{row['score_bfloat16']:.2f}",
        "a training step in float32": lambda row: f"{row['step_float32']:.2f}",
        "a training step in bfloat16": lambda row: f"{row['step_bfloat16']:.2f}",
    }.items():
        lines.append(f"| {label} | {' | '.join(map(value, rows))} |")
    lines += [
        "",
        f"Losses and order: {PROMPTS} prompts of {LENGTH} random words on {EXAMPLES} search "
        f"examples (Spearman of their means).",
        f"Seconds of the processor: a prompt on {EXAMPLES} examples, a training step of {STEP} "
        f"examples; the least of {ROUNDS}.",
        "The file's own 4 bits (Q4_1) are those that the float32 weights come from: rounding them "
        "again to nf4 is a loss on top.",
        "",
        "These packages bring weights back to the dtype of the states for each pass. On GPUs "
        "nothing of this was measured.",
    ]
    return "\n".join(lines) + "\n"
