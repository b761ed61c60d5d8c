"""Prompts given by hand, and the empty prompt: what a search must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from promptsearch import Prompt, TextPrompt
from promptsearch.search.given import Given


class Manual(Given):
    """Score the prompts that you give, and nothing at all in the slots.

    Args:
        objective: Scores prompts on the search split.
        seed: Makes no difference.
        prompts: The prompts, best guess first: a text for the first slot, or a list with one text
            for each slot. Left out: the empty prompt alone.
        empty: Whether the empty prompt is scored as well, after the given ones.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})

    def ask(self) -> Sequence[Prompt]:
        """All prompts, once."""
        asked, self.waiting = self.waiting, []
        return asked
