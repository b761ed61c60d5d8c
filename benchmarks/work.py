"""The work that is compared: movie reviews, prompts, and the naive loop.

The loop is that of the transformers documentation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from promptsearch import LanguageModel, Task
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import lay_out, slots_of

FRONT, BEHIND = "{prompt} {text} It was {answer}", "{text} {prompt} It was {answer}"
DATA = Path(__file__).parents[1] / "examples" / "movie-reviews.jsonl"


def load(device: str = "cpu") -> dict[str, LanguageModel]:
    """The model on a device, in both dtypes."""
    exact = LanguageModel.load("smollm2-135m-instruct", device=device)
    return {"float32": exact, "bfloat16": exact.to(torch.bfloat16)}


def reviews(template: str, answers: tuple[str, str] = ("bad", "good")) -> Task:
    """Two ways to go on after a review."""
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    splits = {"search": 512, "select": 64, "test": 64}
    return Task.from_rows(
        rows, template=template, label="label", answers=dict(enumerate(answers)), splits=splits
    )


def engine(lm: LanguageModel, task: Task, length: int) -> Engine:
    """The search split."""
    return Engine(lm, task.template.bind(length), task.splits["search"], task.choices, keep=True)


def hard(lm: LanguageModel, count: int, length: int, seed: int) -> list[Prompt]:
    """Random words."""
    rng = np.random.default_rng(seed)
    return [HardPrompt(rng.choice(lm.words, length)) for _ in range(count)]


def exemplars(task: Task, count: int, seed: int) -> list[Prompt]:
    """Prompts of four solved examples each.

    The examples are from the part of the search split that is not scored.
    """
    rng = np.random.default_rng(seed)
    pool = task.splits["search"].examples[256:]
    found: list[Prompt] = []
    for _ in range(count):
        chosen = [pool[i] for i in rng.choice(len(pool), 4, replace=False)]
        found.append(
            TextPrompt("\n".join(f"{e.fields['text']} It was{e.answer}." for e in chosen) + "\n")
        )
    return found


def naive(
    lm: LanguageModel, task: Task, length: int, prompts: Sequence[Prompt], examples: Sequence[int]
) -> np.ndarray:
    """Losses of the naive loop, shape (prompts, examples).

    It takes one prompt at a time and the data in their order, in batches of 32 that are padded on
    the right, with all logits.
    """
    template = task.template.bind(length)
    layouts = [
        lay_out(template, lm, task.splits["search"].examples[e], task.choices) for e in examples
    ]
    device = lm.device
    right = torch.tensor(
        [task.splits["search"].examples[e].choice for e in examples], device=device
    )
    words = torch.tensor([answer[0] for answer in layouts[0].answers], device=device)
    losses = []
    for prompt in prompts:
        slots = slots_of(template, lm, prompt)  # type: ignore[arg-type]
        rows = [layout.join(slots) for layout in layouts]
        found = []
        for begin in range(0, len(rows), 32):
            some = rows[begin : begin + 32]
            longest = max(map(len, some))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in some], device=device)
            mask = torch.tensor(
                [[1] * len(row) + [0] * (longest - len(row)) for row in some], device=device
            )
            with torch.inference_mode():
                logits = lm.model(input_ids=ids, attention_mask=mask).logits
            last = logits[torch.arange(len(some), device=device), mask.sum(1) - 1][:, words].float()
            found.append(-last.log_softmax(-1).gather(-1, right[begin : begin + 32, None])[:, 0])
        losses.append(torch.cat(found))
    return torch.stack(losses).cpu().numpy()
