"""What BLEU, chrF and TER share: they are sacrebleu's (Post 2018, arXiv:1804.08771).

Its statistics of segments are the statistics of rows, and its score of sums is the score, so that a
number here is the number that its command line prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics.libraries import require
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric


class SacreMetric(Metric):
    """A metric of sacrebleu, on its scale from 0 to 100.

    Args:
        peer: The name of its class in `sacrebleu.metrics`.
        options: The arguments of that class.
    """

    bounds = (0.0, 100.0)

    def __init__(self, peer: str, options: dict[str, Any]) -> None:
        require("sacrebleu", self.name)
        self._class, self._options = peer, options

    @property
    def signature(self) -> str:
        """The one that sacrebleu gives, for as many references as each row has."""
        self._peer.num_refs = -1
        return f"{self.name}|{self._peer.get_signature()}"

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The statistics that sacrebleu keeps of a segment."""
        outputs = [row.output for row in rows]
        # sacrebleu wants the first reference of all rows, then the second one, and so on. It cuts
        # lists to the shortest one, so rows with fewer references are filled up with None.
        columns = [list(texts) for texts in zip_longest(*(row.references for row in rows))]
        # These two methods are abstract ones of its base class, on which its own tests of
        # significance stand; its public methods do not give the statistics away.
        found = self._peer._extract_corpus_statistics(outputs, columns)
        if len(found) != len(rows):
            raise TaskError(f"sacrebleu gave statistics of {len(found)} of {len(rows)} rows")
        return np.array(found, dtype=np.float64)

    def score(self, sums: Floats, rows: int) -> float:
        """The score that sacrebleu gives for sums of its statistics."""
        return float(self._peer._compute_score_from_stats(sums.tolist()).score)

    @cached_property
    def _peer(self) -> Any:
        from sacrebleu import metrics

        return getattr(metrics, self._class)(**self._options)
