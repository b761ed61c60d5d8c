"""The learning rate range test: a few steps at rising rates say which rate training can bear.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3:
the rate rises from step to step until the loss gets worse, and training takes a lower rate.

Differs from the paper: the rate rises by a factor, since good rates for vectors and for encoders
lie decades apart; all steps see the same minibatch, so that a handful of losses can be compared;
and where the paper's reader picks the rate from a plot, it is here a third of the rate that led to
the lowest loss.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from promptsearch.errors import Diverged

#: The rates that are tried, from the lowest on, each about twice the one before.
RATES = np.geomspace(1e-5, 1.0, 16)
#: Where the test ends: the loss is more than this many times what it was at first.
_RUINED = 2.0


def find_rate(step: Callable[[float], float]) -> tuple[float, list[tuple[float, float]]]:
    """The rate that a range test points to.

    Args:
        step: Takes an optimizer step at the given rate, always on the same examples, and returns
            the loss in nats before the step. Where it raises `Diverged`, the test ends.

    Returns:
        The rate, and what was seen: each rate with the loss in nats after its step.
    """
    seen: list[tuple[float, float]] = []
    first = before = float("nan")
    for rate in map(float, RATES):
        try:
            loss = step(rate)
        except Diverged:
            break
        if np.isnan(first):
            first = loss
        else:
            seen.append((before, loss))  # the loss before this step is that after the last one
        before = rate
        if loss > _RUINED * first:
            break
    best = min(seen, key=lambda pair: pair[1])[0] if seen else float(RATES[0])
    return float(f"{best / 3:.2g}"), seen
