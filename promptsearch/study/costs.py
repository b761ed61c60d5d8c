"""What a run's tokens cost beside tokens: FLOPs and, where servers read and write them, money.

What is charged stands for FLOPs, 2N a token (see `promptsearch.records.ledger`), so that these
follow from it. What it costs in money is an upper bound, known beforehand and the same however
often a run was killed: of the tokens that are charged, whatever the cache holds, each costs the
most that one of its kind can. Like the budget, it leaves out the one look at the test split.
"""

from __future__ import annotations

import math

from promptsearch.models.protocol import TextModel
from promptsearch.models.remote import ServedModel
from promptsearch.records.ledger import Fare, Ledger, Rates
from promptsearch.scoring.remote import ServedScorer
from promptsearch.search.proposer import Proposing, RemoteProposing
from promptsearch.study.arena import Arena


def fare_of(proposer: TextModel, lm: TextModel) -> Fare:
    """What the tokens of a model that proposes cost, in tokens of the LM.

    Behind endpoints with prices, these compare the two, else their sizes do.

    Args:
        proposer: The model that proposes.
        lm: The LM.
    """
    if proposer is lm:
        return Fare()
    own, theirs = (
        each.endpoint.price if isinstance(each, ServedModel) else None for each in (lm, proposer)
    )
    if own and theirs and min(own.read, *theirs) > 0:
        return Fare(theirs.read / own.read, theirs.written / own.read, "price")
    if proposer.flops and lm.flops:
        share = proposer.flops.token / lm.flops.token
        return Fare(share, share, "parameters")
    return Fare(by="unknown")


def flops_of(arena: Arena, fare: Fare, ledger: Ledger) -> float | None:
    """The FLOPs that the tokens in a ledger stand for; None where they are not known.

    Args:
        arena: Task and model.
        fare: What the tokens of the model that proposes cost.
        ledger: The ledger of a run.
    """
    other = ledger.proposer or ledger.brought  # may stand for a proposer of another size
    if arena.lm.flops is None or (other and fare.by not in ("same", "parameters")):
        return None
    return float(arena.lm.flops.token) * ledger.spent


def rates_of(
    arena: Arena, proposing: Proposing | None, fare: Fare, max_cost: float | None
) -> Rates | None:
    """What tokens cost at most; None where a run may cost anything.

    Args:
        arena: Task and model.
        proposing: The model that proposes.
        fare: What its tokens cost, in tokens of the LM.
        max_cost: The most that a run may cost, in the currency of the prices.
    """
    return None if max_cost is None else Rates(max_cost, *_dearest(arena, proposing, fare))


def cost_of(arena: Arena, proposing: Proposing | None, fare: Fare, ledger: Ledger) -> float | None:
    """The most that the tokens in a ledger cost; None where no price is known.

    Args:
        arena: Task and model.
        proposing: The model that proposes.
        fare: What its tokens cost, in tokens of the LM.
        ledger: The ledger of a run.
    """
    rates = Rates(math.inf, *_dearest(arena, proposing, fare))
    if not (rates.model or rates.proposer):
        return None
    return rates.bill(ledger)


def _dearest(arena: Arena, proposing: Proposing | None, fare: Fare) -> tuple[float, float]:
    """The most that a token costs that is charged for the LM, and for the proposing one."""
    generates = arena.task.kind == "text" and (arena.follows is not None or arena.by_metric)
    scorers = [arena.exact[name] for name in ("search", "select")]
    model = max(
        (each.dearest(generates=generates) for each in scorers if isinstance(each, ServedScorer)),
        default=0.0,
    )
    price = proposing.endpoint.price if isinstance(proposing, RemoteProposing) else None
    if price is None:
        return model, 0.0
    return model, max(price.read / fare.read, price.written / fare.written)
