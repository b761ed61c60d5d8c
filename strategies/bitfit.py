"""BitFit: the bias terms of the layers are trained, and nothing else.

Ben Zaken et al. 2021, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models", arXiv:2106.10199, section 3: all biases of attention, MLP and layer norms. The row
that the model reads is that of the empty prompt.

Differs from the paper: its models have a bias in each linear map. Llama and most models after it
have none, so a map without one gets a bias of zeros, which changes nothing at the start (PEFT's
BEFT does so, too). Norms without a bias get none: what it would add to the states is added by the
biases of the maps that read them. A bias of the head stays as it is: with it, an answer's prior
would be trained, and no layer. Answers are words of the LM, so no classifier is trained beside the
biases, as the paper does. AdamW has no weight decay.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from promptsearch import Access, Objective, TrainedStrategy, Weights
from promptsearch.records.run import Paper
from promptsearch.search.encoders import NamedTensors
from promptsearch.search.training_options import Rate


class BitFit(TrainedStrategy):
    """Train the biases of all layers and norms.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds minibatches.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})
    paper: Paper | None = Paper(
        4_992, "steps", "16 epochs of RTE, 8 rows a step, in its authors' code"
    )

    def __init__(
        self, objective: Objective, *, seed: int, rate: Rate = 0.003, **training: Any
    ) -> None:
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The biases as they are in the LM, and zeros where a linear map has none."""
        weights = self.objective.weights
        start = {f"{name}.bias": torch.zeros(out) for name, (_, out) in weights.maps.items()}
        for name in weights.below([*weights.layers, *weights.norms]):
            if name.endswith(".bias"):
                start[name] = weights.tensors[name]
        return NamedTensors(start).to(weights.device)
