"""How much of the machine's matrix products is scoring.

Its useful tokens are measured against nothing but products, in turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import clock, product_rate
from benchmarks.scoring import EXAMPLES, LENGTH
from benchmarks.work import FRONT, engine, hard, load, reviews
from promptsearch import LanguageModel
from promptsearch.prompts.prompt import Prompt
from promptsearch.scoring import Engine

#: Multiply-adds of SmolLM2-135M count twice, a token each weight once; its embeddings (28.3
#: million) are looked up.
FLOPS = 2 * 106.2e6
ROUNDS = 5
#: Prompts of a round, by dtype.
PROMPTS = {"bfloat16": 4, "float32": 1}


def peak() -> list[dict[str, Any]]:
    """The share in each dtype and round."""
    task, rows = reviews(FRONT), []
    for name, lm in load().items():
        ours = engine(lm, task, LENGTH)
        ours.score(hard(lm, 1, LENGTH, ROUNDS), EXAMPLES[:64])  # what is found out once
        shares = [
            _share(ours, lm, hard(lm, PROMPTS[name], LENGTH, number)) for number in range(ROUNDS)
        ]
        inside = _inside(ours, hard(lm, 1, LENGTH, ROUNDS)[0])
        work = f"hard prompts x 256 reviews, prompt in front, {name}"
        rows.append({"work": work, "share_of_products": shares, "time_in_products": inside})
    return rows


def _inside(ours: Engine, prompt: Prompt) -> float:
    """The share of its time that scoring spends within products of activations and weights."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        ours.score([prompt], EXAMPLES)
    seconds = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    return float(
        (seconds.get("aten::mm", 0) + seconds.get("aten::addmm", 0)) / sum(seconds.values())
    )


def _share(ours: Engine, lm: LanguageModel, prompts: Sequence[Prompt]) -> float:
    """Prompts stand in front, so that rows share nothing: all tokens are useful ones.

    Products run before and after each prompt: what neighbours take from the machine, they take from
    both sides.
    """
    rates, tokens, seconds = [product_rate(lm.dtype)], 0, 0.0
    for prompt in prompts:
        taken, scores = clock(partial(ours.score, [prompt], EXAMPLES))
        tokens, seconds = tokens + scores.computed, seconds + taken
        rates.append(product_rate(lm.dtype))
    products = sum(rates) / len(rates)
    share = FLOPS * tokens / seconds / products
    print(f"  {lm.dtype}: {share:.0%} of {products / 1e9:.0f} GFLOP/s", flush=True)
    return share
