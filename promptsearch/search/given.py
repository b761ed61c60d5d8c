"""Prompts given by hand, for controls that score them: the options `prompts` and `empty`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from promptsearch.errors import StrategyError
from promptsearch.prompts.text import TextPrompt
from promptsearch.search.objective import Objective
from promptsearch.search.strategy import Strategy


class Given(Strategy):
    """A control that scores the prompts which the study file gives.

    Args:
        objective: As in `Strategy`.
        seed: As in `Strategy`.
        prompts: The prompts, each a text for the first slot, or a list with one text for each slot.
        empty: Whether the empty prompt is scored as well, after the given ones.
    """

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
        #: The prompts that are still to be scored.
        self.waiting = [*map(TextPrompt, prompts), *([TextPrompt("")] if empty else [])]

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that there is a prompt to score."""
        if not options["prompts"] and not options["empty"]:
            raise StrategyError("it has nothing to score: give 'prompts', or leave 'empty' at true")
