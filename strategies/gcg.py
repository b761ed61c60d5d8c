"""GCG: exchange one token at any position for one that the gradient promises to be better.

Zou, Wang, Carlini, Nasr, Kolter and Fredrikson 2023, "Universal and Transferable Adversarial
Attacks on Aligned Language Models", arXiv:2307.15043. Algorithm 1: for each position, take the k
tokens with the largest negative gradient with respect to its one-hot vector; make `width` prompts
that differ from the present one in one token, with position and token drawn uniformly; score all of
them; the best one is the next. The buffer of several prompts, of which the best is changed and the
worst replaced, is that of Hayase, Borevkovic, Carlini, Tramer and Nasr 2024, "Query-Based
Adversarial Prompt Generation", arXiv:2402.12329, Algorithm 1.

Two of its heirs are here. `merge`: Jia, Pang, Du, Huang, Gu, Liu, Cao and Lin 2024, "Improved
Techniques for Optimization-Based Jailbreaking on Large Language Models" (I-GCG), arXiv:2405.21018,
the automatic multi-coordinate update: the best exchange, the best two in one prompt, the best
three, and so on are scored as well, and the best of all goes on. `momentum`: Zhang and Wei 2024,
"Boosting Jailbreak Attack with Momentum" (MAC), arXiv:2405.01229, Algorithm 1: the gradient that
names the tokens is a mean over the steps so far.

Differs from the papers: the loss is that of the task, over minibatches, instead of that of one
target string; the present prompt stays where no candidate is better (in Algorithm 1 it is always
replaced); there are some candidates instead of 512. Losses on different examples do not compare, so
the prompts of the buffer are scored again with the candidates of each step. Only exchanges that are
better than the present prompt are joined, each at a position of its own; in I-GCG it is the best
ones, whatever they are worth. `merge` pays at equal work on random targets, see
`results/benchmarks/gcg-targets.md`; `momentum` is off, since nothing measured here speaks for it.

Beats random on the planted objectives `separable` and `pairwise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from promptsearch import (
    Access,
    Ask,
    Evaluation,
    HardPrompt,
    Objective,
    Prompt,
    State,
    Strategy,
    TextPrompt,
)
from promptsearch.records.run import Paper
from promptsearch.search.asked import in_one_order
from promptsearch.search.options import Count


@dataclass(frozen=True)
class _Step:
    """A step whose single exchanges are scored, and wait for the prompts that join them.

    Args:
        examples: Ids of its examples, shape `(batch,)`.
        best: The best prompts so far and their losses on these examples, the best one first.
        merged: The prompts that join several exchanges.
    """

    examples: list[int]
    best: list[tuple[HardPrompt, float]]
    merged: list[HardPrompt]


class GCG(Strategy):
    """Greedy coordinate gradient: exchange any one token for one of the best by gradient.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the first tokens, the draw of candidates and the minibatches.
        width: Candidates in each step, B in the paper.
        top: Tokens of each position from which the candidates are drawn, k in the paper; at most
            half of the pool.
        batch: Examples of a step, the same ones for the gradient, the buffer and the candidates;
            where fewer are not scored on, all of these.
        buffer: Prompts that are kept; the best one is changed. 1 keeps the best one only.
        merge: Prompts in each step that join the best exchanges, two of them in the first one, and
            one more in each next one, p in I-GCG; 0 for GCG as it was.
        momentum: Weight of the earlier gradients in the mean that names the tokens, mu in MAC; 0
            takes the present gradient alone.
        text: Words of the pool to begin with, repeated to the prompt's length; left out: words
            drawn from the pool.

    Raises:
        StrategyError: An option is out of its range, or the text holds tokens outside the pool.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    paper: Paper | None = Paper(256_000, "prompts", "500 steps of 512, in its authors' script")
    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        width: Count = 12,
        top: Count = 32,
        batch: Count = 16,
        buffer: Count = 1,
        merge: Annotated[int, Field(ge=0, le=100_000)] = 7,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        text: str | None = None,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._width, self._size = width, buffer
        self._batch = min(batch, len(objective.training))
        self._merge, self._momentum = merge, momentum
        self._mean: NDArray[np.float32] | None = None  # of the gradients, shape `(length, pool)`
        self._step: _Step | None = None
        self.top = min(top, max(1, len(objective.space.pool) // 2))
        self._rng = np.random.default_rng(seed)
        self.buffer = [self.first_words(text, self._rng)]  # the best one first
        self._scored = False  # whether that one was scored on all of `score_on`

    def ask(self) -> Sequence[Prompt] | Ask:
        """The best prompt alone when it is new; else a step's candidates, then their merger."""
        if not self._scored:
            return self.buffer[:1]
        if self._step:
            return Ask(self._step.merged, self._step.examples)
        objective = self.objective
        if len(objective.space.pool) == 1:
            return []
        drawn = objective.minibatch(self._rng, self._batch)
        examples = in_one_order(drawn, objective.training)
        gradient = objective.token_gradient(self.buffer[0], examples).numpy()
        if self._momentum:
            # Zhang and Wei, Algorithm 1: the mean of all gradients so far, the last one with the
            # largest weight.
            before = gradient if self._mean is None else self._mean
            mean = self._momentum * before + (1 - self._momentum) * gradient
            self._mean = gradient = mean.astype(np.float32)
        return Ask([*self.buffer, *self._changed(gradient)], examples)

    def _changed(
        self, gradient: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    ) -> list[HardPrompt]:
        """New prompts, each with one token exchanged; fewer than `width` where there are fewer.

        Args:
            gradient: The loss's gradient at the best prompt, shape `(length, pool)`.
        """
        space = self.objective.space
        own = space.indices(self.buffer[0])
        # Algorithm 1: at each position the k tokens with the largest negative gradient. The present
        # token is no exchange, so it is left out: (length, top) others.
        best = np.argsort(gradient, axis=1, kind="stable")
        others = np.stack(
            [row[row != token][: self.top] for row, token in zip(best, own, strict=True)]
        )
        # Algorithm 1: position and token are drawn uniformly, here each pair at most once.
        draw = self._rng.choice(others.size, size=min(self._width, others.size), replace=False)
        places, ranks = np.divmod(draw, others.shape[1])
        rows = np.repeat(own[None], len(draw), axis=0)
        rows[np.arange(len(draw)), places] = others[places, ranks]
        kept = set(self.buffer)
        return [prompt for prompt in map(space.prompt, rows) if prompt not in kept]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Keep the best prompts, all of them on the same examples."""
        if not self._scored:
            self._scored = True
            return
        told = list(zip(HardPrompt.among(prompts), evaluation.values.tolist(), strict=True))
        # What is kept stands first, so it wins a tie.
        scored = [*self._step.best, *told] if self._step else told
        best = sorted(scored, key=lambda each: each[1])[: self._size]
        if not self._step and (merged := self._merged(told)):
            self._step = _Step(evaluation.examples.tolist(), best, merged)
            return
        # Algorithm 1 of Hayase et al.
        before, self.buffer = self.buffer[0], [prompt for prompt, _ in best]
        self._step, self._scored = None, self.buffer[0] == before

    def _merged(self, told: Sequence[tuple[HardPrompt, float]]) -> list[HardPrompt]:
        """The best two exchanges in one prompt, the best three, and so on.

        Args:
            told: The buffer and the candidates, with their losses.
        """
        present, loss = told[0]
        better = [each for each in told[len(self.buffer) :] if each[1] < loss]
        ids, found = np.array(present.ids), list[HardPrompt]()
        # Jia et al.: the candidates join one after the other, in the order of their losses.
        for prompt, _ in sorted(better, key=lambda each: each[1]):
            (place,) = np.flatnonzero(np.array(prompt.ids) != present.ids)
            if ids[place] == present.ids[place]:  # else a better exchange stands there
                ids[place] = prompt.ids[place]
                found.append(HardPrompt(ids))
        # The first one is the best exchange alone.
        return [prompt for prompt in found[1 : self._merge + 1] if prompt not in self.buffer]

    def state(self) -> State:
        """The buffer, the generator, the step that is not complete and the mean gradient."""
        data = {
            "buffer": [list(prompt.ids) for prompt in self.buffer],
            "scored": self._scored,
            "rng": self._rng.bit_generator.state,
        }
        if self._step:
            best = [(list(prompt.ids), loss) for prompt, loss in self._step.best]
            merged = [list(prompt.ids) for prompt in self._step.merged]
            data["step"] = {"examples": self._step.examples, "best": best, "merged": merged}
        tensors = {} if self._mean is None else {"mean": torch.from_numpy(self._mean)}
        return State(tensors, data)

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        self.buffer = [HardPrompt(ids) for ids in state.data["buffer"]]
        self._scored = state.data["scored"]
        self._rng.bit_generator.state = state.data["rng"]
        step, mean = state.data.get("step"), state.tensors.get("mean")
        self._mean = None if mean is None else mean.numpy()
        self._step = step and _Step(
            step["examples"],
            [(HardPrompt(ids), loss) for ids, loss in step["best"]],
            [HardPrompt(ids) for ids in step["merged"]],
        )
