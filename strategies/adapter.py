"""Adapters: small networks behind the attention and the MLP of each layer.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", arXiv:1902.00751, section 2.1,
put a bottleneck, h + U f(D h), behind both sub-layers of each layer; it is near to the identity
when training starts. Li and Liang 2021, arXiv:2101.00190, table 1, have the rows "Adapter 3%" and
"Adapter 0.1%"; their code computes h + U relu(D norm(h)), and so does this strategy.

Differs from the papers: U starts at zero, so that training starts from the LM itself; the layer
norm in front of D has no scale and shift of its own, because D and its bias can express these; the
LM's own norms stay as they are, and answers are words of the LM: Houlsby et al. train norms and a
classifier, too. AdamW has no weight decay.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch import Access, Objective, TrainedStrategy, Weights
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.encoders import NamedTensors
from promptsearch.search.training_options import Rate


class Adapter(TrainedStrategy):
    """Train small networks that are added behind attention and MLP of each layer.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        share: The size of all adapters together, as a share of the LM's weights: the widest
            bottleneck that stays within this share is taken. The literature has 0.03 and 0.001.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})
    paper: Paper | None = Paper(
        21_035, "steps", "5 epochs of E2E, 10 rows a step, in Li and Liang's script"
    )

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        share: Annotated[float, Field(gt=0, le=1)] = 0.03,
        rate: Rate = 0.001,
        **training: Any,
    ) -> None:
        self._share = share
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The adapters, which change nothing at the start."""
        weights = self.objective.weights
        places = [place for parts in weights.parts for place in parts]
        narrow, width = self._bottleneck(len(places)), weights.width
        start: dict[str, Tensor] = {}
        for place in places:
            # D of section 2.1, drawn as `nn.Linear` draws its weights.
            down = torch.empty(narrow, width).uniform_(
                -(width**-0.5), width**-0.5, generator=generator
            )
            start[f"{place}.adapter_down"] = down
            start[f"{place}.adapter_down_bias"] = torch.zeros(narrow)
            start[f"{place}.adapter_up"] = torch.zeros(width, narrow)  # U of section 2.1
            start[f"{place}.adapter_up_bias"] = torch.zeros(width)
        return NamedTensors(start).to(weights.device)

    def _bottleneck(self, places: int) -> int:
        """The width of the widest bottleneck within the share.

        An adapter has width * (2 * bottleneck + 1) + bottleneck numbers.

        Args:
            places: The number of sub-layers, each of which gets an adapter.

        Raises:
            StrategyError: Not even a bottleneck of width 1 stays within the share.
        """
        weights = self.objective.weights
        width, total = weights.width, weights.total
        found = int((self._share * total / places - width) // (2 * width + 1))
        if found < 1:
            least = places * (3 * width + 1)
            raise StrategyError(
                f"'share' is {self._share:g} of {total:,} weights, which is less than the "
                f"{least:,} of adapters of one number behind each of {places} sub-layers: "
                "expected at least "
                f"{math.ceil(1e6 * least / total) / 1e6:g}"
            )
        return found
