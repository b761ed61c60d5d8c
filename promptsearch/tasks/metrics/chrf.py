"""chrF (Popovic 2015, doi:10.18653/v1/W15-3049), as sacrebleu computes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from promptsearch.tasks.metrics.sacre import SacreMetric


class CHRF(SacreMetric):
    """The F-score of character n-grams up to 6, recall counting twice as much as precision.

    Args:
        lowercase: Whether case does not count.
        word_order: The longest n-grams of words that count, too; 2 makes it chrF++.
    """

    name = "chrf"

    def __init__(
        self, *, lowercase: bool = False, word_order: Annotated[int, Field(ge=0, le=4)] = 0
    ) -> None:
        super().__init__("CHRF", {"lowercase": lowercase, "word_order": word_order})
