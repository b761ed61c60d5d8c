"""LoRA: a low-rank change of the projections that make queries and values.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685. Section 4.1:
the weights become W + (alpha / r) B A, with A random and B zero at the start. Section 4.2: only
weights of the attention are changed; the paper's table 5 finds W_q and W_v best. The strategy keeps
A and (alpha / r) B. The row that the model reads is that of the empty prompt.

Differs from the paper: AdamW without weight decay, no dropout and no label smoothing. A is uniform,
as in the authors' code, where the paper draws it from a normal distribution.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch import Access, Objective, TrainedStrategy, Weights
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.encoders import attention_maps
from promptsearch.search.options import Positive
from promptsearch.search.training_options import Rate


class Lora(TrainedStrategy):
    """Train low-rank changes of linear maps in each layer.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        rank: The number of rows of A and of columns of B, r in the paper.
        alpha: The change is multiplied by alpha / rank.
        targets: Names of the maps that are changed, such as `q_proj`; left out: those of queries
            and values.
        rate: Peak learning rate of AdamW, for a run of some dozens of steps. `auto` tries rates in
            a short test, which the budget pays.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})
    paper: Paper | None = Paper(
        26_289, "steps", "5 epochs of E2E, 8 rows a step, in its authors' README"
    )

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        rank: Annotated[int, Field(ge=1, le=16_384)] = 8,
        alpha: Positive = 16.0,
        targets: list[str] | None = None,
        rate: Rate = 0.001,
        **training: Any,
    ) -> None:
        self._rank, self._scale, self._targets = rank, alpha / rank, targets
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """A and B of each map; their product is zero at the start."""
        weights = self.objective.weights
        maps = weights.maps
        kinds = sorted({name.rpartition(".")[2] for name in maps})
        usual = attention_maps(kinds, "queries", "values")
        targets = usual if self._targets is None else self._targets
        if strangers := [name for name in targets if name not in kinds]:
            raise StrategyError(
                f"'targets' has '{strangers[0]}'; the linear maps in this model's layers are "
                f"{', '.join(kinds)}"
            )
        if not targets:
            why = (
                "cannot tell which maps of this model's layers make queries and values: name them "
                "under 'targets'"
                if self._targets is None
                else "'targets' is empty: name linear maps"
            )
            raise StrategyError(f"{why}; those in its layers are {', '.join(kinds)}")
        chosen = {name: shape for name, shape in maps.items() if name.rpartition(".")[2] in targets}
        return _LowRank(chosen, self._rank, self._scale, generator).to(weights.device)


class _LowRank(nn.Module):
    """A, shape (rank, in), and B, shape (out, rank), of each map."""

    def __init__(
        self, maps: dict[str, tuple[int, int]], rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.names, self._scale = list(maps), scale
        # A is uniform within 1 / sqrt(in), as in the authors' code and in PEFT; B is zero.
        starts = [
            torch.empty(rank, into).uniform_(-(into**-0.5), into**-0.5, generator=generator)
            for into, _ in maps.values()
        ]
        self.a = nn.ParameterList([nn.Parameter(start) for start in starts])
        self.b = nn.ParameterList(
            [nn.Parameter(torch.zeros(out, rank)) for _, out in maps.values()]
        )

    def forward(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, a, b in zip(self.names, self.a, self.b, strict=True):
            # Section 4.1: A, and (alpha / r) B.
            found |= {f"{name}.lora_A": a, f"{name}.lora_B": self._scale * b}
        return found
