"""P-tuning: pseudo tokens that a prompt encoder produces, for a frozen LM or one tuned with them.

The LM is frozen in `p_tuning`, and tuned together with the pseudo tokens in `p_tuning_lm`.

Liu et al. 2021, "GPT Understands, Too", arXiv:2103.10385. Section 3.2:
h_i = MLP([LSTM(h_0:i) : LSTM(h_i:m)]), a bidirectional LSTM of two layers and a two-layer MLP with
ReLU over trainable vectors, one for each pseudo token. Pseudo tokens stand wherever the template
has slots; its literal words are the anchor tokens of section 4.2. The encoder is dropped after
training: only its output is kept. For knowledge probing the paper freezes the LM. In section 4.2 it
tunes the LM together with the prompt: its SuperGLUE numbers are those of changed weights, and
compare with `p_tuning_lm`.

Differs from the paper: AdamW with warm-up and linear decay, and the output is scaled to the typical
norm of the LM's embeddings (an encoder of default initialisation starts far below it). As in the
authors' code for few-shot SuperGLUE, the LM has a learning rate of its own, 0.00001, and one norm
of all gradients is clipped; unlike there, the LM has no weight decay and no dropout.

The vectors start nearly equal, because the biases of LSTM and MLP outweigh what differs between
tokens. The start is left as it is: where the aim is to come near to given words, the vectors part
within some dozens of steps. Most of what a step moves is common to all vectors, wherever they
start, because they share the encoder; at higher rates that is what makes them leap about.

Both beat random on the planted objective `separable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch import Access, Objective, State, TrainedStrategy, TunedPrompt
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.encoders import NamedTensors, seeded
from promptsearch.search.options import Positive
from promptsearch.search.training_options import Rate


class PTuning(TrainedStrategy):
    """Train a prompt encoder.

    Its vectors are read where words are. P-tuning v2, with keys and values at every layer, is
    `prefix_tuning` with `reparametrise: false`.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        encoder: `lstm` (bidirectional LSTM, then a two-layer MLP), `mlp` (the MLP alone) or `none`
            (the vectors themselves).
        hidden: Width of the encoder, where there is one; left out: the LM's.
        rate: Peak learning rate of AdamW. It is far below that of free vectors, because a step of
            all the encoder's weights adds up in each vector: at 0.002 the vectors of SmolLM2-135M
            leap about. `auto` tries rates in a short test, which the budget pays.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    paper: Paper | None = Paper(
        10_000, "steps", "at most 100 epochs of 800 facts, 8 a step, in its authors' code"
    )

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        encoder: Literal["lstm", "mlp", "none"] = "lstm",
        hidden: Annotated[int, Field(ge=2, le=16_384)] | None = None,
        rate: Rate = 0.0003,
        **training: Any,
    ) -> None:
        self._kind, self._hidden = encoder, hidden
        super().__init__(objective, seed=seed, rate=rate, **training)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Refuse the width of an encoder that is not there."""
        super().check(options)
        if options["encoder"] == "none" and options["hidden"] is not None:
            raise StrategyError(
                "'hidden' is the width of the encoder, and 'encoder: none' has none: leave one of "
                "the two out"
            )

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The prompt encoder, as it starts."""
        width = self.objective.embeddings.shape[1]
        with seeded(generator):
            scale = float(self.objective.embeddings.float().std())
            return _Encoder(
                self._kind, self.objective.space.length, self._hidden or width, width, scale
            )


class PTuningLM(PTuning):
    """Train a prompt encoder and all weights of the LM.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        encoder: `lstm` (bidirectional LSTM, then a two-layer MLP), `mlp` (the MLP alone) or `none`
            (the vectors themselves).
        hidden: Width of the encoder, where there is one; left out: the LM's.
        rate: Peak learning rate of the encoder, by AdamW.
        rate_lm: Peak learning rate of the LM's weights.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    proposes: ClassVar[frozenset[type]] = frozenset({TunedPrompt})
    #: Each finalist is a whole model in memory: as many as see the select split are enough.
    finalists: ClassVar[int] = 3
    paper: Paper | None = Paper(
        3_500, "steps", "of 16 examples in four of seven tasks, else 250, in its authors' scripts"
    )

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        encoder: Literal["lstm", "mlp", "none"] = "lstm",
        hidden: Annotated[int, Field(ge=2, le=16_384)] | None = None,
        rate: Positive = 0.0003,
        rate_lm: Positive = 0.00001,
        **training: Any,
    ) -> None:
        self._rate, self._rate_lm = rate, rate_lm
        super().__init__(
            objective,
            seed=seed,
            encoder=encoder,
            hidden=hidden,
            rate=rate,
            **training,
        )

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The prompt encoder as it starts, and all weights as they are in the LM."""
        return _Beside(super().encoder(generator), NamedTensors(self.objective.weights.tensors))

    def shares(self) -> Mapping[nn.Module, float]:
        """The rates of prompt encoder and LM, as shares of the prompt encoder's rate."""
        prompt, lm = self.module.children()
        return {prompt: 1.0, lm: self._rate_lm / self._rate}

    def state(self) -> State | None:
        """None, as in fine-tuning, for a state would be three models large.

        The best few models would lie beside it. A run that was killed trains again from its seed,
        to the same weights, and reads their scores from the log.
        """
        return None


class _Beside(nn.Module):
    """The vectors that a prompt encoder makes, together with the weights of the LM."""

    def __init__(self, prompt: nn.Module, lm: nn.Module) -> None:
        super().__init__()
        self.prompt, self.lm = prompt, lm

    def forward(self) -> dict[str, Tensor]:
        return {"vectors": self.prompt(), **self.lm()}


class _Encoder(nn.Module):
    """Pseudo-token embeddings, shape (length, hidden), to prompt vectors, shape (length, width).

    Args:
        kind: `lstm`, `mlp` or `none`.
        length: Pseudo tokens in a prompt.
        hidden: Width of the encoder.
        width: Width of the LM's embeddings.
        scale: The standard deviation that the first vectors are to have.
    """

    def __init__(self, kind: str, length: int, hidden: int, width: int, scale: float) -> None:
        super().__init__()
        size = width if kind == "none" else hidden
        self.tokens = nn.Parameter(torch.randn(length, size))
        self.lstm = (
            nn.LSTM(hidden, hidden // 2, num_layers=2, bidirectional=True, batch_first=True)
            if kind == "lstm"
            else None
        )
        between = 2 * (hidden // 2) if kind == "lstm" else hidden
        self.mlp = (
            None
            if kind == "none"
            else nn.Sequential(nn.Linear(between, hidden), nn.ReLU(), nn.Linear(hidden, width))
        )
        with torch.no_grad():
            # A constant, so that the first vectors have the spread of the LM's own embeddings.
            self._scale = scale / float(self._raw().std().clamp_min(1e-6))

    def forward(self) -> Tensor:
        return self._scale * self._raw()

    def _raw(self) -> Tensor:
        vectors: Tensor = self.tokens
        # Section 3.2: h_i = MLP([LSTM(h_0:i) : LSTM(h_i:m)]).
        if self.lstm is not None:
            vectors = self.lstm(vectors[None])[0][0]
        return vectors if self.mlp is None else self.mlp(vectors)
