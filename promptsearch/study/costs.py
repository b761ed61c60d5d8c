"""What a run's tokens cost in money, where servers read and write them.

It is an upper bound, known beforehand and the same however often a run was killed: of the tokens
that are charged, whatever the cache holds, each costs the most that one of its kind can. Like the
budget, it leaves out the one look at the test split.
"""

from __future__ import annotations

from promptsearch.records.ledger import Rates
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
    if max_cost is None:
        return None
    generates = arena.task.kind == "text" and (arena.follows is not None or arena.by_metric)
    scorers = [arena.exact[name] for name in ("search", "select")]
    model = max(
        (each.dearest(generates=generates) for each in scorers if isinstance(each, ServedScorer)),
        default=0.0,
    )
    price = proposing.endpoint.price if isinstance(proposing, RemoteProposing) else None
    return Rates(max_cost, model, max(price) if price else 0.0)
