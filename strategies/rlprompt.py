"""RLPrompt: a policy above the frozen LM's own states writes the prompt, by soft Q-learning.

Deng, Wang, Hsieh, Wang, Guo, Shu, Song, Xing and Hu 2022, "RLPrompt: Optimizing Discrete Text
Prompts with Reinforcement Learning", arXiv:2205.12548. The LM reads the tokens z_<t that are
written; an MLP of one hidden layer changes its last hidden state s_t; and what comes out goes
through the embeddings of the tokens, which makes Q(s_t, z) for each token z. The next token is
drawn from pi = exp(Q - V), with V(s_t) = log sum_z exp Q(s_t, z). Only the MLP learns.

It learns by soft Q-learning (Guo, Tan, Liu, Xing and Hu 2021, "Efficient (Soft) Q-Learning for Text
Generation with Limited Good Data", arXiv:2106.07704). With A = Q - V, values V' of a copy of the
MLP that follows slowly, and the reward r at the end, path consistency asks for two things at each
t, of one step (equation 6) and of all steps to come (equation 8):

    A(s_t, z_t) = V'(s_t+1) - V'(s_t)        with V'(s_T+1) = r
    sum_{l >= t} A(s_l, z_l) = r - V'(s_t)

The loss is the mean of both squared errors, summed over t. The reward is piecewise (section 2.3):
of a row, 200 times the gap between the probability of the right answer and that of its best rival
where it is right, else 180 times; the mean over rows becomes a z-score among prompts.

Differs from the paper: `reward: loss`, the default, takes minus the loss, which is what a run
minimises, and which says something of text answers, too. `reward: gap` is the paper's; with more
than two choices the rivals are taken together, and a tie is not right (the authors' code leaves a
rival out that is as probable as the right answer). A z-score counts 8 nats instead of the 5 of the
authors' code. Policy and task have the same LM, and tokens are those of the pool, so what is scored
is what was written. V is less the log of the pool's size, for which the authors' code has a bias of
-10 on each logit. All prompts that were scored are learned from again, as Guo et al. do, at a
larger rate, since a run here scores hundreds of prompts and not 200,000. The authors' code names
four terms of the loss, `v2_v2r_v3_v3r`, but never computes the two reversed ones; there are none
here. What the LM reads for the policy is charged.

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch import Access, Evaluation, Objective, Prompt, Strategy
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.records.scores import Floats
from promptsearch.search.options import Count, Positive, Share

#: How often a whole step is drawn, at most, to find a prompt that was not scored before.
_TRIES = 20
#: What the gap counts for where the answer is wrong and right: lambda_1 and lambda_2.
WRONG, RIGHT = 180.0, 200.0

Row = tuple[int, ...]  # (length,) indices into the pool


class RLPrompt(Strategy):
    """Train a policy above the LM's own states that writes the prompt, by soft Q-learning.

    Args:
        objective: Scores prompts on the search split, and shows the LM's states.
        seed: Seeds the network and the draws.
        batch: Prompts that are drawn for each ask.
        hidden: Width of the MLP's hidden layer; 2048 in the paper.
        rate: Learning rate of Adam; it means the same for states of any width.
        updates: Steps of Adam after each ask, each on as many prompts scored before as `replay`.
        replay: Prompts in a step of Adam.
        reward: `loss`: minus the loss, or the metric that is followed; `gap`: the paper's, for
            losses of answers to choose from; a prompt that a race drops counts as failed there.
        scale: What one standard deviation of the rewards is worth, in nats of the policy.
        follow: How far the copy that gives the targets moves towards the MLP in each step of Adam.

    Raises:
        StrategyError: The reward is `gap`, and answers are texts; or, once prompts are scored, a
            metric is followed.
    """

    access: ClassVar[Access] = Access.LOGITS
    paper: Paper | None = Paper(192_000, "prompts", "12,000 steps of 16, in its authors' code")

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        batch: Annotated[Count, Field(ge=2)] = 10,
        hidden: Annotated[int, Field(ge=1, le=16_384)] = 64,
        rate: Positive = 0.02,
        updates: Count = 4,
        replay: Annotated[Count, Field(ge=2)] = 32,
        reward: Literal["loss", "gap"] = "loss",
        scale: Positive = 8.0,
        follow: Share = 0.1,
    ) -> None:
        super().__init__(objective, seed=seed)
        if reward == "gap" and objective.examples(objective.scored[:1])[0].choice is None:
            raise StrategyError(
                "'reward: gap' is between answers to choose from, and here they are texts: take "
                "'reward: loss'"
            )
        self._batch, self._updates, self._replay = batch, updates, replay
        self._reward, self._scale, self._follow = reward, scale, follow
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        embeddings = objective.embeddings[torch.tensor(objective.space.pool)]
        self.policy = Policy(embeddings, hidden, self._generator)
        self._target = Policy(embeddings, hidden, self._generator)
        self._target.load_state_dict(self.policy.state_dict())
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=rate)
        #: The LM's state above each beginning of a prompt that was read, shape `(width,)`.
        self.states: dict[Row, Tensor] = {}
        self._rewards: dict[Row, float] = {}  # of all that was scored; NaN where it failed
        self.rows: list[Row] = []

    def ask(self) -> Sequence[Prompt]:
        """The most probable prompt, token by token, and `batch` draws, those that are new.

        No prompt is asked for when the whole space has been scored.
        """
        space = self.objective.space
        if len(self._rewards) == space.size:
            return []
        # Before the first step all prompts are equally probable.
        written = self.write(1, None) if self._rewards else []
        for _ in range(_TRIES):
            written += self.write(self._batch, self._generator)
            self.rows = [row for row in dict.fromkeys(written) if row not in self._rewards]
            if self.rows:
                break
        while not self.rows:  # the policy hardly ever writes another prompt
            row = tuple(self._rng.integers(len(space.pool), size=space.length).tolist())
            self.rows = [] if row in self._rewards else [row]
        # What was not written was not read either, and `tell` needs it.
        self._read(beginnings(self.rows))
        return [space.prompt(row) for row in self.rows]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Learn from the rewards of all prompts so far, as z-scores."""
        if self._reward == "gap" and not self._rewards:
            self._check_nats()
        found = rewards(evaluation, self._reward)
        self._rewards.update(zip(self.rows, found.tolist(), strict=True))
        known = np.array(list(self._rewards.values()))
        good = known[np.isfinite(known)]
        if not len(good) or good.min() == good.max():
            return
        # A failed prompt is taken to be as bad as the worst one that did not fail.
        filled = np.where(np.isfinite(known), known, good.min())
        z = torch.from_numpy(self._scale * (filled - good.mean()) / good.std())
        rows = list(self._rewards)
        for _ in range(self._updates):
            some = self._rng.permutation(len(rows))[: self._replay]
            self._learn([rows[i] for i in some], z[torch.from_numpy(some)])

    def _check_nats(self) -> None:
        """See that the losses are nats, of which the gap's probabilities are made."""
        if metric := self.objective.log.lines[-1].get("followed"):
            raise StrategyError(
                "'reward: gap' is between probabilities, and what is scored here is minus the "
                f"metric '{metric}', from which none follow: take 'reward: loss', or leave out the "
                "study's 'objective'"
            )

    def _learn(self, rows: Sequence[Row], values: Tensor) -> None:
        """One step of Adam on prompts with these rewards; the target follows."""
        tokens = torch.tensor(rows)  # (prompts, length)
        states = self._read(beginnings(rows)).view(*tokens.shape, -1)
        self._optimizer.zero_grad()
        with torch.no_grad():
            target = self._target(states)
        path_loss(self.policy(states), target, tokens, values).backward()
        self._optimizer.step()
        with torch.no_grad():
            for own, new in zip(self._target.parameters(), self.policy.parameters(), strict=True):
                own.lerp_(new, self._follow)

    @torch.no_grad()
    def write(self, count: int, generator: torch.Generator | None) -> list[Row]:
        """Prompts, token by token.

        Args:
            count: The number of prompts.
            generator: Draws the tokens; None takes the most probable one at each position.
        """
        rows: list[Row] = [()] * count
        for _ in range(self.objective.space.length):
            q = self.policy(self._read(rows))  # (prompts, pool)
            tokens = (
                q.argmax(-1)
                if generator is None
                else torch.multinomial(q.softmax(-1), 1, generator=generator)[:, 0]
            )
            rows = [(*row, token) for row, token in zip(rows, tokens.tolist(), strict=True)]
        return rows

    def _read(self, begun: Sequence[Row]) -> Tensor:
        """The LM's states above beginnings of prompts, each read and paid once, `(rows, width)`."""
        new = [row for row in dict.fromkeys(begun) if row not in self.states]
        if new:
            pool = self.objective.space.pool
            states = self.objective.states([pool[list(row)].tolist() for row in new])
            self.states.update(zip(new, states.double(), strict=True))
        return torch.stack([self.states[row] for row in begun])


class Policy(nn.Module):
    """The MLP above the LM's states, and the tokens' embeddings above the MLP.

    All of it is in float64 and on the CPU: a killed run is replayed from its seed, and must draw
    the same prompts.

    Args:
        embeddings: The embeddings of the pool's tokens, shape `(pool, width)`.
        hidden: Width of the hidden layer.
        generator: Draws what the MLP starts with; its output starts at zero, so all prompts are
            equally probable.
    """

    def __init__(self, embeddings: Tensor, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        tokens = embeddings.detach().double().cpu()
        tokens = tokens - tokens.mean(0)
        # (pool, width), numbers of the size 1.
        self.tokens = tokens / tokens.square().mean().sqrt().clamp(min=1e-12)
        width = tokens.shape[1]
        drawn = torch.randn((width, hidden), generator=generator, dtype=torch.float64)
        self._in = nn.Parameter(drawn * width**0.5)
        self._bias = nn.Parameter(torch.zeros(hidden, dtype=torch.float64))
        self.out = nn.Parameter(torch.zeros(hidden, width, dtype=torch.float64))

    def forward(self, states: Tensor) -> Tensor:
        """Q of each next token, shape `(..., pool)`, from the LM's states, `(..., width)`."""
        # Input and output are means over the width: a step of Adam, which is as large for all
        # parameters, then moves narrow and wide states alike.
        width = states.shape[-1]
        normal = nn.functional.layer_norm(states, (width,))
        vector = torch.relu(normal @ self._in / width + self._bias) @ self.out
        return vector @ self.tokens.T / width


def beginnings(rows: Sequence[Row]) -> list[Row]:
    """What stands before each token of prompts, prompt by prompt."""
    return [row[:t] for row in rows for t in range(len(row))]


def path_loss(q: Tensor, target: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """The soft Q-learning loss of the module's docstring, shape `()`.

    Args:
        q: Q of the policy, shape `(prompts, length, pool)`.
        target: Q of the copy that gives the targets, of the same shape.
        tokens: The prompts, indices into the pool, shape `(prompts, length)`.
        values: Their rewards r, shape `(prompts,)`.
    """
    size = math.log(q.shape[-1])  # V is 0 where all tokens have the same Q of 0
    gains = q.gather(-1, tokens[..., None])[..., 0] - (q.logsumexp(-1) - size)  # A
    before = target.logsumexp(-1) - size  # V'(s_t)
    after = torch.cat([before[:, 1:], values[:, None]], 1)  # V'(s_t+1)
    rest = gains.flip(1).cumsum(1).flip(1)
    errors = (gains - (after - before)).square() + (rest - (values[:, None] - before)).square()
    loss: Tensor = errors.sum(1).mean() / 2
    return loss


def rewards(evaluation: Evaluation, kind: str) -> Floats:
    """The reward of each prompt, NaN where it failed, shape `(prompts,)`.

    Args:
        evaluation: The scores, losses in nats.
        kind: `loss` or `gap`.
    """
    gap = 2 * np.exp(-evaluation.losses) - 1  # p less what is left for all others
    found: Floats = (
        np.where(np.isfinite(evaluation.values), -evaluation.values, np.nan)
        if kind == "loss"
        else (np.where(gap > 0, RIGHT, WRONG) * gap).mean(1)
    )
    return found
