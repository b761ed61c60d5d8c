"""What a run's tokens cost in money, where servers read and write them.

It is an upper bound, known beforehand and the same however often a run was killed: of the tokens
that are charged, whatever the cache holds, each costs the most that one of its kind can. Like the
budget, it leaves out the one look at the test split.
"""

from __future__ import annotations

import math

from promptsearch.records.ledger import Ledger, Rates
from promptsearch.scoring.remote import ServedScorer
from promptsearch.search.proposer import Proposing, RemoteProposing
from promptsearch.study.arena import Arena


def rates_of(arena: Arena, proposing: Proposing | None, max_cost: float | None) -> Rates | None:
    """What tokens cost at most; None where a run may cost anything.

    Args:
        arena: Task and model.
        proposing: The model that proposes.
        max_cost: The most that a run may cost, in the currency of the prices.
    """
    return None if max_cost is None else Rates(max_cost, *_dearest(arena, proposing))


def cost_of(arena: Arena, proposing: Proposing | None, ledger: Ledger) -> float | None:
    """The most that the tokens in a ledger cost; None where no price is known.

    Args:
        arena: Task and model.
        proposing: The model that proposes.
        ledger: The ledger of a run.
    """
    rates = Rates(math.inf, *_dearest(arena, proposing))
    if not (rates.model or rates.proposer):
        return None
    return rates.cost(ledger.forward + ledger.backward + ledger.pool, ledger.proposer)


def _dearest(arena: Arena, proposing: Proposing | None) -> tuple[float, float]:
    """The most that a token of the LM, and of the proposing one, costs."""
    generates = arena.task.kind == "text" and (arena.follows is not None or arena.by_metric)
    scorers = [arena.exact[name] for name in ("search", "select")]
    model = max(
        (each.dearest(generates=generates) for each in scorers if isinstance(each, ServedScorer)),
        default=0.0,
    )
    price = proposing.endpoint.price if isinstance(proposing, RemoteProposing) else None
    return model, max(price) if price else 0.0
