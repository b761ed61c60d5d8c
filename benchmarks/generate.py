"""Generating 40 tokens for each of 64 reviews under one prefix, against `generate` of transformers.

The peer is handed the prefix as `past_key_values`, and rows of similar length together. Both sides
compute in float32 and write all 40 tokens: no token ends a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Comparison, Side, clock
from benchmarks.work import FRONT, load, reviews
from promptsearch import LanguageModel, PrefixPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.continuing import Start, go_on
from promptsearch.scoring.forward import keys_values
from promptsearch.scoring.ready import Compiled, compile_prompts
from promptsearch.tasks.decoding import Decoding

ROWS, TOKENS, REPEATS = 64, 40, 1
#: As long as for putting tables into words (Li and Liang 2021).
LENGTH = 10
#: The peer's batches; the first has a bar of its own.
BATCHES = (8, 16, 32, 64)
#: Two best logits that lie closer may change places by rounding.
NEAR = 1e-4


@dataclass(frozen=True)
class _Generation(Comparison):
    """A comparison whose peers differ by the size of their batches."""

    def run(self, rounds: int) -> list[dict[str, Any]]:
        """A row against the first peer, and one against the best of each round."""
        (row,) = super().run(rounds)
        ratios = row.pop("ratios")
        first, least = np.array(list(ratios.values()))[0], np.array(list(ratios.values())).min(0)
        both = ((f"{self.against} in {next(iter(ratios))}", first, 3.0),)
        both += ((f"{self.against} at its best, in batches of 8 to 64", least, 1.5),)
        return [
            {**row, "against": who, "ratios": {"float32": r.tolist()}, "bars": {"float32": bar}}
            for who, r, bar in both
        ]


def generate(device: str) -> Comparison:
    """Sixty-four rows, forty tokens each."""
    lm = load(device)["float32"]
    lm.ends = frozenset()
    lm.model.generation_config.eos_token_id = None
    task = reviews(FRONT)
    template = task.template.bind(LENGTH).taking("prefix")
    engine = Engine(lm, template, task.splits["search"], None)
    words = np.random.default_rng(1).choice(lm.words, LENGTH)
    with torch.no_grad():
        (given,) = keys_values(lm, [tuple(words.tolist())], None, 512)
    prompt = PrefixPrompt(given.on("cpu").unflatten(1, lm.prefix_shape))
    library = compile_prompts(lm, [(prompt, template)])
    (compiled,) = library.prompts
    fields = [example.fields for example in engine.examples(np.arange(ROWS))]
    decoding = Decoding(TOKENS)

    def ours(number: int) -> float:
        return clock(lambda: engine.generate([prompt], np.arange(ROWS), decoding))[0]

    def peer(size: int) -> Side:
        return lambda number: clock(lambda: _theirs(lm, compiled, prompt, fields, size))[0]

    def check() -> str:
        starts = [Start(compiled.row(lm, each), TOKENS) for each in fields]
        mine = [w.answers[0] for w in go_on(lm, starts, library, lambda ids: False, decoding)[0]]
        found = _theirs(lm, compiled, prompt, fields, 8, scores=True)
        differing = [
            _gap(ids, *others) for ids, others in zip(mine, found, strict=True) if others[0] != ids
        ]
        if any(gap > NEAR for gap in differing):
            raise SystemExit(f"tokens differ where logits are {max(differing):.1e} apart")
        return (
            f"{ROWS} texts of {TOKENS} tokens in fp32, {ROWS - len(differing)} the same, the "
            f"others up to a step whose two best logits are within {NEAR:.0e}"
        )

    work = f"{ROWS} reviews under a prefix of {LENGTH} tokens: generate {TOKENS} tokens (float32)"
    return _Generation(
        {work: ours},
        {f"batches of {size}": peer(size) for size in BATCHES},
        "transformers",
        {work: {}},
        check,
    )


def _gap(ids: Sequence[int], others: Sequence[int], scores: torch.Tensor) -> float:
    """How far the two best logits lie apart where two texts begin to differ."""
    step = next(i for i, (a, b) in enumerate(zip(ids, others, strict=True)) if a != b)
    best = scores[step].topk(2).values
    return float(best[0] - best[1])


def _theirs(
    lm: LanguageModel,
    compiled: Compiled,
    prompt: PrefixPrompt,
    fields: Sequence[Any],
    size: int,
    *,
    scores: bool = False,
) -> list[tuple[tuple[int, ...], torch.Tensor]]:
    """What transformers writes, in batches padded on the left.

    Returns:
        The tokens of each row, and with `scores` the logits of each step.
    """
    rows = [list(compiled.row(lm, each).ids) for each in fields]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, tuple[tuple[int, ...], torch.Tensor]] = {}
    for begin in range(0, len(order), size):
        some = order[begin : begin + size]
        longest = max(len(rows[i]) for i in some)
        # `generate` cuts off as many tokens of its input as the cache holds.
        ids = torch.zeros(len(some), LENGTH + longest, dtype=torch.long, device=lm.device)
        mask = torch.zeros_like(ids)
        mask[:, :LENGTH] = 1
        for place, i in enumerate(some):
            ids[place, -len(rows[i]) :] = torch.tensor(rows[i], device=lm.device)
            mask[place, -len(rows[i]) :] = 1
        cache = lm.passes.cache(prompt.keys_values.permute(1, 2, 3, 0, 4))
        cache.batch_repeat_interleave(len(some))
        with torch.inference_mode():
            out = lm.model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=TOKENS,
                do_sample=False,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_scores=scores,
            )
        written = out.sequences[:, ids.shape[1] :].tolist()
        steps = torch.stack(out.scores, 1) if scores else torch.empty(len(some), 0)
        found |= {i: (tuple(w), s) for i, w, s in zip(some, written, steps, strict=True)}
    return [found[i] for i in range(len(rows))]
