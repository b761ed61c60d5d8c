"""The Pareto front over examples: who is best somewhere, and beaten by nobody everywhere.

Agrawal et al. 2025, arXiv:2507.19457, algorithm 2.
"""

from __future__ import annotations

import numpy as np

from promptsearch.records.scores import ExampleIds, Floats


def front(losses: Floats) -> ExampleIds:
    """On how many examples each candidate is best; none where another candidate dominates it.

    One dominates another where it is nowhere worse, and better somewhere.

    Args:
        losses: Nats, shape `(candidates, examples)`; NaN where one was not scored, which counts as
            worse than any loss. Where candidates are equally good on an example, all are best.

    Returns:
        The numbers, shape `(candidates,)`; 0 for those that are not in the front.
    """
    if not len(losses):
        return np.zeros(0, dtype=np.int64)
    losses = np.where(np.isnan(losses), np.inf, losses)
    wins: ExampleIds = ((losses == losses.min(0)) & np.isfinite(losses)).sum(1)
    # Who dominates a candidate is best wherever that one is.
    living = losses[wins > 0]
    for place in np.flatnonzero(wins):
        nowhere_worse = (living <= losses[place]).all(1)
        if (nowhere_worse & (living < losses[place]).any(1)).any():
            wins[place] = 0
    return wins
