"""Calibrated prompts: given ones, put right where the model leans to an answer whatever it reads.

Zhao et al. 2021, "Calibrate Before Use: Improving Few-Shot Performance of Language Models",
arXiv:2102.09690, section 4 (`contextual`): the model reads the prompt with inputs that say nothing
(`N/A`, nothing, `[MASK]`); each choice's probability is then divided by the mean of what it has
there. Holtzman et al. 2021, "Surface Form Competition: Why the Highest Probability Answer Isn't
Always Right", arXiv:2104.08315, equation 3 (`pmi`): by what it has without the input.

Both are one number a choice, added to its log-probability: minus the logarithm of that probability.
No example is looked at for it, and no label.

Differs from the papers: the loss is that of the corrected distribution over the choices, which they
use for the answer alone. Holtzman et al. leave out the instruction together with the input; here
the prompt stays. Tasks whose choices differ by row, for which they made it, are not corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from scipy.special import logsumexp

from promptsearch import CalibratedPrompt, Objective, Prompt, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.search.given import Given

#: Inputs without content by the method that reads them.
_INPUTS = {"contextual": ("N/A", "", "[MASK]"), "pmi": ("",)}
#: The digits of a correction, as those of a loss in the log: a model gives no more.
_DIGITS = 6


class Calibrated(Given):
    """Score the prompts that you give, and nothing at all in the slots, each calibrated.

    Args:
        objective: Scores prompts on the search split.
        seed: Makes no difference.
        prompts: The prompts, best guess first: a text for the first slot, or a list with one text
            for each slot. Left out: the empty prompt alone.
        empty: Whether the empty prompt is scored as well, after the given ones.
        method: `contextual` reads three inputs that say nothing, `pmi` an empty one; `either` tries
            both for each prompt.

    Raises:
        StrategyError: The task has no choices that are the same in all rows.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({CalibratedPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        prompts: list[str | list[str]] = [],  # noqa: B006 - read only
        empty: bool = True,
        method: Literal["either", "contextual", "pmi"] = "either",
    ) -> None:
        super().__init__(objective, seed=seed, prompts=prompts, empty=empty)
        self._methods = list(_INPUTS) if method == "either" else [method]
        self._proposed = False

    def ask(self) -> Sequence[Prompt]:
        """The next prompt, with each of its corrections."""
        while self.waiting:
            if found := self._corrected(self.waiting.pop(0)):
                self._proposed = True
                return found
        if not self._proposed:
            raise StrategyError(
                "without an input, the model can be asked for an answer under none of the prompts: "
                "expected a template or prompts with some text before the answer"
            )
        return []

    def _corrected(self, prompt: TextPrompt) -> list[Prompt]:
        """The prompt with each correction, each once; none where no input could be read."""
        read = {text: self.objective.content_free(prompt, text) for text in self._inputs}
        found: dict[str, Prompt] = {}
        for method in self._methods:
            told = [nats for text in _INPUTS[method] if (nats := read[text]) is not None]
            if told:
                mean = logsumexp(told, axis=0) - np.log(len(told))  # (choices,), nats
                bias = (mean.mean() - mean).round(_DIGITS) + 0.0  # only differences count
                each = CalibratedPrompt(prompt.texts, bias.tolist())
                found[each.key] = each
        return list(found.values())

    @property
    def _inputs(self) -> list[str]:
        """The inputs that the methods read, each once."""
        return list(dict.fromkeys(text for name in self._methods for text in _INPUTS[name]))
