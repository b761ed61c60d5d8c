"""What stands in for a prompt that teaches while a run is rehearsed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.scores import ExampleIds


class StandInTeaching:
    """Predicts nothing, and takes the time of it.

    Args:
        price: Gives the real price of predictions.
        take: Adds the time of so many tokens.
        loss: Stands in for a step of training.
    """

    def __init__(
        self,
        price: Callable[[TextPrompt, ExampleIds], int],
        take: Callable[[int], None],
        loss: Callable[[Numbers, ExampleIds], Tensor],
    ) -> None:
        self.price, self._take, self._loss = price, take, loss

    def predictions(self, teacher: TextPrompt, examples: ExampleIds) -> list[Tensor]:
        """No numbers."""
        self._take(self.price(teacher, examples))
        return [torch.zeros(0)] * len(examples)

    def divergence(
        self, numbers: Numbers, examples: ExampleIds, predictions: Sequence[Tensor]
    ) -> Tensor:
        """The same as a loss."""
        return self._loss(numbers, examples)
