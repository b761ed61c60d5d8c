"""Attention as plain products, for many small trees on a CPU.

Beside these the fused kernel took, in CPU time for a layer of 9 or 12 heads and a pass of 512
tokens: 0.7 to 2.8 times as long at trees of 16 and 30 tokens, the most where many share a trunk, of
which it needs a copy for each; 0.5 to 1.5 times at 64; 0.5 to 1.1 times at 128; half at 512.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The size of trees, in tokens, from which the fused kernel is taken: there it is at least as fast,
#: forward and backward, with a trunk or without.
LONG = 128


def plainly(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    hidden: Tensor,
    scaling: float | None,
    above: tuple[Tensor, Tensor] | None,
    bias: Tensor | None = None,
) -> Tensor:
    """Attention as plain products: softmax(Q K^T / sqrt(d)) V.

    The query heads that share a key head stand one below the other, so that keys and values are
    read once and never copied.

    Args:
        queries: The queries, shape `(trees, heads, size, size of a head)`.
        keys: The keys, shape `(trees, key heads, keys, size of a head)`.
        values: The values, like `keys`.
        hidden: Which keys a query does not see, shape `(trees, 1, repeats * size, keys)`, those of
            `above` first.
        scaling: The factor for the products; None for 1 / sqrt(size of a head).
        above: The keys and values of a trunk that all trees share, shape `(key heads, trunk, size
            of a head)` each: all queries read them in one product, and they are not copied for each
            tree. None where `keys` and `values` hold the trunks.
        bias: What is added to the products, shape `(trees or 1, heads, size, keys)`, those of
            `above` first; only where no query heads share a key head. None where nothing is.
    """
    trees, repeats = len(queries), queries.shape[1] // keys.shape[1]
    folded = queries.unflatten(1, (-1, repeats)).flatten(2, 3) * (
        queries.shape[-1] ** -0.5 if scaling is None else scaling
    )
    weights = folded @ keys.transpose(2, 3)  # (trees, key heads, repeats * size, keys)
    if above is None:
        weights = weights if bias is None else weights + bias
        out = weights.masked_fill_(hidden, float("-inf")).softmax(-1) @ values
    else:
        trunk_keys, trunk_values = above
        trunk = trunk_keys.shape[1]
        # (key heads, trees * repeats * size, size of a head)
        flat = folded.transpose(0, 1).flatten(1, 2)
        high = (flat @ trunk_keys.transpose(1, 2)).unflatten(1, (trees, -1)).transpose(0, 1)
        weights = torch.cat([high, weights], -1)
        weights = weights if bias is None else weights + bias
        weights = weights.masked_fill_(hidden, float("-inf")).softmax(-1)
        high = weights[..., :trunk].transpose(0, 1).flatten(1, 2) @ trunk_values
        out = weights[..., trunk:] @ values + high.unflatten(1, (trees, -1)).transpose(0, 1)
    joined: Tensor = out.unflatten(2, (repeats, -1)).flatten(1, 2)
    return joined
