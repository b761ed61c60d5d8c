"""EvoPrompt: a genetic algorithm or differential evolution whose operators are a language model.

Guo et al. 2023, "Connecting Large Language Models with Evolutionary Algorithms Yields Powerful
Prompt Optimizers", arXiv:2309.08532. `ga` (section 3.2): the model crosses two parents and mutates
the child, and the best of parents and children go on. `de` (section 3.3): for each instruction of
the population, the model changes what differs between two others and puts it together with the best
one; the child takes the instruction's place where it is better.

Differs from the paper: parents are drawn by rank, not by the share of their fitness, which says
nothing where it is zero or below; the loss is minimised, since accuracies tie; a request shows what
goes in and what comes out, not the steps between; the first population is the given instructions
and some inferred from solved examples, without paraphrases; no child is scored twice.

Beats random on the planted objectives `separable` and `pairwise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from promptsearch import Evaluation, Objective, Prompt, Strategy, TextPrompt
from promptsearch.records.run import Paper
from promptsearch.search.instructions import (
    CROSSING,
    FROM_EXAMPLES,
    Instructions,
    Written,
    solved,
)
from promptsearch.search.options import Count
from promptsearch.search.unscored import check_unscored

#: The request of `de`, section 3.3: two instructions whose differences count, the present one, and
#: the best one.
_DIFFER = """First: Write the plural of the word.
Second: Give the plural form.
Present: What are many of these called?
Best: Say what more than one of these is called.
New: Give the form for more than one of these.

First: {}
Second: {}
Present: {}
Best: {}
New:"""


class LLMEvolution(Strategy):
    """Let a language model cross and mutate instructions.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds parents, examples, and what the proposer writes.
        algorithm: `ga`, the genetic algorithm, or `de`, differential evolution.
        prompts: Instructions to begin with; the proposer adds its own, from solved examples, until
            there are enough.
        population: Instructions that live at a time, and children in each ask.
        examples: Solved examples in a request for an instruction to begin with.
        temperature: The sampling temperature of the proposer.
        longest: The most tokens of an instruction.
        retries: Further tries after one that gave nothing usable, each from other examples and a
            little more freely drawn, before the run ends.

    Raises:
        StrategyError: A number is out of range, or there are fewer than `examples` examples that
            are not scored on.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    paper: Paper | None = Paper(
        110, "prompts", "10 at first and in each of 10 steps, in its authors' scripts"
    )
    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        algorithm: Literal["ga", "de"] = "ga",
        prompts: list[str] = [],  # noqa: B006 - read only
        population: Annotated[Count, Field(ge=2)] = 10,
        examples: Count = 3,
        temperature: Annotated[float, Field(ge=0)] = 0.7,
        longest: Annotated[Count, Field(ge=2)] = 40,
        retries: Annotated[int, Field(ge=0, le=1_000)] = 20,
    ) -> None:
        super().__init__(objective, seed=seed)
        check_unscored(objective, examples, "examples")
        prompts = self.first_texts(prompts)
        self._rng = np.random.default_rng(seed)
        self._algorithm, self._size, self._examples = algorithm, population, examples
        self._given = list(dict.fromkeys(prompts))
        self._waiting = list(self._given)
        self._begun = 0  # instructions that were scored to begin with
        self.living: list[tuple[float, str]] = []  # mean loss in nats, and instruction; best first
        # The instruction whose place each child of the last ask may take, for `de`.
        self._targets: list[str] | None = None
        self._instructions = Instructions(
            objective, seed=seed, longest=longest, temperature=temperature, retries=retries
        )
        self._instructions.know(prompts)

    @classmethod
    def asks_proposer(cls, options: Mapping[str, Any]) -> bool:
        """Always: it has its instructions written."""
        return True

    def ask(self) -> Sequence[Prompt]:
        """The given instructions, proposed ones beside them, then children."""
        self._targets = None
        if self._waiting:
            asked, self._waiting = self._waiting, []
            return [TextPrompt(text) for text in asked]
        if self._begun < self._size or not self.living:
            missing = max(1, self._size - self._begun)
            written = self._propose(lambda: [self._from_examples() for _ in range(missing)])
        elif self._algorithm == "ga":
            written = self._propose(self._crossings)
        else:
            targets = [text for _, text in self.living]
            written = self._propose(lambda: [self._difference(text) for text in targets])
            # What comes from other examples is no child of a target, and joins the population.
            self._targets = None if written.anew else [targets[place] for place in written.texts]
        return [TextPrompt(text) for text in written.texts.values()]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Let the better ones live."""
        values = [float(value) for value in evaluation.values]
        texts = [prompt.texts[0] for prompt in TextPrompt.among(prompts)]
        self._begun += len(prompts)
        if self._targets is None:
            self.living += [
                (value, text)
                for value, text in zip(values, texts, strict=True)
                if math.isfinite(value)
            ]
        else:
            places = {text: place for place, (_, text) in enumerate(self.living)}
            for value, text, target in zip(values, texts, self._targets, strict=True):
                if value < self.living[places[target]][0]:
                    self.living[places[target]] = (value, text)
        self.living = sorted(self.living)[: self._size]

    def _propose(self, requests: Callable[[], Sequence[str]]) -> Written:
        return self._instructions.propose(requests, self._from_examples)

    def _from_examples(self) -> str:
        objective = self.objective
        return FROM_EXAMPLES.format(
            solved(objective.examples(objective.minibatch(self._rng, self._examples)))
        )

    def _crossings(self) -> list[str]:
        """A request for each pair of parents, the better one last."""
        found = []
        shares = rank_shares(len(self.living))
        for _ in range(self._size):
            count = min(2, len(self.living))
            first, *second = sorted(
                self._rng.choice(len(self.living), size=count, replace=False, p=shares),
                reverse=True,
            )
            found.append(
                CROSSING.format(
                    self.living[first][1], self.living[second[0] if second else first][1]
                )
            )
        return found

    def _difference(self, target: str) -> str:
        texts = [text for _, text in self.living]
        others = [text for text in texts if text != target] or texts
        # Section 3.3: two different ones, where there are two.
        drawn = self._rng.choice(len(others), size=2, replace=len(others) < 2)
        first, second = (others[i] for i in drawn)
        return _DIFFER.format(first, second, target, texts[0])


def rank_shares(count: int) -> NDArray[np.float64]:
    """How often each instruction becomes a parent; only their order matters.

    Args:
        count: The number of instructions, which are ordered with the best one first.

    Returns:
        The shares, which sum to 1, shape `(count,)`.
    """
    ranks = np.arange(count, 0, -1, dtype=np.float64)
    shares: NDArray[np.float64] = ranks / ranks.sum()
    return shares
