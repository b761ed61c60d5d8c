"""Fine-tuning: all weights of the LM are the parameters, the baseline for prompts.

Row "FT" of Li and Liang 2021, "Prefix-Tuning", arXiv:2101.00190, table 1, and "model tuning" of
Lester et al. 2021, arXiv:2104.08691, figure 1. `fine_tuning_top2`, a lightweight baseline, is row
"FT-top2" of the same table: the two top-most layers and the norm above them. No gradient goes below
these, and none is charged there. The row that the model reads is that of the empty prompt.

Differs from the papers: AdamW without weight decay, and a learning rate for a run of some hundred
steps. Parameters are float32, whatever the search computes in. The authors' code of FT-top2 also
trains the embeddings, which are the map to the vocabulary at the same time; here they stay as they
are (the authors' variant without them).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from promptsearch import Access, Objective, State, TrainedStrategy, Weights
from promptsearch.records.run import Paper
from promptsearch.search.encoders import NamedTensors
from promptsearch.search.training_options import Rate

#: The top-most layers that `fine_tuning_top2` trains.
_LAYERS = 2


class FineTuning(TrainedStrategy):
    """Train all weights of the LM.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds minibatches.
        rate: Peak learning rate of AdamW. At 0.00005, the upper end of what is usual, SmolLM2-135M
            on movie reviews is best after eight steps, and worse from then on. `auto` tries rates
            in a short test, which the budget pays.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})
    #: Each finalist is a whole model in memory: as many as see the select split are enough.
    finalists: ClassVar[int] = 3
    paper: Paper | None = Paper(
        21_035, "steps", "5 epochs of E2E, 10 rows a step, in Li and Liang's script"
    )

    def __init__(
        self, objective: Objective, *, seed: int, rate: Rate = 0.00001, **training: Any
    ) -> None:
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """All weights, as they are in the LM."""
        return NamedTensors(self.objective.weights.tensors)

    def state(self) -> State | None:
        """None, for with the optimizer's moments a state is three models large.

        The best few models would lie beside it. A run that was killed trains again from its seed,
        to the same weights, and reads their scores from the log: on disk there is the winner, and
        nothing else of that size.
        """
        return None


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
        21_035, "steps", "5 epochs of E2E, 10 rows a step, in Li and Liang's script"
    )

    def __init__(
        self, objective: Objective, *, seed: int, rate: Rate = 0.0001, **training: Any
    ) -> None:
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The weights of these layers and of this norm, as they are in the LM."""
        weights = self.objective.weights
        names = weights.below([*weights.layers[-_LAYERS:], weights.norm])
        return NamedTensors({name: weights.tensors[name] for name in names})
