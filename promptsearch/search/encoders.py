"""What encoders of several trained strategies have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class NamedTensors(nn.Module):
    """An encoder of changed or added weights, which returns its parameters as they are.

    The parameters have the names that the weights have in the LM.

    Args:
        start: The tensors that the parameters start from, by name; they are copied in float32.
    """

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = list(start)
        self.tensors = nn.ParameterList(
            [nn.Parameter(tensor.detach().float().clone()) for tensor in start.values()]
        )

    def forward(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return dict(zip(self._names, self.tensors, strict=True))


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """A context in which layers of torch are initialised from a generator.

    Layers use the global generator, which is seeded from the given one and is as before afterwards.

    Args:
        generator: The generator that seeds the global one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        yield
