"""What stands in for a prompt that teaches while a run is rehearsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from promptsearch.prompts.numbers import Numbers, length_of
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.protocol import Teaching


class StandInTeaching:
    """Predicts nothing, and takes the time of it.

    Args:
        known: What it stands for, which knows the prices.
        take: Adds the time of so many tokens.
        loss: Stands in for a step of training.
    """

    def __init__(
        self,
        known: Teaching,
        take: Callable[[int], None],
        loss: Callable[[Numbers, ExampleIds], Tensor],
    ) -> None:
        self.price, self.own_price = known.price, known.own_price
        self._take, self._loss = take, loss

    def predictions(self, teacher: TextPrompt, examples: ExampleIds) -> list[Tensor]:
        """No numbers."""
        self._take(self.price(teacher, examples))
        return [torch.zeros(0)] * len(examples)

    def divergence(
        self, numbers: Numbers, examples: ExampleIds, predictions: Sequence[Tensor]
    ) -> Tensor:
        """The same as a loss."""
        return self._loss(numbers, examples)

    def own_losses(self, numbers: Numbers, targets: Mapping[int, int]) -> Tensor:
        """None, after the time of reading the prompt and of the gradient."""
        self._take(2 * self.own_price(length_of(numbers)))
        return torch.zeros(len(targets))
