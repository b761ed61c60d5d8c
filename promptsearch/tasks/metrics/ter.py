"""TER (Snover et al. 2006, aclanthology.org/2006.amta-papers.25), as sacrebleu computes it.

It is a port of tercom with the same defaults.
"""

from __future__ import annotations

from math import inf

from promptsearch.tasks.metrics.sacre import SacreMetric


class TER(SacreMetric):
    """The edits from the output to the nearest reference, in percent of the references' mean words.

    Args:
        case_sensitive: Whether case counts.
        normalized: Whether punctuation is set apart from words first.
        no_punct: Whether punctuation is left out.
    """

    name = "ter"
    higher_is_better = False
    bounds = (0.0, inf)

    def __init__(
        self, *, case_sensitive: bool = False, normalized: bool = False, no_punct: bool = False
    ) -> None:
        given = {"case_sensitive": case_sensitive, "normalized": normalized, "no_punct": no_punct}
        super().__init__("TER", given)
