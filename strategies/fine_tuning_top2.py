"""Fine-tuning of the two top-most layers and the norm above them: a lightweight baseline.

Row "FT-top2" of Li and Liang 2021, "Prefix-Tuning", arXiv:2101.00190, table 1. No gradient goes
below these layers, and none is charged there. The row that the model reads is that of the empty
prompt.

Differs from the paper: the authors' code also trains the embeddings, which are the map to the
vocabulary at the same time; here they stay as they are (the authors' variant without them). AdamW
has no weight decay.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from promptsearch import Access, Objective, TrainedStrategy, Weights
from promptsearch.records.run import Paper
from promptsearch.search.encoders import NamedTensors
from promptsearch.search.training_options import Rate

#: The top-most layers that are trained.
_LAYERS = 2


class FineTuningTop2(TrainedStrategy):
    """Train the weights of the two top-most layers and of the last norm.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds minibatches.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})
    paper: Paper | None = Paper(
        21_035, "steps", "5 epochs of E2E, 10 rows a step, in its authors' script"
    )

    def __init__(
        self, objective: Objective, *, seed: int, rate: Rate = 0.0001, **training: Any
    ) -> None:
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The weights that are trained, as they are in the LM."""
        weights = self.objective.weights
        names = weights.below([*weights.layers[-_LAYERS:], weights.norm])
        return NamedTensors({name: weights.tensors[name] for name in names})
