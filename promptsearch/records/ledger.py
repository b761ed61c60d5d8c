"""What a run may spend and what it has spent, in LM tokens.

A forward pass costs 1 a token. A backward pass costs 1 more for activations, times the share of
layers that it crosses, and 1 more for weights, times the share of weights that get a gradient (each
1 is 2N FLOPs a token for an LM of N parameters). Template, prompt and example alone decide the
price, on every machine. What the engine saves is seen in `computed`, and is never credited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from promptsearch.errors import BudgetExhausted

#: The kinds of tokens that stand on the bill of a run.
BILL = ("forward", "backward", "proposer", "pool", "brought")


def total(ledger: Mapping[str, Any]) -> int:
    """The whole bill of an account given as JSON values."""
    return sum(ledger[kind] for kind in BILL)


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
        proposer: Tokens of a proposing LM.
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


#: The figures of an account, in the order in which they are written.
_FIGURES = tuple(figure.name for figure in fields(Statement))


@dataclass
class Ledger(_Account):
    """The account of one run, in LM tokens.

    Args:
        budget: The most that may be spent; None for no limit.
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
            proposer: Tokens of a proposing LM.
            reserve: Tokens that must remain afterwards (the price of selection).

        Raises:
            BudgetExhausted: The charge would leave less than `reserve`.
        """
        self.check(forward + backward + proposer, reserve)
        self.forward += forward
        self.backward += backward
        self.proposer += proposer

    def check(self, price: int, reserve: int) -> None:
        """Refuse what cannot be paid.

        Args:
            price: Tokens, of any kind.
            reserve: As in `charge`.

        Raises:
            BudgetExhausted: The charge would leave less than `reserve`.
        """
        if price + reserve > self.left:
            raise BudgetExhausted(
                f"{price} tokens are wanted and {reserve} are set aside for selection, but "
                f"{self.left} of {self.budget} are left"
            )
