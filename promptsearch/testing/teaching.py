"""What a prompt teaches another on a planted landscape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.scores import ExampleIds, Floats
from promptsearch.scoring.protocol import Scorer, price_of
from promptsearch.testing.landscape import Landscape, planted_vectors


class Planted(Scorer, Protocol):
    """A scorer whose losses are `offset + scale * landscape` on each example."""

    offsets: Floats
    scales: Floats
    landscape: Landscape


class PlantedTeaching:
    """Prompts teach by the probability of the right answer of two, which their loss says.

    Args:
        scorer: The planted scorer.
    """

    def __init__(self, scorer: Planted) -> None:
        self._scorer = scorer

    def price(self, teacher: TextPrompt, examples: ExampleIds) -> int:
        """What scoring the prompt on these examples costs, without their leads."""
        return price_of(self._scorer, self._scorer.length(teacher), examples)

    def predictions(self, teacher: TextPrompt, examples: ExampleIds) -> list[Tensor]:
        """The log-probabilities of the right and the wrong answer, shape `(2,)` each."""
        losses = torch.from_numpy(self._scorer.score([teacher], examples).losses[0])
        return list(_answers(losses))

    def divergence(
        self, numbers: Numbers, examples: ExampleIds, predictions: Sequence[Tensor]
    ) -> Tensor:
        """The mean of KL(predictions || numbers) over the examples, in nats, shape `()`."""
        scorer = self._scorer
        vectors = planted_vectors(numbers, *scorer.landscape.planted.shape)
        offsets, scales = (
            torch.from_numpy(each[examples]) for each in (scorer.offsets, scorer.scales)
        )
        found = _answers(offsets + scales * scorer.landscape(vectors.double()[None])[0])
        taught = torch.stack(list(predictions))
        return (taught.exp() * (taught - found)).sum(-1).mean().to(vectors.dtype)

    def own_price(self, length: int) -> int:
        """The prompt's own tokens."""
        return length

    def own_losses(self, numbers: Numbers, targets: Mapping[int, int]) -> Tensor:
        """The height of the prompt for each token: the planted prompt expects itself."""
        landscape = self._scorer.landscape
        vectors = planted_vectors(numbers, *landscape.planted.shape)
        return landscape(vectors.double()[None]).to(vectors.dtype).expand(len(targets))


def _answers(losses: Tensor) -> Tensor:
    """The log-probabilities of the right and the wrong answer, float64, shape `(examples, 2)`."""
    return torch.stack([-losses, torch.log(-torch.expm1(-losses))], -1)
