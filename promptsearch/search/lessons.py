"""How a strategy trains a prompt to do what another one does, and what it pays for that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from promptsearch.errors import StrategyError
from promptsearch.prompts.kinds import own_copy
from promptsearch.prompts.numbers import Numbers, length_of
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring.protocol import Teaching
from promptsearch.search.books import Books, books_of

#: The visit by which a step is charged: right answers are drawn once and for all.
_VISIT = 0


class Lessons:
    """What one prompt teaches another, as a strategy reaches it: `objective.teaching`.

    Args:
        objective: The objective of the run that pays.
    """

    __slots__ = ("_objective",)

    def __init__(self, objective: Any) -> None:
        self._objective = objective

    def price(self, teacher: TextPrompt, examples: ArrayLike) -> int:
        """The tokens that `predictions` charges, without the lead of examples that are new.

        Args:
            teacher: The prompt that teaches.
            examples: Ids of search examples, shape `(examples,)`.

        Raises:
            StrategyError: The model cannot read an example with this prompt, or the strategy's
                `access` is scores only.
        """
        books, teaching = self._inside()
        return teaching.price(teacher, books.ids(examples))

    def predictions(self, teacher: TextPrompt, examples: ArrayLike) -> list[Tensor]:
        """What the LM predicts under a prompt, charged as the prompt's losses are.

        A run that goes on does not know them any more: they belong into the strategy's state.

        Args:
            teacher: The prompt, in the slots of the template.
            examples: Ids of search examples, each once, shape `(examples,)`.

        Returns:
            A tensor for each example: log-probabilities over its choices, shape `(choices,)`; or
            the last hidden states behind its text answer, shape `(tokens, width)`.

        Raises:
            BudgetExhausted: They cost more than is left.
            StrategyError: As in `price`.
        """
        books, teaching = self._inside()
        books.check_untouched()
        if not isinstance(prompt := own_copy(teacher), TextPrompt):
            raise StrategyError(f"a text prompt teaches, got {prompt.noun}")
        ids, prices = books.ids(examples), books.prices
        price = teaching.price(prompt, ids) + prices.of([], ids)
        books.ledger.charge(forward=price, reserve=prices.set_aside(books.space.length))
        books.ledger.computed += price  # the same in a run that goes on, whatever is kept
        prices.met(ids)
        return teaching.predictions(prompt, ids)

    def divergence(
        self, numbers: Numbers, examples: ArrayLike, predictions: Sequence[Tensor]
    ) -> Tensor:
        """How far a trained prompt is from predictions; differentiable, and charged as a loss is.

        Args:
            numbers: The prompt's numbers, as `Objective.loss` takes them.
            examples: Ids of search examples, shape `(batch,)`.
            predictions: What `predictions` returned for each of them.

        Returns:
            The mean over the examples of KL(predictions || prompt) in nats, shape `()`.

        Raises:
            BudgetExhausted: The two passes cost more than is left.
            StrategyError: As in `price`.
        """
        books, teaching = self._inside()
        ids = books.ids(examples)
        books.prices.charge_step(numbers, ids, books.inside("gradients"), _VISIT)
        return teaching.divergence(numbers, ids, predictions)

    def own_price(self, length: int) -> int:
        """The tokens that `own_losses` charges for its forward pass.

        Args:
            length: The prompt's length in tokens.

        Raises:
            StrategyError: As in `own_losses`.
        """
        _, teaching = self._inside()
        return teaching.own_price(length)

    def own_losses(self, numbers: Numbers, targets: Mapping[int, int]) -> Tensor:
        """How well the LM predicts some of a trained prompt's own tokens from those before them.

        It is differentiable, and charges a forward and a backward pass of the prompt by itself.

        Args:
            numbers: The vectors of a soft prompt, shape `(length, width)`.
            targets: Place in the prompt, from 1 on -> the id of the token that is predicted there.

        Returns:
            The losses over the whole vocabulary in nats, shape `(targets,)`.

        Raises:
            BudgetExhausted: The two passes cost more than is left.
            StrategyError: The model also sees what stands behind a token, text of an example stands
                before the prompt or within it, or the strategy's `access` is scores only.
        """
        books, teaching = self._inside()
        length, rows = length_of(numbers), len(books.inside("predictions").embeddings)
        for place, token in targets.items():
            if not (0 < place < length and 0 <= token < rows):
                raise StrategyError(
                    f"expected places from 1 to {length - 1} in the prompt and ids below {rows} "
                    f"there, got the id {token} at {place}"
                )
        tokens = teaching.own_price(length)
        backward = math.ceil(tokens * books.inside("gradients").passes(numbers)[1])
        reserve = books.prices.set_aside(length)
        books.ledger.charge(forward=tokens, backward=backward, reserve=reserve)
        books.ledger.computed += tokens + backward
        return teaching.own_losses(numbers, targets)

    def _inside(self) -> tuple[Books, Teaching]:
        books = books_of(self._objective)
        return books, books.inside("predictions").teaching
