"""What can be trained in the bits that a study's model has: strategies are held against it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from promptsearch.errors import StudyError
from promptsearch.models import LanguageModel
from promptsearch.models.protocol import TextModel
from promptsearch.search.strategy import Access
from promptsearch.study.entries import Entry


def check_precision(lm: TextModel, dtype: torch.dtype, entries: Sequence[Entry]) -> None:
    """Refuse strategies that train what few bits cannot hold.

    Args:
        lm: The model.
        dtype: The dtype of the search.
        entries: The study's entries.

    Raises:
        StudyError: There is such a strategy; the message says what works.
    """
    if not isinstance(lm, LanguageModel):
        return
    for entry in entries:
        label, access = entry.given.label, entry.strategy.access
        if lm.quantised and access is Access.WEIGHTS:
            raise StudyError(
                f"the strategy '{label}' trains the model's weights, but those of '{lm.name}' are "
                f"kept in {lm.quantised}: on it those strategies work that need scores or "
                "gradients only, see `promptsearch strategies`; or name the model without "
                f"':quantise={lm.quantised}'"
            )
        # Gradients of the states of a long row lie below 6e-8, the smallest number of float16.
        if dtype == torch.float16 and access.trains:
            raise StudyError(
                f"the strategy '{label}' trains, and float16 rounds small gradients to 0: set "
                "dtype to bfloat16 or float32; in float16 those strategies work that need scores "
                "only, see `promptsearch strategies`"
            )
