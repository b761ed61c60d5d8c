"""What a token costs a model in floating-point operations, from its sizes alone.

Kaplan et al. 2020, "Scaling Laws for Neural Language Models", arXiv:2001.08361, section 2.1: a
token's forward pass takes 2N FLOPs, one product and one sum for each weight that it is multiplied
with, and a position that it attends to takes 4 * width more in each layer (its key, its value).
Here N counts the map to the vocabulary, and no embeddings, which are looked up. A token of an
encoder-decoder model goes through half of it (Raffel et al. 2020, arXiv:1910.10683, section 3.2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from promptsearch.models.quantised import count


@dataclass(frozen=True)
class Flops:
    """The FLOPs of a forward pass.

    Args:
        token: Those of a token, without its attention to others.
        position: Those that a token needs for one more position to attend to, in all layers.
    """

    token: int
    position: int

    @property
    def share(self) -> float:
        """What one more position adds to a token, as a share of what the token costs."""
        return self.position / self.token


def flops_of(model: Any) -> Flops:
    """The FLOPs of a model's forward pass.

    Args:
        model: A language model of transformers.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 0)  # a state-space model attends to nothing
    size = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    # Of all queries of a layer.
    width = heads * size if size else config.hidden_size if heads else 0
    stacks = 2 if config.is_encoder_decoder else 1
    return Flops(
        token=2 * _multiplied(model, config) // stacks,
        position=4 * width * config.num_hidden_layers,
    )


def _multiplied(model: Any, config: Any) -> int:
    """The number of weights that a token is multiplied with."""
    looked_up = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    } - {id(model.get_output_embeddings().weight)}
    # ALBERT's layers share the weights of a few groups.
    groups = getattr(config, "num_hidden_groups", None)
    layers = config.num_hidden_layers // groups if groups else 1
    total = 0
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or id(weight) in looked_up:
            continue
        times = layers if "_groups." in name else 1
        total += times * _met(weight, config)
    return total


def _met(weight: Any, config: Any) -> int:
    """The number of a weight's numbers that one token meets: of experts, those that it goes to."""
    chosen: int | None = getattr(config, "num_experts_per_tok", None)
    if weight.ndim == 3 and chosen:
        return count(weight) * chosen // len(weight)
    return count(weight)
