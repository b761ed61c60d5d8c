"""Another task of the study, on which a run may train: its examples, and what they cost the run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from promptsearch.records.scores import ExampleIds
from promptsearch.scoring.protocol import Scorer
from promptsearch.search.prices import Prices


@dataclass(frozen=True)
class Other:
    """Another task's search split, as far as it is trained on.

    Args:
        scorer: The scorer of the split, in the search's dtype.
        training: Ids of its examples that are not scored on, shape `(training,)`.
        prices: What they cost the run, and which of their leads are paid.
    """

    scorer: Scorer
    training: ExampleIds
    prices: Prices

    @staticmethod
    def beside(prices: Prices, scorer: Scorer, training: ArrayLike) -> Other:
        """Another task beside the run's own.

        Args:
            prices: The prices of the run's own task.
            scorer: As above.
            training: As above.
        """
        ids = np.array(training, dtype=np.int64)
        return Other(scorer, ids, prices.beside(scorer, ids))
