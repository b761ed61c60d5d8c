"""Trained prompts that start as those of PEFT do by default, for `defaults.yaml`.

PEFT 0.21 draws all numbers from a standard normal distribution: the vectors of PROMPT_TUNING
(`prompt_tuning_init: RANDOM`), the keys and values of PREFIX_TUNING (`prefix_projection: false`),
and what the encoder of P_TUNING reads, three linear maps with ReLU between them (`MLP`). PEFT sets
no learning rate; the `Trainer` of transformers has 0.00005, which falls linearly. Both stand here
as what they are: nobody chose them for any task.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from promptsearch import Objective, PrefixPrompt, TrainedStrategy
from promptsearch.search.encoders import Free, seeded
from promptsearch.search.options import Count
from promptsearch.search.training_options import Rate

#: The learning rate of the `Trainer`.
RATE = 0.00005


class PromptTuning(TrainedStrategy):
    """Train the vectors of a soft prompt, which start as PEFT's.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    def __init__(
        self, objective: Objective, *, seed: int, rate: Rate = RATE, **training: Any
    ) -> None:
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The vectors."""
        shape = (self.objective.space.length, self.objective.embeddings.shape[1])
        return Free(torch.randn(shape, generator=generator))


class PrefixTuning(PromptTuning):
    """Train the keys and values of a prefix, which start as PEFT's.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({PrefixPrompt})

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The keys and values."""
        shape = (self.objective.space.length, *self.objective.prefix_shape)
        return Free(torch.randn(shape, generator=generator))


class PTuning(PromptTuning):
    """Train a prompt encoder, which is and starts as PEFT's.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        hidden: Width of the encoder; PEFT has no default, and 128 in its documentation.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        hidden: Count = 128,
        rate: Rate = RATE,
        **training: Any,
    ) -> None:
        self._hidden = hidden
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The encoder, from numbers to vectors."""
        width = self.objective.embeddings.shape[1]
        tokens = Free(torch.randn(self.objective.space.length, width, generator=generator))
        with seeded(generator):
            return Encoder(tokens, width, self._hidden)


class Encoder(nn.Module):
    """`PromptEncoder` of PEFT with `encoder_reparameterization_type: MLP`."""

    def __init__(self, tokens: Free, width: int, hidden: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.mlp_head = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
        )

    def forward(self) -> Tensor:
        """The vectors, shape (length, width)."""
        vectors: Tensor = self.mlp_head(self.tokens())
        return vectors
