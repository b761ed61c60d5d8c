"""What a run may spend and what it has spent, in LM tokens.

A forward pass costs 1 a token. A backward pass costs 1 more for activations, times the share of
layers that it crosses, and 1 more for weights, times the share of weights that get a gradient. So
each 1 stands for the FLOPs of a token's forward pass, see `promptsearch.models.flops`, and what is
charged is what is computed without any sharing: a prompt beside the text costs what attention to it
takes, a token of another model that proposes as much as that model's size is to the LM's. Template,
prompt and example alone decide the price, on every machine. What the engine saves is seen in
`computed`, and is never credited.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from promptsearch.errors import BudgetExhausted

#: The version of the prices: raise it when the same work costs another number of tokens.
PRICES = 2
#: The largest share of a run's own tokens that the cache may hold while its seconds still tell how
#: long it takes. Searches of a study often begin with the same few prompts, which changes little.
MOST_CACHED = 0.25
#: The kinds of tokens that stand on the bill of a run.
BILL = ("forward", "backward", "proposer", "pool", "brought")


def total(ledger: Mapping[str, Any]) -> int:
    """The whole bill of an account given as JSON values."""
    return sum(ledger[kind] for kind in BILL)


@dataclass(frozen=True)
class Fare:
    """What a proposing LM's tokens cost, in tokens of the LM.

    Args:
        read: What a token costs that it reads.
        written: What a token costs that it writes.
        by: Why: it is the `same` model, or the two are compared by `parameters` or by `price`; or
            they cannot be compared (`unknown`), and a token of either costs the same.
    """

    read: float = 1.0
    written: float = 1.0
    by: Literal["same", "parameters", "price", "unknown"] = "same"

    def of(self, read: int, written: int) -> int:
        """What so many tokens cost that it reads, and that it writes."""
        return math.ceil(self.read * read + self.written * written)


@dataclass(frozen=True)
class Rates:
    """What tokens cost at most in money, where somebody else's server reads and writes them.

    Args:
        most: The most that a run may cost.
        model: The most that a token of the LM costs.
        proposer: The most that a token costs that is charged for a proposing LM.
    """

    most: float
    model: float = 0.0
    proposer: float = 0.0

    def cost(self, tokens: int, proposer: int) -> float:
        """The most that so many tokens cost, charged for the LM and for the proposing one."""
        return tokens * self.model + proposer * self.proposer

    def bill(self, ledger: Ledger) -> float:
        """The most that what a ledger holds costs, without what was brought."""
        return self.cost(ledger.forward + ledger.backward + ledger.pool, ledger.proposer)


class _Account:
    """What can be asked of an account, whoever holds it."""

    budget: int | None
    brought: int

    @property
    def spent(self) -> int:
        """The whole bill so far, with what was brought."""
        return total(self.to_json())

    @property
    def left(self) -> float:
        """Tokens that may still be spent; infinite where there is no budget."""
        return float("inf") if self.budget is None else self.budget - (self.spent - self.brought)

    def to_json(self) -> dict[str, Any]:
        """All figures by name."""
        return {name: getattr(self, name) for name in _FIGURES}


@dataclass(frozen=True)
class Statement(_Account):
    """What stood in a run's ledger at one moment: what a strategy is shown.

    Args:
        budget: The most that may be spent; None for no limit.
        forward: Tokens through the LM.
        backward: Tokens back through the LM.
        proposer: What a proposing LM read and wrote, in tokens of the LM, see `Fare`.
        pool: Tokens that finding the pool's words took.
        brought: Tokens of the run whose winner this one starts from.
        cached: Forward tokens that were charged and not computed.
        computed: Tokens that the engine really ran.
    """

    budget: int | None
    forward: int
    backward: int
    proposer: int
    pool: int
    brought: int
    cached: int
    computed: int

    @property
    def cached_share(self) -> float:
        """The share of the run's own tokens whose scores lay in the cache."""
        own = self.forward + self.backward + self.proposer
        return min(1.0, self.cached / own) if own else 0.0


#: The figures of an account, in the order in which they are written.
_FIGURES = tuple(figure.name for figure in fields(Statement))


@dataclass
class Ledger(_Account):
    """The account of one run, in LM tokens.

    Args:
        budget: The most that may be spent; None for no limit.
        rates: What tokens cost in money; None where that has no limit.
    """

    budget: int | None = None
    forward: int = 0
    backward: int = 0
    proposer: int = 0
    #: What it took to find the words of the run's hard prompts: paid before it starts, computed
    #: once for a study.
    pool: int = 0
    #: What the run spent whose winner this one starts from: on the bill, but not of this budget.
    brought: int = 0
    #: Forward tokens whose scores another run had left in the cache: charged, not computed.
    cached: int = 0
    #: What the engine really ran.
    computed: int = 0
    rates: Rates | None = None

    @property
    def cost(self) -> float:
        """The most that the run's tokens cost in money so far; 0 where nobody counts it."""
        if self.rates is None:
            return 0.0
        return self.rates.bill(self)

    @property
    def left(self) -> float:
        """Tokens of the LM that may still be spent, by the budget and by what they cost."""
        tokens = super().left
        if self.rates is None or not self.rates.model:
            return tokens
        return min(tokens, (self.rates.most - self.cost) // self.rates.model)

    def statement(self) -> Statement:
        """The figures as they stand now."""
        return Statement(**self.to_json())

    def charge(
        self, *, forward: int = 0, backward: int = 0, proposer: int = 0, reserve: int = 0
    ) -> None:
        """Charge, or refuse and change nothing.

        Args:
            forward: Tokens through the LM.
            backward: Tokens back through the LM.
            proposer: What a proposing LM's tokens cost, see `Fare`.
            reserve: Tokens that must remain afterwards (the price of selection).

        Raises:
            BudgetExhausted: The charge would leave less than `reserve`.
        """
        self.check(forward + backward, reserve, proposer)
        self.forward += forward
        self.backward += backward
        self.proposer += proposer

    def check(self, price: int, reserve: int, proposer: int = 0) -> None:
        """Refuse what cannot be paid.

        Args:
            price: Tokens of the LM.
            reserve: As in `charge`.
            proposer: As in `charge`.

        Raises:
            BudgetExhausted: The charge would leave less than `reserve`.
        """
        if price + proposer + reserve > super().left:
            raise BudgetExhausted(
                f"{price + proposer} tokens are wanted and {reserve} are set aside for selection, "
                f"but {super().left} of {self.budget} are left"
            )
        if self.rates is None:
            return
        cost = self.rates.cost(price + reserve, proposer)
        # What `left` allowed is not refused for how sums are rounded.
        if cost > self.rates.most * (1 + 1e-9) - self.cost:
            raise BudgetExhausted(
                f"{price + proposer} tokens are wanted and {reserve} are set aside for selection, "
                f"which may cost {cost:.4g}, but {self.rates.most - self.cost:.4g} of the max_cost "
                f"of {self.rates.most:g} are left"
            )
