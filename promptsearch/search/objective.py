"""The objective: what a strategy meets.

It scores prompts on the search split, and charges the run for it. It holds no split, file or
ledger: all of these belong to the books of its run, and no attribute or closure of an objective
leads to them. What it hands out is a copy, or cannot be changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from promptsearch.models.weights import ModelWeights
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.kinds import own_copy
from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.ledger import Statement
from promptsearch.records.scores import Evaluation, ExampleIds, Floats
from promptsearch.scoring.protocol import inside
from promptsearch.search.answering import Answer, read_answers
from promptsearch.search.books import FREE_PROPOSALS, Books, books_of, open_books
from promptsearch.search.content_free import read_content_free
from promptsearch.search.lessons import Lessons
from promptsearch.search.ranking import FINALISTS, SELECTED, Ranked
from promptsearch.search.views import (
    Asking,
    Diary,
    OtherTask,
    WeightCopies,
    charged_loss,
    minibatch_of,
    read_only,
)
from promptsearch.tasks.task import Example

__all__ = ["FINALISTS", "FREE_PROPOSALS", "SELECTED", "Objective", "Ranked", "books_of"]


class Objective:
    """Scores prompts on the search split within a budget.

    It takes what `promptsearch.search.books.Books` takes, and is a strategy's only way to the LM.
    """

    __slots__ = ("__weakref__", "_embeddings", "_space", "start")

    #: The winner of the run that `start` names in the study file; None where it names none.
    start: Prompt | None

    def __init__(self, *given: Any, **named: Any) -> None:
        books = open_books(self, Books(*given, **named))
        self._space = books.space.shown(self._decode, lambda: self.embeddings)
        self._embeddings: Tensor | None = None
        self.start = None if books.start is None else own_copy(books.start)

    # Scoring, which is charged.

    def evaluate(self, prompts: Sequence[Prompt], examples: ArrayLike | None = None) -> Evaluation:
        """Score prompts and charge for them.

        A prompt is free where this run has asked for it on these examples before, named in the same
        way: the ids of `score_on` in full are asked for, and paid, apart from None.

        Args:
            prompts: The prompts, at least one.
            examples: Ids of search examples to score on, shape `(examples,)`; None for all of
                `score_on`. Only prompts scored on all of `score_on` can win.

        Returns:
            The scores, in the order of the prompts. One that is too dear beside shorter ones fails.

        Raises:
            StrategyError: A prompt is not in the space, or there is none.
            BudgetExhausted: Not all are paid, nor can shorter ones be. Those paid are in the books.
        """
        return books_of(self).evaluate(prompts, examples)

    def loss(self, numbers: Numbers, examples: ArrayLike, visit: int | None = None) -> Tensor:
        """The mean loss of a trained prompt on a minibatch, differentiable.

        It charges the forward and the backward pass. Of an example with several right answers, one
        is drawn each time, and paid.

        Args:
            numbers: The prompt's numbers, to which gradients flow back: rows of a soft prompt,
                shape `(length, width)`, or of a prefix, shape `(length, *prefix_shape)`; vectors
                and gates of a gated prompt, see `GatedPrompt`; or changed weights by name, with or
                without vectors, see `TunedPrompt`.
            examples: Ids of search examples, shape `(batch,)`.
            visit: The number by which right answers are drawn: the same number draws the same ones.
                None: what the run has spent so far, so that other ones are drawn each time.

        Returns:
            The mean over the examples in nats, shape `()`.

        Raises:
            BudgetExhausted: The two passes cost more than is left.
            StrategyError: The strategy's `access` is scores only, or nothing but scores comes from
                the model.
        """
        return charged_loss(books_of(self), None, numbers, examples, visit)

    def token_gradient(self, prompt: HardPrompt, examples: ArrayLike) -> Tensor:
        """How the mean loss changes with the token at each position, to first order.

        This is the gradient with respect to one-hot vectors that pick the tokens' embeddings: at
        each position, a token with a lower number than the present one promises a lower loss. It
        covers the tokens of the pool, which may be proposed, and is charged as `loss` is.

        Args:
            prompt: A prompt of the space.
            examples: Ids of search examples, shape `(batch,)`.

        Returns:
            The gradient in nats, shape `(length, pool)`, in the order of `space.pool`; float32 on
            the CPU.

        Raises:
            BudgetExhausted: The forward and the backward pass cost more than is left.
            StrategyError: As in `loss`.
        """
        books = books_of(self)
        books.space.check(prompt := HardPrompt(prompt.ids))
        embeddings = books.inside("gradients").embeddings
        # Shape `(length, width)`.
        rows = embeddings[torch.tensor(prompt.ids)].detach().float().cpu().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(rows, examples), rows)
        # These are as the layers take them: scaled, where a model scales its embeddings.
        pool = embeddings[torch.from_numpy(books.space.pool.copy())].detach().float().cpu()
        return gradient @ pool.T

    def content_free(self, prompt: Prompt, text: str) -> Floats | None:
        """How probable each choice is where an input says nothing, see `read_content_free`."""
        return read_content_free(books_of(self), prompt, text)

    def word_logits(self, prompt: Prompt, examples: ArrayLike) -> tuple[tuple[str, ...], Tensor]:
        """What the LM predicts in the place of the answer; charged as the prompt's losses are.

        Args:
            prompt: A text prompt, or a prompt of the space.
            examples: Ids of search examples, shape `(examples,)`.

        Returns:
            The answers of one token, and their logits, shape `(examples, answers)`.
        """
        books, prompt, ids = books_of(self), own_copy(prompt), np.array(examples, dtype=np.int64)
        prompt.check(books.space, white_box := books.inside("logits"))
        books.prices.charge_look(prompt, ids)
        return white_box.word_logits(prompt, ids)

    def answers(self, prompts: Sequence[Prompt], examples: ArrayLike) -> list[list[Answer]]:
        """What the LM answers with prompts, and what the metric says of it, see `read_answers`."""
        return read_answers(books_of(self), prompts, examples)

    def keys_values(self, ids: Sequence[int]) -> Tensor:
        """Keys and values of a text, shape `(tokens, *prefix_shape)`; charges its tokens.

        Args:
            ids: Token ids of the text, which stands at the very start of a row, shape `(tokens,)`.
        """
        books, ids = books_of(self), [int(i) for i in ids]
        white_box = books.inside("keys and values")
        books.prices.charge_text(len(ids), books.space.length)
        return white_box.keys_values(ids).clone()

    def states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The LM's last hidden state at the end of each row, float32, shape `(rows, width)`.

        Args:
            rows: Token ids, maybe none; they are charged, and a special token before each row.
        """
        books, known = books_of(self), [[int(i) for i in row] for row in rows]
        white_box = books.inside("states")
        books.prices.charge_text(sum(len(row) + 1 for row in known), books.space.length)
        return white_box.states(known)

    @property
    def proposer(self) -> Asking:
        """A language model that writes what a strategy asks of it; the run pays for the tokens."""
        return Asking(self)

    @property
    def teaching(self) -> Lessons:
        """What the LM predicts under a prompt of words, for a trained one to learn."""
        return Lessons(self)

    @property
    def others(self) -> dict[str, OtherTask]:
        """The tasks of the study, by name, that `Strategy.trains_on` names besides the run's."""
        return {name: OtherTask(self, name) for name in books_of(self).others}

    # Prices.

    def price(self, prompts: Sequence[Prompt], examples: ArrayLike | None = None) -> int:
        """What `evaluate` would charge for new prompts, in tokens.

        Args:
            prompts: Any number of prompts.
            examples: Ids of search examples, shape `(examples,)`; None for all of `score_on`.
        """
        books = books_of(self)
        ids = books.scored if examples is None else np.array(examples, dtype=np.int64)
        return books.prices.of(prompts, ids)

    def training_price(self, prompt: Prompt) -> float:
        """What `loss` on all training examples costs forward, on average, without their leads.

        Args:
            prompt: The trained prompt.
        """
        books = books_of(self)
        return books.prices.training(prompt, books.training, books.inside("gradients"))

    def backward(self, numbers: Numbers) -> float:
        """What `loss` charges for its backward pass, in tokens for each token of its forward pass.

        Args:
            numbers: The prompt's numbers, as `loss` takes them.
        """
        books = books_of(self)
        return books.prices.backward(numbers, books.inside("gradients"))

    def length(self, prompt: Prompt) -> int:
        """The length of a prompt in tokens."""
        return books_of(self).scorer.length(prompt)

    def affordable(self, length: int) -> int:
        """How many more prompts of `length` tokens this run can score on all of `score_on`."""
        return books_of(self).prices.affordable(length)

    def left(self, length: int, prompts: int) -> float:
        """The tokens that may be spent when the price of selection is set aside.

        Args:
            length: The length in tokens of the prompts that are still to come.
            prompts: The number of prompts to select among, with those that are ranked by now.
        """
        return books_of(self).prices.left(length, prompts)

    @property
    def ledger(self) -> Statement:
        """What was spent so far, and what is left: the ledger as it stands now."""
        return books_of(self).ledger.statement()

    # What may be looked at.

    @property
    def space(self) -> PromptSpace:
        """The pool and the length of hard prompts."""
        return self._space

    @property
    def scored(self) -> ExampleIds:
        """Ids of the examples that `evaluate` scores on, shape `(score_on,)`; read-only."""
        return read_only(books_of(self).scored)

    @property
    def training(self) -> ExampleIds:
        """Ids of the other search examples, for minibatches, exemplars and word statistics."""
        return read_only(books_of(self).training)

    def minibatch(self, rng: np.random.Generator, size: int) -> ExampleIds:
        """Ids of examples that `evaluate` does not score on, shape `(size,)`.

        Args:
            rng: The generator that draws them.
            size: The number of examples; they are drawn without replacement where there are enough.
        """
        return minibatch_of(self.training, rng, size)

    def examples(self, ids: ArrayLike) -> list[Example]:
        """Search examples by id."""
        found = books_of(self).scorer.examples(np.array(ids, dtype=np.int64))
        return [replace(example, fields=dict(example.fields)) for example in found]

    def demonstrations(self, ids: ArrayLike, answers: Sequence[str] | None = None) -> list[str]:
        """Search examples as solved texts: the template without a prompt, and an answer.

        Args:
            ids: Ids of search examples, shape `(examples,)`.
            answers: The answer of each, as `Example.answer` gives it; None: the right ones.
        """
        return books_of(self).scorer.demonstrations(np.array(ids, dtype=np.int64), answers)

    def encode(self, text: str | TextPrompt) -> list[int]:
        """The token ids of a text, or of what a text prompt puts into the slots, one by one."""
        texts = [text] if isinstance(text, str) else self._space.slot_texts(text)
        return [i for each in texts for i in books_of(self).scorer.encode(each)]

    @property
    def embeddings(self) -> Tensor:
        """The LM's input embeddings, shape `(vocabulary, width)`: a copy, made on first use."""
        if self._embeddings is None:
            books = books_of(self)
            # Where nothing but scores comes out, the space may still know the words of the pool.
            known = books.scorer.white_box or books.space
            self._embeddings = known.embeddings.detach().clone()
        return self._embeddings

    @property
    def prefix_shape(self) -> tuple[int, ...]:
        """The shape of a prefix's token: `(layers, 2, key heads, head size)`, keys, then values."""
        return inside(books_of(self).scorer, "keys and values").prefix_shape

    @property
    def prefix_layers(self) -> tuple[int, ...]:
        """The numbers of layers that a prefix may have, all of them first."""
        return inside(books_of(self).scorer, "keys and values").prefix_layers

    @property
    def gated_shape(self) -> tuple[int, int, int]:
        """The most that gated prompts can have: `(layers, heads, width)`."""
        return inside(books_of(self).scorer, "layers").gated_shape

    @property
    def weights(self) -> ModelWeights:
        """The LM's weights in float32, each copied when asked for, and what they belong to."""
        known = books_of(self).inside("weights").weights
        tensors, maps = WeightCopies(self, tuple(known.tensors)), MappingProxyType(dict(known.maps))
        return replace(known, tensors=tensors, maps=maps)

    @property
    def ranking(self) -> Sequence[Ranked]:
        """The best few prompts scored on all of `score_on`, best first."""
        known = [item for item in books_of(self).ranking if item.prompt is not None]
        return tuple(replace(item, prompt=own_copy(item.prompt)) for item in known)

    def finalists(self) -> list[Ranked]:
        """The ranking at the end of the search."""
        return [replace(item, prompt=own_copy(item.prompt)) for item in books_of(self).ranking]

    @property
    def log(self) -> Diary:
        """What this run has scored, to be read."""
        return Diary(self)

    def _decode(self, ids: Sequence[int], *, begins: bool = False) -> str:
        return books_of(self).space.text(ids, begins=begins)
