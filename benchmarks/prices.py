"""Does a step of training cost what it computes?

What is charged is compared with the operations that torch counts, on shapes alone.
"""

from __future__ import annotations

import math
from typing import Any

from promptsearch.models.flops import Flops, flops_of
from promptsearch.scoring.kinds import adds_of
from promptsearch.tasks.placement import Kind
from promptsearch.testing.counted import Counted, adapted, plain, shaped, trained

LAYERS, ROWS, TOKENS = 30, 16, 30
LENGTHS = (5, 50, 200)
KINDS: dict[Counted, Kind] = {"soft": "slots", "prefix": "prefix", "gated": "gated"}
NAMES = {"soft": "vectors in the text", "prefix": "a prefix", "gated": "a gated prompt"}


def prices() -> list[dict[str, Any]]:
    """The charge of a step and its operations, for each kind and length."""
    model = shaped(LAYERS)
    flops = flops_of(model)
    token = plain(model, ROWS, TOKENS).forward / (ROWS * TOKENS)
    rows = []
    for kind in KINDS:
        for length in LENGTHS:
            found = trained(kind, length, ROWS, TOKENS, LAYERS)
            counted = (found.forward + found.backward) / token
            share = adapted(LAYERS) / LAYERS if kind == "gated" else 1.0
            # Before: its length on every row.
            before = ROWS * (TOKENS + length) * (1 + share)
            now = _charge(kind, length, share, flops)
            rows.append(
                {"kind": kind, "length": length, "counted": counted, "before": before, "now": now}
            )
    return rows


def _charge(kind: Counted, length: int, share: float, flops: Flops) -> int:
    """What `Prices.charge_step` charges for a step, which a test compares with it."""
    adds, text = adds_of(KINDS[kind], length, flops), ROWS * TOKENS
    own, beside = text + ROWS * adds.tokens, adds.share * text
    return own + math.ceil(beside) + math.ceil(share * (own + 2 * beside))


def report(found: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# What a step of training is charged, and what it computes",
        "",
        f"`{found['command']}`, {found['date']}: {ROWS} rows of {TOKENS} tokens, the sizes of "
        "SmolLM2-135M; loss and gradient. Operations are those that",
        "torch counts in plain passes of transformers and PEFT, in tokens of a pass without a "
        "prompt. Before: a prompt beside the text cost its length on every row.",
        "",
        *table(found["rows"]),
    ]
    return "\n".join([*lines, ""])


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Operations by charge, before and now."""
    lines = [
        "| prompt | positions | operations, in tokens | charged | operations by charge | before |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    return lines + [
        f"| {NAMES[row['kind']]} | {row['length']} | {row['counted']:,.0f} | {row['now']:,} | "
        f"{row['counted'] / row['now']:.2f} | {row['counted'] / row['before']:.2f} |"
        for row in rows
    ]
