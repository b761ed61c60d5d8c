"""P-tuning: pseudo tokens that a prompt encoder produces.

Liu et al. 2021, "GPT Understands, Too", arXiv:2103.10385. Section 3.2: h_i = MLP([LSTM(h_0:i) : LSTM(h_i:m)]), a
bidirectional LSTM of two layers and a two-layer MLP with ReLU over trainable vectors, one for each pseudo token. Pseudo tokens
stand wherever the template has slots; its literal words are the anchor tokens of section 4.2. The encoder is dropped
after training: only its output is kept.
Differs from the paper: the LM stays frozen, AdamW with warm-up and linear decay, and the output is scaled to the
typical norm of the LM's embeddings (an encoder of default initialisation starts far below it).
Beats random on the planted objective `separable`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from promptsearch import Objective, TrainedStrategy
from promptsearch.errors import StrategyError
from promptsearch.training import seeded


class PTuning(TrainedStrategy):
    """Train a prompt encoder.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        encoder: `lstm` (bidirectional LSTM, then a two-layer MLP), `mlp` (the MLP alone) or `none` (the vectors themselves).
        hidden: Width of the encoder; left out: the LM's.
        rate: Peak learning rate of AdamW. Far below that of free vectors: a step of all the encoder's weights adds up in each
            vector, and at 0.002 the vectors of SmolLM2-135M leap about. `auto` tries rates in a
            short test, which the budget pays.
        batch: Examples per step.
        accumulate: Parts into which a step's examples are split to save memory; the step is the same.
        interval: Steps between two scorings.
        patience: Scorings in a row without a lower loss that end the run; 0 trains until the budget is spent.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        encoder: Literal["lstm", "mlp", "none"] = "lstm",
        hidden: int | None = None,
        rate: float | Literal["auto"] = 0.0003,
        batch: int = 16,
        accumulate: int = 1,
        interval: int = 8,
        patience: int = 0,
    ) -> None:
        if hidden is not None and hidden < 2:
            raise StrategyError(f"'hidden' must be at least 2, got {hidden}")
        self._kind, self._hidden = encoder, hidden
        super().__init__(
            objective, seed=seed, rate=rate, batch=batch, interval=interval, patience=patience, accumulate=accumulate
        )

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The prompt encoder, as it starts."""
        width = self.objective.embeddings.shape[1]
        with seeded(generator):
            scale = float(self.objective.embeddings.float().std())
            return _Encoder(self._kind, self.objective.space.length, self._hidden or width, width, scale)


class _Encoder(nn.Module):
    """Pseudo-token embeddings (length, hidden) -> prompt vectors (length, width)."""

    def __init__(self, kind: str, length: int, hidden: int, width: int, scale: float) -> None:
        super().__init__()
        size = width if kind == "none" else hidden
        self.tokens = nn.Parameter(torch.randn(length, size))
        self.lstm = nn.LSTM(hidden, hidden // 2, num_layers=2, bidirectional=True, batch_first=True) if kind == "lstm" else None
        between = 2 * (hidden // 2) if kind == "lstm" else hidden
        self.mlp = None if kind == "none" else nn.Sequential(nn.Linear(between, hidden), nn.ReLU(), nn.Linear(hidden, width))
        with torch.no_grad():
            # A constant, so that the first vectors have the spread of the LM's own embeddings.
            self._scale = scale / float(self._raw().std().clamp_min(1e-6))

    def forward(self) -> Tensor:
        return self._scale * self._raw()

    def _raw(self) -> Tensor:
        vectors: Tensor = self.tokens
        if self.lstm is not None:
            vectors = self.lstm(vectors[None])[0][0]
        return vectors if self.mlp is None else self.mlp(vectors)
