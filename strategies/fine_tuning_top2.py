"""Fine-tuning of the two top-most layers and the norm above them: a lightweight baseline.

Row "FT-top2" of Li and Liang 2021, "Prefix-Tuning", arXiv:2101.00190, table 1. No gradient goes
below these layers, and none is charged there. The row that the model reads is that of the empty
prompt.

Differs from the paper: the authors' code also trains the embeddings, which are the map to the
vocabulary at the same time; here they stay as they are (the authors' variant without them). AdamW
has no weight decay.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from promptsearch import Access, Objective, TrainedStrategy, Weights
from promptsearch.search.options import Count
from promptsearch.search.training import NamedTensors, Patience, Rate

#: The top-most layers that are trained.
_LAYERS = 2


class FineTuningTop2(TrainedStrategy):
    """Train the weights of the two top-most layers and of the last norm.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds minibatches.
        rate: Peak learning rate of AdamW; `auto` tries rates in a short test, which the budget
            pays.
        batch: Examples per step.
        accumulate: Parts into which a step's examples are split to save memory; the step is the
            same.
        interval: Steps between two scorings.
        patience: Scorings in a row without a lower loss that end the run; 0 trains until the budget
            is spent.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        rate: Rate = 0.0001,
        batch: Count = 16,
        accumulate: Count = 1,
        interval: Count = 8,
        patience: Patience = 0,
    ) -> None:
        super().__init__(
            objective,
            seed=seed,
            rate=rate,
            batch=batch,
            interval=interval,
            patience=patience,
            accumulate=accumulate,
        )

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The weights that are trained, as they are in the LM."""
        weights = self.objective.weights
        names = weights.below([*weights.layers[-_LAYERS:], weights.norm])
        return NamedTensors({name: weights.tensors[name] for name in names})
