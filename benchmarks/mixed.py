"""A batch of 8 reviews with 4 prompts of different kinds, against one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Comparison, Side, clock, equal
from benchmarks.work import FRONT, exemplars, hard, load, reviews
from promptsearch import LanguageModel, PrefixPrompt, PromptedModel, SavedPrompt, SoftPrompt
from promptsearch.scoring.forward import keys_values as keys_values_of
from promptsearch.scoring.ready import embedded

ROWS, TOKENS, REPEATS = 8, 16, 4
AGAINST = "transformers, one prompt at a time with its rows as a padded batch"


@dataclass(frozen=True)
class _Batch:
    """The rows, and whose they are."""

    prompts: dict[str, SavedPrompt]
    rows: list[dict[str, Any]]

    def by_prompt(self) -> list[tuple[SavedPrompt, list[dict[str, Any]]]]:
        return [
            (saved, [row for row in self.rows if row["prompt"] == name])
            for name, saved in self.prompts.items()
        ]


def choose(device: str) -> Comparison:
    """Two answers of one token."""
    models = load(device)
    batch = _batch(models["float32"])

    def check() -> str:
        ours = PromptedModel(models["float32"], batch.prompts).score(
            [{**row, "answer": "good"} for row in batch.rows]
        )
        nats = torch.cat(
            [_choices(models["float32"], saved, rows) for saved, rows in batch.by_prompt()]
        )
        theirs = {id(row): -float(n[1]) for row, n in zip(_in_order(batch), nats, strict=True)}
        return equal(ours, [theirs[id(row)] for row in batch.rows], 1e-4)

    def peer(lm: LanguageModel) -> Callable[[], Any]:
        return lambda: [_choices(lm, saved, rows) for saved, rows in batch.by_prompt()]

    return _compare(
        "mixed batch of 8 reviews with 4 prompts: choose",
        models,
        batch,
        lambda m: m.choose(batch.rows),
        peer,
        check,
    )


def generate(device: str) -> Comparison:
    """Sixteen tokens for each row."""
    models = load(device)
    batch = _batch(models["float32"])

    def peer(lm: LanguageModel) -> Callable[[], list[str]]:
        return lambda: [
            text for saved, rows in batch.by_prompt() for text in _generated(lm, saved, rows)
        ]

    def check() -> str:
        ours = PromptedModel(models["float32"], batch.prompts).generate(_in_order(batch), TOKENS)
        if ours != (theirs := peer(models["float32"])()):
            raise SystemExit(f"the texts differ: {ours} and {theirs}: the comparison is void")
        return f"{len(ours)} texts in fp32, the same"

    work = f"mixed batch of 8 reviews with 4 prompts: generate {TOKENS} tokens"
    return _compare(work, models, batch, lambda m: m.generate(batch.rows, TOKENS), peer, check)


def _compare(
    work: str,
    models: dict[str, LanguageModel],
    batch: _Batch,
    ours: Callable[[PromptedModel], Any],
    peer: Callable[[LanguageModel], Callable[[], Any]],
    check: Callable[[], str],
) -> Comparison:
    model = PromptedModel(models["float32"], batch.prompts, dtype="bfloat16")
    return Comparison(
        {work: _side(lambda: ours(model))},
        {name: _side(peer(lm)) for name, lm in models.items()},
        AGAINST,
        {work: {"bfloat16": 3.0}},
        check,
    )


def _side(work: Callable[[], Any]) -> Side:
    return lambda number: clock(lambda: [work() for _ in range(REPEATS)])[0] / REPEATS


def _batch(lm: LanguageModel) -> _Batch:
    """A hard prompt of 10 tokens, four exemplars as text, and the lengths of the papers.

    These are 100 vectors and a prefix of 10 tokens: Lester et al. take 100 vectors; Li and Liang
    take 10 tokens to put tables into words.
    """
    task = reviews(FRONT)
    words = torch.tensor(np.random.default_rng(1).choice(lm.words, 110))
    with torch.no_grad():
        (keys_values,) = keys_values_of(lm, [tuple(words[:10].tolist())], None, 512)
    found = {
        "hard": (hard(lm, 1, 10, 0)[0], task.template.bind(10)),
        "text": (exemplars(task, 1, 0)[0], task.template.bind(1)),
        "soft": (
            SoftPrompt(lm.vocabulary[words[10:].to(lm.device)].cpu()),
            task.template.bind(100),
        ),
        "prefix": (
            PrefixPrompt(keys_values.on("cpu").unflatten(1, lm.prefix_shape)),
            task.template.bind(10).taking("prefix"),
        ),
    }
    prompts = {
        n: SavedPrompt(prompt=p, template=t, choices=task.choices) for n, (p, t) in found.items()
    }
    names = list(prompts)
    texts = [example.fields["text"] for example in task.splits["search"].examples[:ROWS]]
    return _Batch(
        prompts, [{"prompt": names[i % len(names)], "text": text} for i, text in enumerate(texts)]
    )


def _in_order(batch: _Batch) -> list[dict[str, Any]]:
    """The rows, those of a prompt together."""
    return [row for _, rows in batch.by_prompt() for row in rows]


def _padded(
    lm: LanguageModel, saved: SavedPrompt, rows: Sequence[dict[str, Any]], left: bool
) -> tuple[Tensor, Tensor, Any]:
    """Embeddings `(rows, tokens, width)`, attention mask, and the cache of a prefix."""
    given = saved.prompt.keys_values if isinstance(saved.prompt, PrefixPrompt) else None
    parts = [embedded(lm, saved.prompt, saved.template, row) for row in rows]
    longest, above = max(map(len, parts)), 0 if given is None else len(given)
    embeds = parts[0].new_zeros(len(parts), longest, parts[0].shape[1])
    mask = torch.zeros(len(parts), above + longest, dtype=torch.long, device=lm.device)
    mask[:, :above] = 1
    for i, part in enumerate(parts):
        here = slice(longest - len(part), longest) if left else slice(len(part))
        embeds[i, here] = part
        mask[i, above:][here] = 1
    if given is None:
        return embeds, mask, None
    cache = lm.passes.cache(given.permute(1, 2, 3, 0, 4))
    cache.batch_repeat_interleave(len(rows))
    return embeds, mask, cache


def _choices(lm: LanguageModel, saved: SavedPrompt, rows: Sequence[dict[str, Any]]) -> Tensor:
    """Log-probabilities among the choices, shape `(rows, choices)`."""
    words = [lm.encode(choice)[0] for choice in saved.choices or ()]
    with torch.inference_mode():
        embeds, mask, cache = _padded(lm, saved, rows, left=False)
        logits = lm.model(inputs_embeds=embeds, attention_mask=mask, past_key_values=cache).logits
    own = mask[:, mask.shape[1] - embeds.shape[1] :]
    return (
        logits[torch.arange(len(rows), device=lm.device), own.sum(1) - 1][:, words]
        .float()
        .log_softmax(-1)
    )


def _generated(lm: LanguageModel, saved: SavedPrompt, rows: Sequence[dict[str, Any]]) -> list[str]:
    with torch.inference_mode():
        embeds, mask, cache = _padded(lm, saved, rows, left=True)
        if cache is not None:  # `generate` cuts off as many rows of its input as the cache holds
            embeds = torch.cat(
                [
                    embeds.new_zeros(len(rows), mask.shape[1] - embeds.shape[1], embeds.shape[2]),
                    embeds,
                ],
                1,
            )
        ids = lm.model.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=lm.tokenizer.pad_token_id or 0,
        )
    return [lm.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
