"""PEZ: train vectors that are words whenever the LM sees them.

Wen, Jain, Kirchenbauer, Goldblum, Geiping and Goldstein 2023, "Hard Prompts Made Easy:
Gradient-Based Discrete Optimization for Prompt Tuning and Discovery", arXiv:2302.03668.
Algorithm 1: the vectors P are projected to the nearest embeddings P' for the forward pass, and the
gradient at P' moves P: P = P - rate * g. P is never overwritten by P', so steps that are too small
to reach another word add up.

Differs from the paper: nearest means by cosine, among the words of the pool only, so that no
special token is a neighbour; AdamW with warm-up and linear decay, without weight decay; the words
are scored as words.

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from promptsearch import HardPrompt, Objective, Prompt, SoftPrompt, TrainedStrategy
from promptsearch.prompts.numbers import Numbers
from promptsearch.records.run import Paper
from promptsearch.search.options import Count
from promptsearch.search.training_options import Rate


class PEZ(TrainedStrategy):
    """Train free vectors by the gradient at their nearest words, and propose the words.

    With `start: {run: LABEL}` they start from that run's winner, its vectors or its words.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the first words and the minibatches.
        text: Words of the pool to begin with, repeated to the prompt's length; left out: words
            drawn from the pool.
        interval: Steps between two scorings; words that were scored before cost nothing.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({HardPrompt})
    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, SoftPrompt})
    paper: Paper | None = Paper(5_000, "steps", "for language models, in its authors' README")

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        text: str | None = None,
        rate: Rate = 0.03,
        interval: Count = 2,
        **training: Any,
    ) -> None:
        self._text = text
        super().__init__(objective, seed=seed, rate=rate, interval=interval, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The free vectors, as they start, and the words that they may become."""
        objective, start = self.objective, self.objective.start
        words = self.first_words(self._text, np.random.default_rng(self.seed))
        vectors = None if start is None else start.parts.vectors
        if vectors is None:
            vectors = objective.embeddings[torch.tensor(words.ids)].float().cpu()
        return _Projected(
            vectors,
            objective.embeddings[torch.from_numpy(objective.space.pool.copy())].float().cpu(),
        )

    def proposal(self, made: Numbers) -> Prompt:
        """The words, not their embeddings, so that what is reported was scored as words."""
        assert isinstance(self.module, _Projected)
        return self.objective.space.prompt(self.module.nearest().numpy())


class _Projected(nn.Module):
    """Free vectors that come out as the nearest of some words.

    Args:
        vectors: Where the free vectors start, shape `(length, width)`.
        words: The words that they may become, shape `(pool, width)`.
    """

    _words: Tensor

    def __init__(self, vectors: Tensor, words: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.clone())
        self.register_buffer("_words", words, persistent=False)  # the LM's own: no part of a state

    def nearest(self) -> Tensor:
        """Places of the words with the highest cosine, shape (length,)."""
        return (normalize(self.vectors.detach(), dim=-1) @ normalize(self._words, dim=-1).T).argmax(
            -1
        )

    def forward(self) -> Tensor:
        # Algorithm 1: the value is P', the words exactly, and the gradient goes on to P.
        return self._words[self.nearest()] + (self.vectors - self.vectors.detach())
