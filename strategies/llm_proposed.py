"""Instructions that a language model proposes: APE and OPRO.

`ape`: Zhou et al. 2022, "Large Language Models Are Human-Level Prompt Engineers", arXiv:2211.01910,
section 3: a model infers instructions from solved examples (3.1), the best are kept (3.2), and
resampled as variations of themselves (3.3).

`opro`: Yang et al. 2023, "Large Language Models as Optimizers", arXiv:2309.03409, section 4: a
model sees the best instructions so far with their scores, the worst first, beside some solved
examples, and writes better ones.

Differs from both: all instructions are scored on the same examples, with the loss; no solved
example that a proposer sees is among these; `ape` mixes inference and resampling from its second
step on, instead of doing one after the other. A score that OPRO shows is the probability of the
right answer in percent, as the geometric mean over the examples; or the metric that is followed.

Beats random on the planted objectives `separable` and `pairwise`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from promptsearch import Evaluation, Objective, Prompt, Strategy, TextPrompt
from promptsearch.records.run import Paper
from promptsearch.search.instructions import FROM_EXAMPLES, VARIATION, Instructions, solved
from promptsearch.search.options import Count, Share
from promptsearch.search.unscored import check_unscored

#: The request to OPRO's model: to go on below solved examples and scored instructions, the best of
#: which stands last.
_BETTER = "{}\n{}\n\nInstruction:"


class LLMProposed(Strategy):
    """Let a language model propose instructions.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the examples that the proposer sees, and what it writes.
        method: `ape` infers instructions from examples and varies the best ones; `opro` shows the
            best ones with their scores.
        prompts: Instructions to begin with, which are scored first.
        batch: Instructions in each ask.
        examples: Solved examples in a request.
        keep: The best instructions that are shown (`opro`) or varied (`ape`).
        fresh: Share of APE's requests that go back to the examples.
        temperature: The sampling temperature of the proposer.
        longest: The most tokens of an instruction.
        retries: Further tries after one that gave nothing usable, each from other examples and a
            little more freely drawn, before the run ends.

    Raises:
        StrategyError: A number is out of range, or there are fewer than `examples` examples that
            are not scored on.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    paper: Paper | None = Paper(90, "prompts", "3 times 30, in its authors' code")

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        method: Literal["ape", "opro"] = "ape",
        prompts: list[str] = [],  # noqa: B006 - read only
        batch: Count = 8,
        examples: Count = 3,
        keep: Count = 4,
        fresh: Share = 0.1,
        temperature: Annotated[float, Field(ge=0)] = 0.7,
        longest: Annotated[Count, Field(ge=2)] = 40,
        retries: Annotated[int, Field(ge=0, le=1_000)] = 20,
    ) -> None:
        super().__init__(objective, seed=seed)
        check_unscored(objective, examples, "examples")
        prompts = self.first_texts(prompts)
        if method == "opro":
            self.paper = Paper(1_600, "prompts", "200 steps of 8, in its authors' code")
        self._rng = np.random.default_rng(seed)
        self._method, self._batch, self._examples, self._keep, self._fresh = (
            method,
            batch,
            examples,
            keep,
            fresh,
        )
        self._waiting = list(dict.fromkeys(prompts))
        # Instruction -> mean loss in nats, for those that could be scored.
        self._values: dict[str, float] = {}
        self._instructions = Instructions(
            objective, seed=seed, longest=longest, temperature=temperature, retries=retries
        )
        self._instructions.know(prompts)

    @classmethod
    def asks_proposer(cls, options: Mapping[str, Any]) -> bool:
        """Always: it has its instructions written."""
        return True

    def ask(self) -> Sequence[Prompt]:
        """The given instructions, then new ones."""
        if self._waiting:
            asked, self._waiting = self._waiting, []
            return [TextPrompt(text) for text in asked]
        written = self._instructions.propose(self._requests, self._from_examples)
        return [TextPrompt(text) for text in written.texts.values()]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Remember what could be scored."""
        for prompt, value in zip(TextPrompt.among(prompts), evaluation.values, strict=True):
            if math.isfinite(value):
                self._values[prompt.texts[0]] = float(value)

    def _requests(self) -> list[str]:
        best = sorted(self._values, key=self._values.__getitem__)[: self._keep]  # APE, section 3.2
        if not best:
            return [self._from_examples() for _ in range(self._batch)]
        if self._method == "opro":  # section 4: scored instructions, the worst first
            told = scores([self._values[text] for text in best])
            shown = "\n\n".join(
                f"Instruction: {text}\nScore: {score}"
                for text, score in reversed(list(zip(best, told, strict=True)))
            )
            return [_BETTER.format(self._demonstrations(), shown) for _ in range(self._batch)]
        # APE: inference (section 3.1) for a share of the requests, else resampling (section 3.3).
        return [
            self._from_examples()
            if self._rng.random() < self._fresh
            else VARIATION.format(best[self._rng.integers(len(best))])
            for _ in range(self._batch)
        ]

    def _from_examples(self) -> str:
        return FROM_EXAMPLES.format(self._demonstrations())

    def _demonstrations(self) -> str:
        objective = self.objective
        return solved(objective.examples(objective.minibatch(self._rng, self._examples)))


def scores(values: Sequence[float]) -> list[str]:
    """The scores of instructions in a request, higher is better.

    Losses in nats become the probability of the right answer in percent, as a geometric mean. That
    of long answers is 0: their losses stand between 0, the worst, and 100, the best. A metric
    stands in percent, or on its own scale where that goes beyond 1.

    Args:
        values: The mean losses in nats, or minus the metric that is followed: then one of them is
            below 0, or none above.
    """
    worst, best = max(values), min(values)
    if best < 0 or worst <= 0:
        unit = 100 if max(-best, worst) <= 1 else 1
        return [f"{-unit * value or 0:.3g}" for value in values]
    if best < worst and not round(100 * math.exp(-best)):
        return [str(round(100 * (worst - value) / (worst - best))) for value in values]
    return [str(round(100 * math.exp(-value))) for value in values]
