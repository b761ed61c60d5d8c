"""Prompt tuning: the prompt's vectors are the parameters.

Lester, Al-Rfou and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv:2104.08691.
Differs from the paper: AdamW with warm-up and linear decay instead of Adafactor at a constant rate of 0.3, since a
run here has some hundred steps instead of 30,000; vectors may stand in any slot of the template.
Beats random on the planted objective `separable`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from promptsearch import Objective, TrainedStrategy


class PromptTuning(TrainedStrategy):
    """Train the vectors of a soft prompt directly.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        init: Where the vectors start: `words` of the pool, drawn at random, or `random` numbers of the embeddings' scale.
        text: A text whose tokens the vectors start from, repeated to the prompt's length; overrides `init`.
        rate: Peak learning rate of AdamW.
        batch: Examples per step.
        interval: Steps between two scorings.
        patience: Scorings in a row without a lower loss that end the run; 0 trains until the budget is spent.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        init: Literal["words", "random"] = "words",
        text: str | None = None,
        rate: float = 0.03,
        batch: int = 16,
        interval: int = 8,
        patience: int = 0,
    ) -> None:
        self._init, self._text = init, text
        super().__init__(objective, seed=seed, rate=rate, batch=batch, interval=interval, patience=patience)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The vectors, as they start."""
        embeddings, length = self.objective.embeddings, self.objective.space.length
        if self._text is not None or self._init == "words":
            start = embeddings[torch.tensor(self.words(self._text, generator))].float().cpu()
        else:
            scale = float(embeddings.float().std())
            start = scale * torch.randn(length, embeddings.shape[1], generator=generator)
        return _Vectors(start)


class _Vectors(nn.Module):
    """Parameters of shape (length, width), as they are."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        return self.vectors
