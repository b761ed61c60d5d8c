"""Prompts given by hand, and the empty prompt: what a search must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from promptsearch import Objective, Prompt, Strategy, TextPrompt
from promptsearch.search.given import check_given, given_prompts


class Manual(Strategy):
    """Score the prompts that you give, and nothing at all in the slots.

    Args:
        objective: Scores prompts on the search split.
        seed: Makes no difference.
        prompts: The prompts, best guess first: a text for the first slot, or a list with one text
            for each slot. Left out: the empty prompt alone.
        empty: Whether the empty prompt is scored as well, after the given ones.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    deterministic: ClassVar[bool] = True
    searches: ClassVar[bool] = False
    control: ClassVar[bool] = True

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        prompts: list[str | list[str]] = [],  # noqa: B006 - read only
        empty: bool = True,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._waiting = given_prompts(prompts, empty)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that there is a prompt to score."""
        check_given("manual", options)

    def ask(self) -> Sequence[Prompt]:
        """All prompts, once."""
        asked, self._waiting = self._waiting, []
        return asked
