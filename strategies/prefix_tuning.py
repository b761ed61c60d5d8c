"""Prefix tuning and P-tuning v2: keys and values at every layer, in front of the whole row.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", arXiv:2101.00190.
Section 4.2: all tokens of a row attend to a prefix of trained activations, at each layer.
Section 4.3: P_theta[i, :] = MLP_theta(P'_theta[i, :]), a smaller matrix and a large network with
one hidden layer and tanh; the network is dropped after training, and only its output is kept.
Section 7.4: a prefix starts better from the activations of real words than from random numbers.

With `reparametrise: false` the keys and values themselves are the parameters: P-tuning v2. Liu, Ji,
Fu, Tam, Du, Yang and Tang 2022, "P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning
Universally Across Scales and Tasks", ACL 2022, arXiv:2110.07602, call it an implementation of deep
prompt tuning, "optimized and adapted for NLU": prompts at every layer, with the network as an
option, whose use depends on the task. Unlike there, answers are words of the LM; no head is trained
for labels.

With `layers: n` the prefix stands in the top n layers only, as P-tuning v2 tries out in its section
on prompt depth: there, prompts in higher layers are worth more than as many in lower ones.

Differs from the papers: the authors' code fits the network to the activations of words by 500 steps
of Adam; here its last layer is moved by the least change that gives them exactly. AdamW has warm-up
and linear decay, and the prefix has no dropout.

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch import Objective, PrefixPrompt, TrainedStrategy
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.encoders import Free, seeded
from promptsearch.search.options import Count
from promptsearch.search.training_options import Rate


class PrefixTuning(TrainedStrategy):
    """Train keys and values that stand before each row, at every layer; also P-tuning v2.

    Prefix tuning lets a network make them while training. P-tuning v2 is the same prefix without
    the network: `reparametrise: false`.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        reparametrise: Whether a network makes the prefix while training; `false`, P-tuning v2,
            trains keys and values themselves.
        hidden: Hidden units of the network, where there is one; left out: 512.
        layers: How many of the LM's layers, from the top, read the prefix; left out: all. No
            gradient crosses the layers below, so that with fewer layers a budget pays for more
            steps. An export to keys and values or PEFT holds a prefix of all layers only.
        init: Where the prefix starts: from the keys and values of `words` of the pool, drawn at
            random, or of `random` numbers that are spread as these are, at each layer.
        text: A text whose keys and values the prefix starts from, repeated to the prompt's length;
            overrides `init`.
        rate: Peak learning rate of AdamW; left out: 0.00005 with the network, 0.01 without. With
            the network a step of all its weights adds up in each number: at 0.002 the loss of
            SmolLM2-135M leaps about, at 0.0005 it stands still. `auto` tries rates in a short test,
            which the budget pays.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({PrefixPrompt})
    paper: Paper | None = Paper(
        21_035, "steps", "5 epochs of E2E, 10 rows a step, in its authors' script"
    )

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        reparametrise: bool = True,
        hidden: Annotated[int, Field(ge=1, le=16_384)] | None = None,
        layers: Count | None = None,
        init: Literal["words", "random"] = "words",
        text: str | None = None,
        rate: Rate | None = None,
        **training: Any,
    ) -> None:
        if not reparametrise:  # P-tuning v2
            self.paper = Paper(
                7_800, "steps", "100 epochs of RTE, 32 rows a step, in its authors' script"
            )
        self._hidden = (hidden or 512) if reparametrise else None
        self._layers = objective.prefix_layers[0] if layers is None else layers
        if self._layers not in objective.prefix_layers:
            raise StrategyError(
                "'layers' must be a number of layers that a prefix of this model may have: "
                f"{', '.join(map(str, sorted(objective.prefix_layers)))}; got {layers}"
            )
        self._random, self._text = init == "random" and text is None, text
        rate = rate if rate is not None else 0.00005 if reparametrise else 0.01
        super().__init__(objective, seed=seed, rate=rate, **training)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Refuse the size of a network that is not there."""
        super().check(options)
        if not options["reparametrise"] and options["hidden"] is not None:
            raise StrategyError(
                "'hidden' is the size of the network, and 'reparametrise: false' has none: leave "
                "one of the two out"
            )

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The module that makes the prefix.

        Where the prefix starts is not known before the LM is asked, see `start`.
        """
        _, *token = self.objective.prefix_shape
        shape = (self.objective.space.length, self._layers, *token)
        self._generator = generator
        self.ids = self.words(self._text, generator)
        if self._hidden is None:
            self._prefix: Free | _Network = Free(torch.zeros(shape))
        else:
            with seeded(generator):
                self._prefix = _Network(shape, self.objective.embeddings.shape[1], self._hidden)
        return self._prefix

    def start(self) -> None:
        """Begin from the keys and values of words, or from random numbers spread as these are."""
        # Section 7.4: (length, layers, 2, key heads, size of a head).
        rows = self.objective.keys_values(self.ids)[:, -self._layers :]
        if self._random:
            # Within a layer the keys have one scale and the values another; layers differ, too.
            rows = torch.randn(rows.shape, generator=self._generator) * rows.std(
                (0, 3, 4), keepdim=True
            )
        with torch.no_grad():
            self._prefix.begin(rows)


class _Network(nn.Module):
    """The network of section 4.3: `width` numbers for each token become all its keys and values."""

    def __init__(self, shape: tuple[int, ...], width: int, hidden: int) -> None:
        super().__init__()
        self._shape = shape
        self.tokens = nn.Parameter(torch.randn(shape[0], width))
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, math.prod(shape[1:]))

    def begin(self, rows: Tensor) -> None:
        """Move the last layer so that these keys and values come out.

        They come out exactly where there are no more tokens than hidden units.

        Args:
            rows: Keys and values, shape `(length, layers, 2, key heads, size of a head)`.
        """
        missing = (rows.flatten(1) - self().flatten(1)).double()  # (length, numbers)
        # The pseudo-inverse gives the smallest of all changes that do so.
        change = torch.linalg.pinv(self._states().double()) @ missing  # (hidden, numbers)
        self.outer.weight += change.T.float()

    def forward(self) -> Tensor:
        made: Tensor = self.outer(self._states())  # section 4.3: MLP_theta(P'_theta[i, :])
        return made.view(self._shape)

    def _states(self) -> Tensor:
        return torch.tanh(self.inner(self.tokens))  # (length, hidden)
