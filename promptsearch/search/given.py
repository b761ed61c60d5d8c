"""Prompts given by hand, for controls that score them: the options `prompts` and `empty`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptsearch.errors import StrategyError
from promptsearch.prompts.text import TextPrompt


def given_prompts(prompts: Sequence[str | Sequence[str]], empty: bool) -> list[TextPrompt]:
    """The prompts, and behind them the empty one.

    Args:
        prompts: Each a text for the first slot, or one text for each slot.
        empty: Whether the empty prompt is among them.
    """
    return [*map(TextPrompt, prompts), *([TextPrompt("")] if empty else [])]


def check_given(name: str, options: Mapping[str, Any]) -> None:
    """See that there is a prompt to score.

    Args:
        name: The strategy's name.
        options: Its options, `prompts` and `empty` among them.

    Raises:
        StrategyError: There is none.
    """
    if not options["prompts"] and not options["empty"]:
        raise StrategyError(
            f"{name} has nothing to score: give 'prompts', or leave 'empty' at true"
        )
