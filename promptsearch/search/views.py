"""What an objective hands out to be looked at.

These are copies, and views that reach the books of a run only while they are asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from promptsearch.prompts.numbers import Numbers
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.protocol import inside
from promptsearch.search.books import Books, books_of
from promptsearch.search.others import Other
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
    def signature(self) -> str:
        """The name of all that its scores depend on besides prompts and examples."""
        return books_of(self._objective).scorer.signature

    @property
    def replaying(self) -> bool:
        """Whether evaluations of an earlier, killed process are still to be handed back."""
        return books_of(self._objective).log.replaying


class OtherTask:
    """Another task of the study, as a strategy may train on it: one of `objective.others`.

    It has what the objective has for training, under the same names, and the run pays for it.

    Args:
        objective: The objective of the run.
        name: The task's name.
    """

    __slots__ = ("_name", "_objective")

    def __init__(self, objective: Any, name: str) -> None:
        self._objective, self._name = objective, name

    @property
    def training(self) -> ExampleIds:
        """Ids of its search examples that it does not score on, shape `(training,)`; read-only."""
        return read_only(self._inside()[1].training)

    def minibatch(self, rng: np.random.Generator, size: int) -> ExampleIds:
        """Ids of some of these, see `Objective.minibatch`."""
        return minibatch_of(self.training, rng, size)

    def loss(self, numbers: Numbers, examples: ArrayLike, visit: int | None = None) -> Tensor:
        """The mean loss of a trained prompt on its examples, see `Objective.loss`."""
        return charged_loss(*self._inside(), numbers, examples, visit)

    def price(self, prompts: Sequence[Prompt], examples: ArrayLike) -> int:
        """What prompts on its examples cost, see `Objective.price`."""
        return self._inside()[1].prices.of(prompts, np.array(examples, dtype=np.int64))

    def training_price(self, prompt: Prompt) -> float:
        """What `loss` on all of `training` costs forward, see `Objective.training_price`."""
        _, other = self._inside()
        return other.prices.training(prompt, other.training, inside(other.scorer, "gradients"))

    def _inside(self) -> tuple[Books, Other]:
        books = books_of(self._objective)
        return books, books.others[self._name]


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


def charged_loss(
    books: Books, other: Other | None, numbers: Numbers, examples: ArrayLike, visit: int | None
) -> Tensor:
    """The mean loss of a trained prompt, with both passes charged, see `Objective.loss`.

    Args:
        books: The books of the run.
        other: Another task, whose examples they are; None for the run's own.
        numbers: As `Objective.loss` takes them, like the others.
        examples: Ids, shape `(batch,)`.
        visit: The number by which right answers are drawn, or None.
    """
    white_box, prices = books.inside("gradients"), books.prices
    if other is not None:
        white_box, prices = inside(other.scorer, "gradients"), other.prices
    ids = np.array(examples, dtype=np.int64)
    # The ledger is the same in a run that goes on.
    visit = books.ledger.forward if visit is None else visit
    prices.charge_step(numbers, ids, white_box, visit)
    return white_box.loss(numbers, ids, visit)


def minibatch_of(ids: ExampleIds, rng: np.random.Generator, size: int) -> ExampleIds:
    """Some of these examples, without replacement where there are enough, shape `(size,)`.

    Args:
        ids: Ids of the examples, shape `(examples,)`.
        rng: The generator that draws them.
        size: The number of examples.
    """
    return rng.choice(ids, size=size, replace=size > len(ids))


def read_only(array: NDArray[np.int64]) -> NDArray[np.int64]:
    """A copy that nobody can write to: its numbers lie in a bytes object."""
    return np.frombuffer(array.tobytes(), dtype=array.dtype).reshape(array.shape)


def _copied(value: Any) -> Any:
    """A copy of JSON values, in lists and dictionaries of its own."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value
