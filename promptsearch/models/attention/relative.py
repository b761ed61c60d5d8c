"""Biases by relative position, as T5 adds them to the products of queries and keys.

Raffel et al. 2020, arXiv:1910.10683, section 2.1: each head has a learned number for each *bucket*
of distances between key and query. The model's own buckets and numbers are used; only the positions
are those of rows in a packed pass, not those of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Relative:
    """What a model adds by relative position, handed from layer to layer in place of numbers.

    Args:
        module: The attention that holds the numbers.
    """

    module: Any

    def of(self, distances: Tensor) -> Tensor:
        """The biases of distances; gradients flow back to the model's numbers.

        Args:
            distances: The key's position minus the query's, shape `(trees, queries, keys)`.

        Returns:
            Shape `(trees, heads, queries, keys)`, where the module lies.
        """
        module, reach = self.module, int(distances.abs().max())
        distances = distances.to(module.relative_attention_bias.weight.device)
        every = torch.arange(-reach, reach + 1, device=distances.device)
        buckets = module._relative_position_bucket(
            every,
            bidirectional=not module.is_decoder,
            num_buckets=module.relative_attention_num_buckets,
            max_distance=module.relative_attention_max_distance,
        )
        table: Tensor = module.relative_attention_bias(buckets)  # (distances, heads)
        found = table.T.index_select(1, (distances + reach).flatten())
        biases: Tensor = found.unflatten(1, distances.shape).transpose(0, 1)
        return biases


@contextmanager
def relative(model: nn.Module) -> Iterator[None]:
    """A context in which attentions hand over `Relative` in place of the biases of a padded row.

    Args:
        model: A model of transformers; one without such biases stays as it is.
    """

    def hand_over(module: Any) -> Callable[..., Relative]:
        return lambda *args, **given: Relative(module)

    with ExitStack() as stack:
        for module in model.modules():
            if hasattr(module, "relative_attention_bias") and hasattr(module, "compute_bias"):
                own = vars(module)
                before = {"compute_bias": own["compute_bias"]} if "compute_bias" in own else {}
                own["compute_bias"] = hand_over(module)
                stack.callback(own.update, before)
                stack.callback(own.pop, "compute_bias")
        yield
