"""What encoders of several trained strategies have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: The names that different models' layers give to the maps of queries, keys and values.
APART = (
    {"queries": "q_proj", "keys": "k_proj", "values": "v_proj"},
    {"queries": "query", "keys": "key", "values": "value"},
    {"queries": "q", "keys": "k", "values": "v"},
    {"queries": "q_lin", "keys": "k_lin", "values": "v_lin"},
    {"queries": "query_proj", "keys": "key_proj", "values": "value_proj"},
)
#: Those that they give to the one matrix that makes all three.
_FUSED = ("c_attn", "query_key_value", "qkv_proj", "Wqkv")


class Free(nn.Module):
    """An encoder of a prompt's own numbers, which are trained as they are.

    Args:
        start: Where they start, shape `(length, ...)`.
        frozen: The number of rows, from the first on, that stay so; the last row never does.
    """

    frozen: Tensor

    def __init__(self, start: Tensor, frozen: int = 0) -> None:
        super().__init__()
        kept = min(frozen, len(start) - 1)
        self.register_buffer("frozen", start[:kept].clone())
        self.rows = nn.Parameter(start[kept:].clone())

    def begin(self, start: Tensor) -> None:
        """Begin elsewhere.

        Args:
            start: As for the class.
        """
        with torch.no_grad():
            self.frozen.copy_(start[: len(self.frozen)])
            self.rows.copy_(start[len(self.frozen) :])

    def forward(self) -> Tensor:
        """All rows."""
        return torch.cat([self.frozen, self.rows])


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


def attention_maps(kinds: Collection[str], *wanted: str) -> tuple[str, ...]:
    """The names of the maps that make queries, keys or values; none where they are not known.

    Args:
        kinds: The last parts of the names of all linear maps in the layers.
        *wanted: What is wanted, of `queries`, `keys` and `values`; a model that makes all three by
            one matrix has one name for them.
    """
    for names in APART:
        if set(names.values()) <= set(kinds):
            return tuple(names[each] for each in wanted)
    return tuple(name for name in _FUSED if name in kinds)[:1]
