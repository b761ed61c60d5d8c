"""The training loop that all trained strategies share.

A trained strategy is an `nn.Module` that yields the prompt's numbers, one row a token: the vectors of a soft prompt, or
the keys and values of a prefix. Its `ask` does some optimizer steps and returns the present prompt for scoring on
`score_on`, which it does not train on: the best prompt that was scored wins, so early stopping and the anytime curve come
for free.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from promptsearch.errors import StrategyError
from promptsearch.evaluation import Evaluation
from promptsearch.objective import Objective
from promptsearch.prompt import Prompt, SoftPrompt
from promptsearch.strategy import Access, State, Strategy


class TrainedStrategy(Strategy):
    """Trains a prompt by gradient descent on minibatches of the search split.

    Args:
        objective: As in `Strategy`.
        seed: As in `Strategy`.
        rate: Peak learning rate of AdamW; rises linearly over the first tenth of the steps, then falls linearly to zero
            where the budget ends.
        batch: Examples per step.
        interval: Steps between two scorings.
        patience: Scorings in a row without a lower loss that end the run; 0 trains until the budget is spent.
        clip: Largest norm of the gradient.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    #: One kind: the one that the encoder's numbers make.
    proposes: ClassVar[frozenset[type]] = frozenset({SoftPrompt})

    def __init__(
        self, objective: Objective, *, seed: int, rate: float, batch: int, interval: int, patience: int, clip: float = 1.0
    ) -> None:
        super().__init__(objective, seed=seed)
        for name, value, least in (("batch", batch, 1), ("interval", interval, 1), ("patience", patience, 0)):
            if value < least:
                raise StrategyError(f"'{name}' must be at least {least}, got {value}")
        if not 0 < rate < float("inf"):
            raise StrategyError(f"'rate' must be a number above 0, got {rate}")
        self._rate, self._batch, self._interval = rate, batch, interval
        self._patience, self._clip = patience, clip
        self._rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        self._encoder = self.encoder(generator)
        self._optimizer = torch.optim.AdamW(self._encoder.parameters(), lr=rate, weight_decay=0.0)
        self._steps = self._planned_steps()
        self._step = 0
        self._scored = 0
        self._best, self._worse = float("inf"), 0

    @abstractmethod
    def encoder(self, generator: torch.Generator) -> nn.Module:
        """What is trained: called without arguments, it returns the prompt's numbers, one row a token.

        Vectors have the shape `(length, width)`, a prefix `(length, *objective.prefix_shape)`.

        Args:
            generator: The source of all randomness of the initialisation.
        """

    def start(self) -> None:  # noqa: B027 - an encoder may start from its random numbers
        """Move the encoder to where training starts: called once, before the first prompt; what it asks of the LM is charged."""

    def words(self, text: str | None, generator: torch.Generator) -> list[int]:
        """Tokens to start from, one for each of the prompt's.

        Args:
            text: Its tokens, repeated to the prompt's length; None for words of the pool, drawn at random.
            generator: Draws them.

        Raises:
            StrategyError: The text has no tokens.
        """
        space = self.objective.space
        if text is None:
            places = torch.randint(len(space.pool), (space.length,), generator=generator)
            return [int(i) for i in space.pool[places.numpy()]]
        tokens = self.objective.encode(text)
        if not tokens:
            raise StrategyError("'text' is empty: give words to start from, or leave it out")
        return [tokens[i % len(tokens)] for i in range(space.length)]

    @property
    def trainable(self) -> int:
        """Parameters tuned while training."""
        return sum(p.numel() for p in self._encoder.parameters())

    def ask(self) -> Sequence[Prompt]:
        """Train for `interval` steps (none the first time) and return the present prompt."""
        if self._patience and self._worse >= self._patience:
            return []
        if self._scored:
            for _ in range(self._interval):
                self._train()
        else:
            self.start()
        return [self._prompt()]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Count the scorings without a lower loss."""
        self._scored += 1
        value = float(evaluation.values[0])
        self._worse = 0 if value < self._best else self._worse + 1
        self._best = min(self._best, value)

    def state(self) -> State:
        """Weights, optimizer, generator and counters."""
        tensors = {f"encoder.{name}": tensor.clone() for name, tensor in self._encoder.state_dict().items()}
        for i, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": tensor.clone() for name, tensor in moments.items()}
        counters = {"step": self._step, "scored": self._scored, "worse": self._worse}
        best = None if self._best == float("inf") else self._best
        return State(tensors, {**counters, "best": best, "rng": self._rng.bit_generator.state})

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        prefix = "encoder."
        self._encoder.load_state_dict({k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                place, _, name = rest.partition(".")
                moments.setdefault(int(place), {})[name] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        self._step, self._scored, self._worse = (state.data[k] for k in ("step", "scored", "worse"))
        self._best = float("inf") if state.data["best"] is None else state.data["best"]
        self._rng.bit_generator.state = state.data["rng"]

    def _prompt(self) -> Prompt:
        (kind,) = self.proposes
        with torch.no_grad():
            prompt: Prompt = kind(self._encoder())
        return prompt

    def _train(self) -> None:
        """One optimizer step on a minibatch."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * self._schedule(self._step)
        loss = self.objective.loss(self._encoder(), self.objective.minibatch(self._rng, self._batch))
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._encoder.parameters(), self._clip)
        self._optimizer.step()
        self._step += 1

    def _schedule(self, step: int) -> float:
        """The share of the peak rate at a step: up over the first tenth, then down to zero at the last."""
        warmup = max(1, self._steps // 10)
        up = (step + 1) / warmup
        down = (self._steps - step) / max(1, self._steps - warmup)
        return max(0.0, min(up, down, 1.0))

    def _planned_steps(self) -> int:
        """The steps that the budget pays, scorings included."""
        objective, blank = self.objective, self._prompt()
        scoring = objective.price([blank])
        # Forward and backward over a batch of average training examples.
        step = 2 * self._batch * objective.price([blank], objective.training) / len(objective.training)
        left = objective.affordable(objective.space.length) * scoring
        return max(1, int(left / (step + scoring / self._interval)))


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Within, layers of torch are initialised from this generator; the global one, which they use, is given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        yield
