"""Prompt tuning: the prompt's vectors are the parameters.

Lester, Al-Rfou and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning",
arXiv:2104.08691. Section 2.1 compares three starts: random numbers, words drawn from the 5,000 most
frequent ones, and the class labels, each averaged over its tokens, with further vectors drawn as
before.

Differs from the paper: AdamW with warm-up and linear decay, since a run here has some hundred steps
instead of 30,000; the paper's Adafactor at a constant rate is an option, at a lower rate by
default, for a rate of 0.3 belongs to the wide embeddings of T5. Words are drawn from the pool, and
vectors may stand in any slot of the template. There are more starts: all words of the pool, a text,
and the winner of another run, be it hard, text or soft.

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from promptsearch import HardPrompt, Objective, Prompt, SoftPrompt, TextPrompt, TrainedStrategy
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.encoders import Free
from promptsearch.search.strategy import TWO_STARTS
from promptsearch.search.training_options import Rate

#: How many of the most frequent words a start is drawn from (section 3.2).
FREQUENT = 5_000


class PromptTuning(TrainedStrategy):
    """Train the vectors of a soft prompt directly.

    With `start: {run: LABEL}` they start from that run's winner: from its vectors, or from the
    tokens of its words; a text's tokens are repeated to the length of their slot.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation and minibatches.
        init: Where the vectors start: `words` of the pool, drawn at random; its most `frequent`
            words; `labels`, the answers of the task, one a vector, then frequent words; or `random`
            numbers of the embeddings' scale.
        text: A text whose tokens the vectors start from, repeated to the prompt's length, such as a
            hard prompt that was found; overrides `init`, as `start` does.
        optimizer: `adamw`, whose rate rises and falls, or `adafactor` at a constant rate.
        rate: Peak learning rate; left out: 0.03; `auto` tries rates in a short test, which the
            budget pays.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    starts_from: ClassVar[frozenset[type]] = frozenset({HardPrompt, SoftPrompt, TextPrompt})
    paper: Paper | None = Paper(30_000, "steps", "of 32 examples each (section 3)")

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        init: Literal["words", "frequent", "labels", "random"] = "words",
        text: str | None = None,
        optimizer: Literal["adamw", "adafactor"] = "adamw",
        rate: Rate = 0.03,
        **training: Any,
    ) -> None:
        if text is not None and objective.start is not None:
            raise StrategyError(TWO_STARTS.format("text"))
        self._init, self._text = init, text
        super().__init__(objective, seed=seed, rate=rate, optimizer=optimizer, **training)

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The vectors, as they start."""
        embeddings, length, start = (
            self.objective.embeddings,
            self.objective.space.length,
            self.objective.start,
        )
        if start is not None:
            return Free(self._winner(start))
        # The three starts of section 2.1: random numbers, frequent words, labels.
        if self._text is None and self._init == "random":
            scale = float(embeddings.float().std())
            return Free(scale * torch.randn(length, embeddings.shape[1], generator=generator))
        among = None if self._init == "words" else FREQUENT
        vectors = embeddings[torch.tensor(self.words(self._text, generator, among))].float().cpu()
        if self._text is None and self._init == "labels":
            labels = self._labels()[:length]
            vectors[: len(labels)] = torch.stack(labels)
        return Free(vectors)

    def _winner(self, start: Prompt) -> Tensor:
        """The vectors of another run's winner, shape `(length, width)`."""
        if (vectors := start.parts.vectors) is not None:
            return vectors
        if isinstance(start, HardPrompt):
            ids = list(start.ids)
        else:
            (start,) = TextPrompt.among([start])
            ids = self.tokens_of(start)
        return self.objective.embeddings[torch.tensor(ids)].float().cpu()

    def _labels(self) -> list[Tensor]:
        """The mean over the tokens of each answer of the task, the most frequent answer first.

        Each is a vector of shape `(width,)`.
        """
        answers = Counter(
            example.answer for example in self.objective.examples(self.objective.training)
        )
        ids = [self.objective.encode(answer) for answer, _ in answers.most_common()]
        return [
            self.objective.embeddings[torch.tensor(tokens)].float().cpu().mean(0) for tokens in ids
        ]
