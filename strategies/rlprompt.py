"""RLPrompt: a policy network writes the prompt token by token, and gets nothing but rewards.

Deng, Wang, Hsieh, Wang, Guo, Shu, Song, Xing and Hu 2022, "RLPrompt: Optimizing Discrete Text
Prompts with Reinforcement Learning", arXiv:2205.12548: each token is drawn given the ones before
it, and the rewards of a step become z-scores. A prompt generator that gets only rewards is part (a)
of Figure 2 of Liu et al. 2021, "GPT Understands, Too", arXiv:2103.10385, where P-tuning is
part (b).

Differs from the paper: policy gradient (REINFORCE, Williams 1992,
https://doi.org/10.1007/BF00992696) with a bonus for entropy instead of soft Q-learning, which wants
replayed experience by the thousands; a network of one hidden layer, which sees the token before and
the position, instead of one above a frozen LM; tokens of the pool instead of the policy's
vocabulary, so what is scored is what was generated; and the reward is minus the loss instead of the
piecewise gap of probabilities, where a tie must not count as right. The most probable prompt, token
by token, is scored after every step. Input and output of the network are the LM's own embeddings,
so what is learned about a token also tells about its neighbours.

Beats random on the planted objectives `separable` and `pairwise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch import Evaluation, Objective, Prompt, Strategy
from promptsearch.search.options import Count, Positive

#: How often a whole step is drawn, at most, to find prompts that were not scored before.
_TRIES = 20

Row = tuple[int, ...]  # (length,) indices into the pool


class RLPrompt(Strategy):
    """Train a network that generates the prompt, by policy gradient.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the network and the draws.
        batch: Prompts in each ask, a step of the policy gradient.
        hidden: Width of the network's hidden layer.
        rate: Learning rate of Adam; it means the same for embeddings of any width.
        entropy: Reward, in deviations, for a nat of the policy's entropy: keeps it from settling
            early.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        batch: Annotated[Count, Field(ge=2)] = 10,
        hidden: Annotated[int, Field(ge=1, le=16_384)] = 64,
        rate: Positive = 0.1,
        entropy: Annotated[float, Field(ge=0)] = 0.01,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._batch, self._entropy = batch, entropy
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        pool = torch.tensor(objective.space.pool)
        self.policy = Policy(
            objective.embeddings[pool], objective.space.length, hidden, self._generator
        )
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=rate)
        self._scored: set[Row] = set()
        self.rows: list[Row] = []

    def ask(self) -> Sequence[Prompt]:
        """The most probable prompt and draws, `batch` in all that were not scored before.

        No prompt is asked for when the whole space has been scored.
        """
        space = self.objective.space
        if len(self._scored) == space.size:
            return []
        fresh: dict[Row, None] = {}
        # Before the first step all prompts are equally probable.
        best = self.policy.generate(1) if self._scored else []
        for rows in (
            best,
            *(self.policy.generate(self._batch, self._generator) for _ in range(_TRIES)),
        ):
            fresh.update(dict.fromkeys(row for row in rows if row not in self._scored))
            if len(fresh) >= self._batch:
                break
        while not fresh:  # the policy hardly ever gives another prompt
            row = tuple(self._rng.integers(len(space.pool), size=space.length).tolist())
            fresh.update({} if row in self._scored else {row: None})
        self.rows = list(fresh)[: self._batch]
        return [space.prompt(row) for row in self.rows]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Make one step of the policy gradient.

        A failed prompt is taken to be as bad as the worst one that did not fail.
        """
        self._scored.update(self.rows)
        values = evaluation.values
        good = values[np.isfinite(values)]
        if not len(good):
            return
        rewards = -np.minimum(values, good.max())
        deviation = rewards.std()
        if deviation == 0:  # one prompt, or all alike
            return
        scores = torch.from_numpy((rewards - rewards.mean()) / deviation)
        log_p, entropy = self.policy(torch.tensor(self.rows))
        self._optimizer.zero_grad()
        (-(scores * log_p).mean() - self._entropy * entropy).backward()
        self._optimizer.step()


class Policy(nn.Module):
    """A network from the token before and the position to the probability of each next token.

    A hidden layer makes a vector; its products with the tokens' embeddings are the logits.

    All of it is in float64 and on the CPU: a killed run is replayed from its seed, and must draw
    the same prompts.

    Args:
        embeddings: The embeddings of the pool's tokens, shape `(pool, width)`.
        length: Tokens in a prompt.
        hidden: Width of the hidden layer.
        generator: Draws what the network starts with; its output starts at zero, so all prompts are
            equally probable.
    """

    def __init__(
        self, embeddings: Tensor, length: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        tokens = embeddings.detach().double().cpu()
        tokens = tokens - tokens.mean(0)
        # (pool, width), numbers of the size 1.
        self.tokens = tokens / tokens.square().mean().sqrt().clamp(min=1e-12)
        width = tokens.shape[1]

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self._in = nn.Parameter(normal(width, hidden) * width**0.5)
        self.places = nn.Parameter(normal(length, hidden))
        self.out = nn.Parameter(torch.zeros(hidden, width, dtype=torch.float64))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How probable prompts are, and how open the policy is on the way to them.

        Args:
            rows: Indices into the pool, shape `(prompts, length)`.

        Returns:
            The log-probabilities, shape `(prompts,)`, and the mean over prompts of the positions'
            summed entropies in nats, shape `()`.
        """
        before = torch.cat(
            [torch.zeros_like(self.tokens[rows[:, :1]]), self.tokens[rows[:, :-1]]], 1
        )
        log_p = self.log_probabilities(before, self.places)  # (prompts, length, pool)
        chosen = log_p.gather(-1, rows[..., None])[..., 0]
        return chosen.sum(-1), -(log_p.exp() * log_p).sum((-2, -1)).mean()

    @torch.no_grad()
    def generate(self, count: int, generator: torch.Generator | None = None) -> list[Row]:
        """Prompts, generated token by token.

        Args:
            count: The number of prompts.
            generator: Draws the tokens; None takes the most probable token at each position.
        """
        before = torch.zeros(count, self.tokens.shape[1], dtype=torch.float64)
        columns = []
        for place in self.places:
            log_p = self.log_probabilities(before, place)  # (prompts, pool)
            token = (
                log_p.argmax(-1)
                if generator is None
                else torch.multinomial(log_p.exp(), 1, generator=generator)[:, 0]
            )
            before = self.tokens[token]
            columns.append(token)
        return [tuple(row) for row in torch.stack(columns, 1).tolist()]

    def log_probabilities(self, before: Tensor, places: Tensor) -> Tensor:
        """Log-probabilities of each next token, shape `(..., pool)`.

        Args:
            before: Embedding of the token before, zeros before the first one, shape `(..., width)`.
            places: The positions' vectors, shape `(..., hidden)`.
        """
        # Input and output are means over the width: a step of Adam, which is as large for all
        # parameters, then moves narrow and wide embeddings alike.
        width = self.tokens.shape[1]
        vector = torch.tanh(before @ self._in / width + places) @ self.out
        return (vector @ self.tokens.T / width).log_softmax(-1)
