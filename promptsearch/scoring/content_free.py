"""Inputs that say nothing: what a model makes of its answers before it has read anything.

Zhao et al. 2021, "Calibrate Before Use", arXiv:2102.09690, section 4.2: the template is filled with
a text without content, such as `N/A` or nothing, in place of an input. An answer that is then the
more probable one is so because of the prompt, the template and the model alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.errors import StrategyError
from promptsearch.prompts.prompt import Prompt
from promptsearch.records.scores import Floats
from promptsearch.scoring.protocol import Scorer, price_of
from promptsearch.tasks.examples import Example
from promptsearch.tasks.splits import Split
from promptsearch.tasks.template import Template

#: The one example of a split without content.
_ID = np.zeros(1, dtype=np.int64)


def blank_split(template: Template, choices: Sequence[str] | None, text: str) -> Split:
    """The split of one example whose fields all hold the same text.

    Args:
        template: The template.
        choices: The task's choices; None where they differ by row, and for text answers.
        text: The text, which says nothing.

    Raises:
        StrategyError: There are no choices that are the same in all rows.
    """
    if not choices:
        raise StrategyError(
            "it compares answers to choose from without an input, but the task has none that are "
            "the same in all rows: leave the strategy out here"
        )
    fields = dict.fromkeys(template.fields, text)
    return Split("content-free", (Example(0, fields, choices[0], 0),))


class ContentFree:
    """An input without content, read below prompts.

    Args:
        scorer: The scorer of a split of `blank_split`.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def price(self, prompt: Prompt) -> int:
        """The tokens that are charged for reading it with a prompt; 0 where it is too long."""
        if not self._scorer.fits(prompt):
            return 0
        lead = int(self._scorer.lead(_ID).sum())
        return lead + price_of(self._scorer, self._scorer.length(prompt), _ID)

    def read(self, prompt: Prompt) -> tuple[Floats | None, int]:
        """How probable each choice is below a prompt, and the number of tokens computed for it.

        Args:
            prompt: The prompt.

        Returns:
            The log-probabilities over the choices in nats, shape `(choices,)`; None where the
            prompt cannot be scored so, as where nothing stands before the answer.
        """
        found = self._scorer.score([prompt], _ID)
        if found.choices is None or found.failures:
            return None, found.computed
        return found.choices[0, 0], found.computed
