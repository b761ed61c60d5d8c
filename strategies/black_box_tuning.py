"""Black-box tuning: a soft prompt found from scores alone, by CMA-ES in a random subspace.

Sun, Shao, Qian, Huang and Qiu 2022, "Black-Box Tuning for Language-Model-as-a-Service",
arXiv:2201.03514. Equation 3: p = A z + p_0. Here z has few dimensions and is searched by CMA-ES
(Hansen and Ostermeier 2001), A is a fixed random matrix, and p_0 is made of words. The entries of A
are normal, with the deviation that lets A z vary as the LM's embeddings do where z is standard
normal (Sun et al. 2022, "BBTv2", arXiv:2205.11200, section 3.2).

There the deviation is alpha * s / (sqrt(d) * sigma), with that of the embeddings s, d dimensions
and the first step size sigma of CMA-ES. CMA-ES goes by A z alone, where sigma cancels out: at first
A z has the deviation alpha * s. The `sigma` here is their alpha; they take 1, and this file 0.5.

Differs from the paper: 32 dimensions instead of 500, since a run here scores hundreds of prompts
instead of 8,000; p_0 is made of words drawn from the pool, where the authors' code has the tokens
1000 to 1049, and for sentence pairs a pretrained prompt; a generation of 14 prompts instead of 20;
no bounds (theirs are 5 in every dimension); and cross-entropy, where their code takes a hinge.
Their first version drew A uniformly, with a deviation of 1 / sqrt(3 d), so that standard normal z
move every number by 0.58, whatever the embeddings. `examples/black-box-tuning.yaml` is a study at
the paper's number of calls, dimensions and generation.

Beats random on the planted objective `separable`, within 600 evaluations. Its prompts have 32
numbers, so A is square there and stretches some directions far more than others; where prompts have
thousands of numbers, all directions of the subspace are about alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from cmaes import CMA
from pydantic import Field

from promptsearch import Evaluation, Objective, Prompt, SoftPrompt, Strategy
from promptsearch.records.run import Paper
from promptsearch.search.options import Count, Positive

#: The loss that CMA-ES is told of a failed prompt: any large number, since CMA-ES only compares.
_FAILED = 1e9


class BlackBoxTuning(Strategy):
    """Search a soft prompt by CMA-ES in a random subspace: no gradients.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds words, subspace and CMA-ES.
        dimensions: The number of dimensions of the subspace.
        population: Prompts in each ask, a generation of CMA-ES, which compares within it; left out:
            4 + 3 ln(dimensions).
        sigma: First step size, where 1 moves the vectors as far as the LM's embeddings are spread.
        text: A text whose tokens the vectors start from, repeated to the prompt's length; left out:
            words of the pool.

    Raises:
        StrategyError: The text is empty.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({SoftPrompt})
    paper: Paper | None = Paper(8_000, "prompts", "calls of the model, in its authors' script")

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        dimensions: Annotated[int, Field(ge=2, le=1_000)] = 32,
        population: Annotated[Count, Field(ge=3)] | None = None,
        sigma: Positive = 0.5,
        text: str | None = None,
    ) -> None:
        super().__init__(objective, seed=seed)
        rng = np.random.default_rng(seed)
        embeddings, space = objective.embeddings, objective.space
        ids = list(space.sample(rng, 1)[0].ids) if text is None else self.tokens_of(text)
        self._start = embeddings[torch.tensor(ids)].float().cpu()  # p_0, (length, width)
        deviation = float(embeddings.float().std()) / dimensions**0.5  # BBTv2, section 3.2
        size = (space.length, embeddings.shape[1], dimensions)
        self._matrix = torch.from_numpy(rng.normal(0, deviation, size)).float()  # A
        self._cma = CMA(
            mean=np.zeros(dimensions), sigma=sigma, population_size=population, seed=seed
        )
        self._points = [np.zeros(dimensions)]  # the words themselves are scored first

    def ask(self) -> Sequence[Prompt]:
        """A generation; before the first one, the words alone."""
        # Equation 3: p = A z + p_0.
        return [
            SoftPrompt(self._start + self._matrix @ torch.from_numpy(z).float())
            for z in self._points
        ]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Hand the losses to CMA-ES, and draw the next generation."""
        if len(prompts) == self._cma.population_size:
            self._cma.tell(
                [
                    (z, min(float(v), _FAILED))
                    for z, v in zip(self._points, evaluation.values, strict=True)
                ]
            )
        self._points = [self._cma.ask() for _ in range(self._cma.population_size)]
