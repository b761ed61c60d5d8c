"""(IA)^3: each layer's keys, values and inner activations of the MLP, scaled by learned vectors.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", arXiv:2205.05638, section 3.3: attention becomes softmax(Q (l_k * K)^T / sqrt(d))
(l_v * V), and the MLP (l_ff * f(W_1 x)) W_2, with l_k, l_v and l_ff of ones at the start. In an
encoder-decoder model the attention of the decoder to the encoder has its own vectors. The row that
the model reads is that of the empty prompt.

Differs from the paper: its two further losses are left out (unlikelihood of wrong choices, and a
loss normalised by length, for which the objective's own is used), and so is training the vectors on
other tasks first; AdamW where the paper has Adafactor. Where one matrix makes queries, keys and
values, as in GPT-2, queries are scaled, too: l_q * q times k is q times l_q * k, so nothing can be
said with it that l_k does not say. Where positions are turned into keys, the scale stands before
the turn, as in PEFT. PEFT's defaults scale queries instead of keys in some models (BART, Qwen,
Gemma), and in BERT also what joins the heads; here it is keys, values and the MLP's last map in all
of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from promptsearch import Access, Objective, TrainedStrategy, Weights
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.encoders import NamedTensors, attention_maps
from promptsearch.search.training_options import Rate


class IA3(TrainedStrategy):
    """Train scales of keys, values and the MLP's inner activations in each layer.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds minibatches.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({Weights})
    paper: Paper | None = Paper(1_000, "steps", "of 8 examples each (section 3.5)")

    def __init__(
        self, objective: Objective, *, seed: int, rate: Rate = 0.01, **training: Any
    ) -> None:
        super().__init__(objective, seed=seed, rate=rate, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """Ones, which change nothing.

        Raises:
            StrategyError: The maps that make keys and values are not known by their names.
        """
        weights = self.objective.weights
        kinds = {name.rpartition(".")[2] for name in weights.maps}
        wanted = attention_maps(kinds, "keys", "values")
        if not wanted:
            raise StrategyError(
                "cannot tell which maps of this model's layers make keys and values, among "
                f"{', '.join(sorted(kinds))}: take another baseline, such as `lora` with `targets`"
            )
        start = {
            f"{name}.ia3_out": torch.ones(out)  # l_k and l_v
            for name, (_, out) in weights.maps.items()
            if name.rpartition(".")[2] in wanted
        }
        for *_, mlp in weights.parts:
            own = [name for name in weights.maps if f"{name}.".startswith(f"{mlp}.")]
            if not own or weights.maps[own[-1]][1] != weights.width:
                raise StrategyError(
                    f"cannot tell which map of '{mlp}' is its last, as in a mixture of experts: "
                    "take another baseline, such as `lora` with `targets`"
                )
            start[f"{own[-1]}.ia3_in"] = torch.ones(weights.maps[own[-1]][0])  # l_ff
        return NamedTensors(start).to(weights.device)
