"""Landscapes: how much worse than the best prompt is another one?"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

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
