"""Prefix-Tuning+: a memory beside each head, in place of a prefix that its softmax shares out.

Wang, Chen, Li, Liang, Lee, Kawaguchi and Hu 2025, "Prefix-Tuning+: Modernizing Prefix-Tuning by
Decoupling the Prefix from Attention", arXiv:2506.13674 (since its third version "PrefixMemory-
Tuning"). Prefix and input compete in one softmax, so that a long input drowns the prefix and a long
prefix the input. Equation 4 gives each a softmax of its own, as LLaMA-Adapter does; equation 5
writes the prefix's as a kernel, phi(q)^T sum_j phi(k_j) v_j^T; equations 6 and 7 take a trained
matrix M for the sum, o + phi(q)^T M, with one matrix for each head of each layer. phi is elu.

Nothing is left of a prefix's length: M has the square of a head's size, so that all of it has about
as many numbers as a low-rank change of the weights. Here it counts as one: the baselines' access,
and exports as json.

Differs from the paper: queries are taken before they are turned to positions (and before a norm of
their own, where the model has one); M starts at zero, so that training starts from the LM itself;
AdamW has warm-up and linear decay to the end of the budget. The paper's gelu and its trained kernel
are left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from promptsearch import Access, Objective, TrainedStrategy, Weights
from promptsearch.errors import ModelError, StrategyError
from promptsearch.search.encoders import NamedTensors
from promptsearch.search.options import Count
from promptsearch.search.training_options import Rate


class PrefixTuningPlus(TrainedStrategy):
    """Train a matrix for each head, which its query reads beside the text.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds minibatches.
        layers: How many of the LM's layers, from the top, have a memory; left out: all. No gradient
            crosses the layers below, so that with fewer layers a budget pays for more steps.
        **training: The options of all trained strategies, see `TrainingOptions`.

    Raises:
        StrategyError: The model is none whose heads are known, such as a causal one, or has fewer
            layers.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        layers: Count | None = None,
        rate: Rate = 0.001,
        **training: Any,
    ) -> None:
        try:
            most, self._heads, _ = objective.gated_shape
        except ModelError as error:
            raise StrategyError(
                "a memory stands beside each head, and the heads of this model are not known here, "
                "as those of masked and encoder-decoder models are not: take a causal model like "
                "Llama or GPT-2, or another baseline, such as 'lora'"
            ) from error
        self._layers = most if layers is None else layers
        if self._layers > most:
            raise StrategyError(
                f"'layers' must be from 1 to {most}, the layers of this model, got {layers}"
            )
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The matrices M, all zero."""
        weights = self.objective.weights
        start = {}
        for attention, *_ in weights.parts[-self._layers :]:
            size = weights.joined(attention) // self._heads
            if not size:
                raise StrategyError(
                    f"the queries of '{attention}' are not made by a map of their own that is "
                    "known here: take a model like Llama or GPT-2, or 'prefix_tuning'"
                )
            start[f"{attention}.memory"] = torch.zeros(self._heads, size, size)
        return NamedTensors(start).to(weights.device)
