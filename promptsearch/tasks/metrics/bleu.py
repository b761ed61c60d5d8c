"""BLEU (Papineni et al. 2002, doi:10.3115/1073083.1073135), as sacrebleu computes it."""

from __future__ import annotations

from typing import Literal

from promptsearch.tasks.metrics.sacre import SacreMetric


class BLEU(SacreMetric):
    """The geometric mean of n-gram precisions up to 4, times a penalty for short outputs.

    With `lowercase` it is the BLEU of the script of the E2E challenge, to all of its digits.

    Args:
        lowercase: Whether case does not count.
        tokenize: The tokenizer, as sacrebleu names it.
        smooth_method: What stands for a precision of 0.
    """

    name = "bleu"

    def __init__(
        self,
        *,
        lowercase: bool = False,
        tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a",
        smooth_method: Literal["exp", "floor", "add-k", "none"] = "exp",
    ) -> None:
        # Only `force` keeps sacrebleu from warning of outputs that end in " .".
        given = {"lowercase": lowercase, "tokenize": tokenize, "smooth_method": smooth_method}
        super().__init__("BLEU", {**given, "force": True})
