"""What an objective hands out to be looked at.

These are copies, and views that reach the books of a run only while they are asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from promptsearch.search.books import books_of
from promptsearch.search.proposer import Writer


class Asking(Writer):
    """The proposer of a run, as a strategy reaches it: `objective.proposer`.

    Args:
        objective: The objective of the run that pays.
    """

    __slots__ = ("_objective",)

    def __init__(self, objective: Any) -> None:
        self._objective = objective

    def generate(
        self,
        requests: Sequence[str],
        *,
        seed: int,
        max_tokens: int,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """See `Writer`."""
        proposer = books_of(self._objective).proposer
        return proposer.generate(
            list(requests), seed=seed, max_tokens=max_tokens, temperature=temperature, stop=stop
        )


class Diary:
    """The log of a run, as a strategy may read it: `objective.log`.

    Args:
        objective: The objective of the run.
    """

    __slots__ = ("_objective",)

    def __init__(self, objective: Any) -> None:
        self._objective = objective

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Copies of the log's lines: the evaluations that the run has seen, replayed ones, too."""
        return [_copied(line) for line in books_of(self._objective).log.lines]

    @property
    def replaying(self) -> bool:
        """Whether evaluations of an earlier, killed process are still to be handed back."""
        return books_of(self._objective).log.replaying


class WeightCopies(Mapping[str, Tensor]):
    """The LM's weights by name, each a copy.

    Args:
        objective: The objective whose LM has the weights.
        names: The names of the weights.
    """

    __slots__ = ("_names", "_objective")

    def __init__(self, objective: Any, names: tuple[str, ...]) -> None:
        self._objective, self._names = objective, names

    def __getitem__(self, name: str) -> Tensor:
        return books_of(self._objective).inside("weights").weights.tensors[name].detach().clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_only(array: NDArray[np.int64]) -> NDArray[np.int64]:
    """A copy that nobody can write to: its numbers lie in a bytes object."""
    return np.frombuffer(array.tobytes(), dtype=array.dtype).reshape(array.shape)


def _copied(value: Any) -> Any:
    """A copy of JSON values, in lists and dictionaries of its own."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
