"""A tiny model of each family, and a task on it whose right answers a planted prompt decides.

The right answer to an example is the one that the planted prompt makes more probable, beside what
other prompts do. So the landscape is a real model's, and it is known that a good prompt is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptsearch.models import LanguageModel
from promptsearch.models.family import CAUSAL, ENCODER_DECODER, MASKED
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.scoring.engine import Engine
from promptsearch.scoring.protocol import price_of
from promptsearch.search.objective import FINALISTS, Objective
from promptsearch.tasks.placement import Kind
from promptsearch.tasks.splits import Split
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_masked import tiny_masked
from promptsearch.testing.tiny_seq2seq import tiny_seq2seq
from promptsearch.testing.tiny_task import tiny_task

#: The name of each family of models -> a tiny one with its tokenizer.
FAMILIES: Mapping[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerFast]]] = {
    CAUSAL.name: partial(tiny_model, "llama", layers=1, width=16),
    MASKED.name: partial(tiny_masked, "bert", layers=1, width=16),
    ENCODER_DECODER.name: partial(tiny_seq2seq, "bart", layers=1, width=16),
}
#: Prompts beside which the planted one is seen.
_OTHERS = 8
#: A template that every family takes.
TEMPLATE = "{prompt} {text} It was {answer}"


class PlantedAnswers:
    """A task on a model whose right answers a planted prompt decides, see `Searched`.

    Args:
        lm: The model.
        seed: Draws pool and planted prompt.
        pool: Tokens in the pool, at most.
        length: Tokens in a prompt.
        kind: The kind of prompts that are searched.

    Attributes:
        engine: Scores prompts on the task.
        planted: The planted prompt.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        seed: int = 0,
        pool: int = 100,
        length: int = 4,
        kind: Kind = "slots",
    ) -> None:
        rng = np.random.default_rng([seed, 1])  # not the stream of a strategy with the same seed
        drawn = rng.choice(lm.words, size=min(pool, len(lm.words)), replace=False)
        self.space = PromptSpace(drawn, length, lm.decode, embeddings=lambda: lm.vocabulary)
        self.planted, *others = self.space.sample(rng, 1 + _OTHERS)
        task = tiny_task(TEMPLATE)
        bound = task.template.bind(length)
        split, choices = task.splits["search"], task.choices
        assert choices is not None
        self._all = np.arange(len(split))
        told = Engine(lm, bound, split, choices).score([self.planted, *others], self._all).choices
        assert told is not None  # (prompts, examples, 2), nats
        margins = told[..., 1] - told[..., 0]
        labels = (margins[0] > margins[1:].mean(0)).astype(int).tolist()
        examples = tuple(
            replace(example, choice=label, answer=choices[label])
            for example, label in zip(split.examples, labels, strict=True)
        )
        planted = Split(split.name, examples)
        self.engine = Engine(lm, bound.taking(kind), planted, choices)
        self.embeddings: Tensor = self.engine.embeddings
        self._scored, self._training = np.split(self._all, 2)

    def objective(
        self,
        budget: int | None = None,
        *,
        log: RunLog | None = None,
        reserve: Callable[[Sequence[int]], int] = lambda lengths: 0,
        finalists: int = FINALISTS,
        white_box: bool = True,
    ) -> Objective:
        """A fresh objective, see `Searched`."""
        return Objective(
            self.engine,
            self.space,
            Ledger(budget),
            scored=self._scored,
            training=self._training,
            log=log,
            reserve=reserve,
            finalists=finalists,
            white_box=white_box,
        )

    def budget(self, evaluations: int) -> int:
        """The budget that buys this many evaluations of hard prompts on all of `score_on`."""
        each = price_of(self.engine, self.space.length, self._scored)
        return int(self.engine.lead(self._scored).sum()) + evaluations * each
