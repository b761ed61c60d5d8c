"""LLaMA-Adapter: vectors beside the text at the top-most layers, with gates that start at zero.

Zhang et al. 2023, "LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init
Attention", arXiv:2303.16199. Section 3.1: adaption prompts of length K = 10 at the top L = 30 of 32
layers, to which these layers attend beside the text. Section 3.2: zero-initialised attention,
S = [softmax(S_K) tanh(g); softmax(S_M+1)]: the prompt has a softmax of its own, and each head has a
gate that starts at zero, so that training starts from the LM as it is. Vectors are drawn from
N(0, 1), and their keys are not turned to positions, as in the authors' code. With `gate: layer` it
is PEFT's form, ADAPTION_PROMPT, which PEFT's files hold: one gate for all heads of a layer and no
tanh. With `init: random` gates are drawn as the vectors are, for the paper's ablation: on ScienceQA
LLaMA-7B ends at 83.85 % from gates of zero, and at 40.77 % from a random start.

Differs from the paper: AdamW with warm-up and linear decay to the end of the budget and without
weight decay; the LM's layers below the adapted ones are computed once for each example, and their
outputs are reused.

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from promptsearch import GatedPrompt, Objective, TrainedStrategy
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.options import Count
from promptsearch.search.training_options import Rate


class LlamaAdapter(TrainedStrategy):
    """Train vectors and gates of the top-most layers.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        layers: How many of the LM's layers, from the top, attend to the prompt; left out: 15 of 16,
            as in the paper (30 of 32; 28 of SmolLM2-135M's 30). A gradient costs as many layers as
            this, so that with fewer layers a budget pays for more steps.
        gate: What a gate is: tanh(g) of each `head`, as in the paper, or one g of each `layer`, as
            in PEFT, for export.
        init: Where each g starts: at `zero`, from the LM as it is, or at `random`, drawn from
            N(0, 1).
        rate: Peak learning rate of AdamW. SmolLM2-135M on movie reviews learns equally well at
            0.003 and 0.01; at 0.03 it stands still. `auto` tries rates in a short test, which the
            budget pays.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({GatedPrompt})
    paper: Paper | None = Paper(
        8_125, "steps", "5 epochs of 52,000 rows, 32 a step, in its authors' script"
    )

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        layers: Count | None = None,
        gate: Literal["head", "layer"] = "head",
        init: Literal["zero", "random"] = "zero",
        rate: Rate = 0.003,
        **training: Any,
    ) -> None:
        most = objective.gated_shape[0]
        self._layers = max(1, most * 15 // 16) if layers is None else layers
        if not 1 <= self._layers <= most:
            raise StrategyError(
                f"'layers' must be from 1 to {most}, the layers of this model, got {layers}"
            )
        self._per_head, self._random = gate == "head", init == "random"
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """Vectors and gates, as they start."""
        _, heads, width = self.objective.gated_shape
        vectors = torch.randn(self.objective.space.length, self._layers, width, generator=generator)
        gates = torch.zeros(self._layers, heads if self._per_head else 1)
        if self._random:
            gates.normal_(generator=generator)
        return _Adaption(vectors, gates, bounded=self._per_head)


class _Adaption(nn.Module):
    """The numbers of a gated prompt as they are, except that gates of heads go through tanh.

    Args:
        vectors: The vectors that the layers attend to, shape `(length, layers, width)`.
        gates: The gates, shape `(layers, heads)`, or `(layers, 1)`.
        bounded: Whether they go through tanh.
    """

    def __init__(self, vectors: Tensor, gates: Tensor, *, bounded: bool) -> None:
        super().__init__()
        self._tanh = bounded
        self.vectors = nn.Parameter(vectors)  # (length, layers, width), section 3.1
        self.gates = nn.Parameter(gates)

    def forward(self) -> tuple[Tensor, Tensor]:
        # Section 3.2: tanh(g), which is zero at the start unless gates are drawn.
        return self.vectors, torch.tanh(self.gates) if self._tanh else self.gates
