"""Rows in which each token sees the whole row, one after the other in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from promptsearch.models.attention.forest import Forest, chains


def rows_of(lengths: Sequence[int], device: torch.device) -> Forest:
    """A forest of rows, each of which sees all of itself.

    Args:
        lengths: The number of tokens in each row.
        device: The device for its tensors.
    """
    forest = chains(lengths, device)
    places = torch.arange(forest.size, device=device)
    within = places < torch.tensor(lengths, device=device)[:, None]
    # Padding sees itself, so that its softmax is not 0/0.
    forest.visible = within[:, None] & within[..., None] | torch.eye(
        forest.size, dtype=torch.bool, device=device
    )
    forest.key_positions = places.expand(len(lengths), -1)
    return forest
