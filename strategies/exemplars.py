"""Exemplars: solved examples in the prompt, in-context learning, the baseline that needs no search.

Brown et al. 2020, "Language Models are Few-Shot Learners", arXiv:2005.14165: k examples with their
answers stand before the input. It matters which ones (Zhao et al. 2021, "Calibrate Before Use",
arXiv:2102.09690); so sets of examples may also be drawn until the budget is spent, and the one with
the lowest loss is kept.

Whether the labels matter is told by the same examples with labels drawn at random (Min et al. 2022,
"Rethinking the Role of Demonstrations", arXiv:2202.12837, section 4): where these do as well, the
prompt shows the form of inputs and answers, and teaches nothing about them. The set is chosen with
its right labels: of many draws of labels those would win that happen to be right.

Or each input is shown the examples that are most like it (Liu et al. 2022, "What Makes Good
In-Context Examples for GPT-3?", arXiv:2101.06804).

Differs from the papers: the examples fill the template's first slot or, where that stands behind
the input, one more slot before it; none of them is scored on. A random label is one of the row's
own choices where these differ by row, else one of all that occur among examples that are not scored
on, each as likely as any other; it may be the right one. What is most like an input is told by the
mean of the model's own input embeddings, not by an encoder of sentences, and the nearest example
stands last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from promptsearch import Ask, Evaluation, NearestPrompt, Objective, Prompt, Strategy, TextPrompt
from promptsearch.prompts.nearest import text_of_input
from promptsearch.records.scores import ExampleIds
from promptsearch.search.options import Count
from promptsearch.search.unscored import check_unscored
from promptsearch.tasks.task import Example


class Exemplars(Strategy):
    """Put solved examples into the prompt.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draws.
        shots: Examples in a prompt.
        choose: `loss` draws sets until the budget is spent, and the best one wins; `random` takes
            the first set.
        labels: `right`, or `random`: the set is chosen with its right labels, on half of the
            examples, and stands in the prompt with answers drawn at random, which may be right: of
            the row's own choices, or else of all examples that are not scored on.
        batch: Sets in each ask.
        separator: Stands behind each example.

    Raises:
        StrategyError: There are fewer than `shots` examples that are not scored on.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    searches: ClassVar[bool] = False
    control: ClassVar[bool] = True

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        shots: Count = 4,
        choose: Literal["loss", "random"] = "loss",
        labels: Literal["right", "random"] = "right",
        batch: Count = 4,
        separator: str = "\n",
    ) -> None:
        super().__init__(objective, seed=seed)
        check_unscored(objective, shots)
        self._rng, self._shots, self._separator = np.random.default_rng(seed), shots, separator
        # Labels have a generator of their own, so that the examples are those of right labels.
        self._luck = np.random.default_rng([seed, 1])
        self._swaps = labels == "random"
        self._once, self._batch, self._done = choose == "random", batch, False
        self._tried: dict[str, ExampleIds] = {}  # the sets scored with right labels, by prompt
        self._best: ExampleIds | None = None
        self._value = np.inf  # the loss of the best of these, nats
        known = objective.examples(objective.training)
        self._labels = sorted({example.answer for example in known})

    @classmethod
    def shows_examples(cls, options: Mapping[str, Any]) -> bool:
        """Whether its prompts are solved examples: they are."""
        return True

    def ask(self) -> Sequence[Prompt] | Ask:
        """Sets of examples, drawn from those that are not scored on."""
        if self._done:
            return []
        drawn = [self._draw() for _ in range(1 if self._once else self._batch)]
        prompts = [self._shown(ids) for ids in drawn]
        if not self._swaps:
            self._done = self._once
            return prompts
        half = self.objective.scored[: len(self.objective.scored) // 2]
        longest = max(map(self.objective.length, prompts))
        # One evaluation is kept for the set with drawn labels, which may be somewhat longer.
        count = min(self._batch, self.objective.affordable(longest * 5 // 4) - 1)
        if len(half) and not self._once and count > 0:
            self._tried = {prompts[i].key: drawn[i] for i in range(count)}
            return Ask(prompts[:count], half)
        self._done, ids = True, drawn[0] if self._best is None else self._best
        return [self._shown(ids, [self._label(e) for e in self.objective.examples(ids)])]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Keep the set that does best with its right labels."""
        for prompt, value in zip(prompts, evaluation.values.tolist(), strict=True):
            if prompt.key in self._tried and value < self._value:
                self._value, self._best = value, self._tried[prompt.key]

    def _draw(self) -> ExampleIds:
        """Ids of the examples of a set, shape `(shots,)`."""
        ids: ExampleIds = self._rng.choice(self.objective.training, self._shots, replace=False)
        return ids

    def _shown(self, ids: ExampleIds, answers: Sequence[str] | None = None) -> TextPrompt:
        shown = self.objective.demonstrations(ids, answers)
        return TextPrompt("".join(text + self._separator for text in shown))

    def _label(self, example: Example) -> str:
        """An answer at random, maybe the right one: of the row's own, else of all that occur."""
        answers = example.options or self._labels
        return answers[int(self._luck.integers(len(answers)))]


class ExemplarsNearest(Strategy):
    """Put before each input the solved examples that are most like it.

    Args:
        objective: Scores prompts on the search split.
        seed: Makes no difference.
        shots: Examples in a prompt.
        separator: Stands behind each example.

    Raises:
        StrategyError: There are fewer than `shots` examples that are not scored on.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({NearestPrompt})
    deterministic: ClassVar[bool] = True
    searches: ClassVar[bool] = False
    control: ClassVar[bool] = True

    def __init__(
        self, objective: Objective, *, seed: int, shots: Count = 4, separator: str = "\n"
    ) -> None:
        super().__init__(objective, seed=seed)
        check_unscored(objective, shots)
        ids = objective.training
        inputs = [text_of_input(example.fields) for example in objective.examples(ids)]
        store = tuple(zip(inputs, objective.demonstrations(ids), strict=True))
        self._waiting: list[Prompt] = [NearestPrompt(store, shots, separator)]

    @classmethod
    def shows_examples(cls, options: Mapping[str, Any]) -> bool:
        """Whether its prompts are solved examples: they are."""
        return True

    def ask(self) -> Sequence[Prompt]:
        """The one prompt, whose store holds all examples that are not scored on."""
        asked, self._waiting = self._waiting, []
        return asked
