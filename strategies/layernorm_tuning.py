"""LayerNorm tuning: the scales and shifts of the model's norms are trained, and nothing else.

Zhao et al. 2023, "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
arXiv:2312.11420, section 3: the norms before attention and MLP of each layer. The row that the
model reads is that of the empty prompt.

Differs from the paper: it also trains what joins images to the LM, which there is none of here; all
norms below the head are trained, those above the layers, of embeddings, and of queries and keys
where a model has them among them. PEFT's LN_TUNING takes some of these, by a list for each model.
AdamW has no weight decay.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from promptsearch import Access, Objective, TrainedStrategy, Weights
from promptsearch.search.encoders import NamedTensors
from promptsearch.search.training_options import Rate


class LayerNormTuning(TrainedStrategy):
    """Train the weights of all norms.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds minibatches.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})

    def __init__(
        self, objective: Objective, *, seed: int, rate: Rate = 0.003, **training: Any
    ) -> None:
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The weights of the norms, as they are in the LM."""
        weights = self.objective.weights
        names = weights.below(weights.norms)
        return NamedTensors({name: weights.tensors[name] for name in names})
