"""The ranking: the best prompts of a search, from which its winner is selected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, overload

from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import Row

#: How many of the best prompts are scored again in float32 at the end of a search (a strategy may
#: keep fewer), and how many of these see all of the select split.
FINALISTS, SELECTED = 8, 3


@dataclass(frozen=True)
class Ranked:
    """A prompt that was scored on all of `score_on`.

    Args:
        value: The prompt's mean loss in nats.
        order: The prompt's place among those of the run; the earlier one wins a tie.
        prompt: The prompt.
    """

    value: float
    order: int
    prompt: Prompt


class Ranking(Sequence[Ranked]):
    """The best prompts that were scored on all of `score_on`, best first.

    Args:
        most: How many prompts are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: list[Ranked] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> Ranked: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Ranked]: ...

    def __getitem__(self, place: int | slice) -> Ranked | Sequence[Ranked]:
        return self._items[place]

    def enter(self, row: Row, prompt: Prompt | None) -> None:
        """Enter the next prompt of the run; ties go to the earlier one.

        While old lines are put back, a trained prompt that later fell out of the ranking has no
        numbers any more, and is None; the lines that follow push it out again.

        Args:
            row: The prompt's scores on all of `score_on`.
            prompt: The prompt.
        """
        order, self._count = self._count, self._count + 1
        if row.complete and (len(self) < self._most or row.value < self._items[-1].value):
            self._items.append(Ranked(row.value, order, cast(Prompt, prompt)))
            self._items.sort(key=lambda item: (item.value, item.order))
            del self._items[self._most :]

    def clear(self) -> None:
        """Forget all prompts."""
        self._items.clear()
        self._count = 0
