"""Landscapes: how much worse than the best prompt is another one? And weights to change there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.numbers import Numbers, parted

Kind = Literal["separable", "pairwise", "deceptive", "plateau"]

#: The standard deviation of embeddings, like a small LM's: two random ones are 0.14 apart in each
#: dimension.
DEVIATION = 0.1


class Landscape:
    """A height for each prompt, in nats: 0 at the planted prompt and above 0 elsewhere.

    The kinds, with d the mean squared distance from the planted prompt in units in which random
    tokens have 1:

    * `separable`: the mean of d over the positions: each token counts by itself.
    * `pairwise`: mostly the squared difference of neighbouring positions' errors: what a token is
      worth depends on its neighbour.
    * `deceptive`: a wide basin around a decoy of 0.25 nats hides a narrow one around the planted
      prompt.
    * `plateau`: the mean of `1 - exp(-10 d)`: only tokens that are almost right differ from wrong
      ones, as with accuracy.

    Args:
        kind: The kind.
        planted: The vectors of the planted prompt, shape `(length, width)`.
        decoy: Those of the decoy, of the same shape.

    Attributes:
        planted: The vectors of the planted prompt.
    """

    def __init__(self, kind: Kind, planted: Tensor, decoy: Tensor) -> None:
        self._kind, self.planted, self._decoy = kind, planted, decoy

    def __call__(self, vectors: Tensor) -> Tensor:
        """Heights in nats, shape `(prompts,)`, of vectors of shape `(prompts, length, width)`."""
        errors = vectors - self.planted
        if self._kind == "separable":
            return _squares(errors).mean(-1)
        if self._kind == "pairwise":
            between = errors - errors.roll(1, dims=1)
            return (0.2 * _squares(errors) + 0.8 * _squares(between)).mean(-1)
        if self._kind == "deceptive":
            wide = 0.25 + 0.75 * _squares(vectors - self._decoy).mean(-1)
            return torch.minimum(4 * _squares(errors).mean(-1), wide)
        return (1 - torch.exp(-10 * _squares(errors))).mean(-1)


def _squares(errors: Tensor) -> Tensor:
    """The distance d of each position, shape `(prompts, length)`."""
    return errors.square().mean(-1) / (2 * DEVIATION**2)


def letters(examples: NDArray[np.int64]) -> tuple[tuple[str, ...], Tensor]:
    """Letters, and logits by which each tells even examples from odd ones more than the one before.

    Args:
        examples: Ids, shape `(examples,)`.

    Returns:
        The letters, and their logits, shape `(examples, letters)`.
    """
    words = tuple(f" {letter}" for letter in "abcdefgh")
    signs = torch.from_numpy(1.0 - 2.0 * (examples % 2)).float()
    return words, signs[:, None] * torch.linspace(-1, 1, len(words))


def planted_states(embeddings: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """What a frozen LM makes of rows: the mean of their tokens, and how many they are.

    Args:
        embeddings: The tokens' embeddings, shape `(vocabulary, width)`.
        rows: Token ids of each row.

    Returns:
        Shape `(rows, width)`.
    """
    width = embeddings.shape[1]
    places = [torch.sin(torch.arange(1, width + 1) * (1.0 + len(row))) for row in rows]
    means = [embeddings[list(row)].sum(0) / max(1, len(row)) for row in rows]
    return torch.stack(means) + DEVIATION * torch.stack(places)


def planted_weights(seed: int, width: int) -> ModelWeights:
    """Weights of two layers, attention with its three projections and an MLP, and a norm above.

    Args:
        seed: Draws the matrices.
        width: The width of all layers.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = ("layers.0", "layers.1")
    parts = tuple((f"{layer}.attention", f"{layer}.mlp") for layer in layers)
    maps = [
        f"{attention}.{name}" for attention, _ in parts for name in ("q_proj", "k_proj", "v_proj")
    ] + [f"{mlp}.up" for _, mlp in parts]
    matrices = {
        f"{name}.weight": DEVIATION * torch.randn(width, width, generator=generator)
        for name in maps
    }
    tensors = {
        "embed.weight": torch.zeros(2, width),
        **matrices,
        "norm.weight": torch.ones(width),
    }
    sizes = {name: (width, width) for name in maps}
    total = sum(tensor.numel() for tensor in tensors.values())
    return ModelWeights(
        tensors, layers, parts, "norm", ("head",), sizes, ("norm",), total, torch.device("cpu")
    )


def planted_vectors(numbers: Numbers, length: int, width: int) -> Tensor:
    """What a trained prompt is on a landscape, shape `(length, width)`.

    Args:
        numbers: The prompt's numbers, of any kind.
        length: The number of tokens of a prompt.
        width: The width of a vector.
    """
    if isinstance(numbers, Tensor):
        return numbers if numbers.ndim == 2 else numbers.mean((1, 2, 3))
    if isinstance(numbers, tuple):
        # Vectors (length, layers, width) and gates (layers, heads): with gates of zero, nothing.
        vectors, gates = numbers
        return (vectors * gates.mean(1)[:, None]).mean(1)
    own, weights = parted(numbers)
    flat = torch.cat([torch.zeros(0), *(tensor.flatten() for _, tensor in sorted(weights.items()))])
    found = pad(flat, (0, -len(flat) % (length * width))).view(-1, length, width).sum(0)
    return found if own is None else own + found
