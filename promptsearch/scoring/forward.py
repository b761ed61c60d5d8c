"""Rows of tokens and vectors through the LM, down to the logits that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptsearch.model import LanguageModel


@dataclass(frozen=True)
class Row:
    """One row of a batch.

    Args:
        ids: All tokens; where vectors stand, any id.
        places: Places of the prompt's vectors among the tokens, in order; empty for prompts of tokens.
        wanted: Places whose logits are wanted, in order.
    """

    ids: Sequence[int]
    places: Sequence[int]
    wanted: Sequence[int]


def run(lm: LanguageModel, rows: Sequence[Row], vectors: Sequence[Tensor | None], tokens: Tensor | None) -> Tensor:
    """The logits at the wanted places of all rows, one row after the other.

    Args:
        lm: The model.
        rows: One batch.
        vectors: The soft prompt of each row, shape `(length, width)` each; None for prompts of tokens.
        tokens: The tokens whose logits are wanted, shape `(tokens,)`; None for the whole vocabulary.

    Returns:
        Float32, shape `(wanted places of all rows, tokens or vocabulary)`.
    """
    longest = max(len(row.ids) for row in rows)
    padded = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows], device=lm.device)
    embedded = lm.embed(padded)  # (batch, longest, width)
    soft = [(i, v) for i, v in enumerate(vectors) if v is not None]
    if soft:
        where = torch.tensor([[i, place] for i, _ in soft for place in rows[i].places], device=lm.device)
        # index_put, not assignment: gradients flow back to the vectors.
        values = torch.cat([v for _, v in soft]).to(lm.device, embedded.dtype)
        embedded = embedded.index_put((where[:, 0], where[:, 1]), values)
    states = lm.hidden(embedded)
    batch = torch.tensor([i for i, row in enumerate(rows) for _ in row.wanted], device=lm.device)
    place = torch.tensor([p for row in rows for p in row.wanted], device=lm.device)
    return lm.logits(states[batch, place], tokens)
