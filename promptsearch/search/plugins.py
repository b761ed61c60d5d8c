"""Strategies by name: installed ones, or a stranger's `module:Class`.

Each class is checked before an object is made of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args

from promptsearch.errors import StrategyError, UnknownName
from promptsearch.importing import load_named
from promptsearch.prompts.kinds import KINDS
from promptsearch.records.run import Paper, Unit
from promptsearch.search.calling import strangers_code
from promptsearch.search.listing import known_strategies
from promptsearch.search.objective import Objective
from promptsearch.search.options import check_options
from promptsearch.search.strategy import BEGIN, Access, Strategy

#: How a strategy says what a run takes in its paper.
_PAPER = 'Paper(8_000, "prompts", "section 4"), or None'


def find_strategy(name: str) -> type[Strategy]:
    """The strategy of this name, or at this `module:Class`.

    Args:
        name: An installed strategy's name, or `module:Class`, which is looked up in the current
            folder too.

    Raises:
        UnknownName: No strategy has the name.
        StrategyError: The name is claimed twice, or what it names cannot be loaded or is no
            strategy.
    """
    if ":" in name:
        return _load(name, lambda: load_named(name))
    known = known_strategies()
    if name not in known:
        raise UnknownName("strategy", name, known)
    if len(known[name]) > 1:
        claims = ", ".join(
            f"{p.value} ({p.dist.name if p.dist else 'unknown package'})" for p in known[name]
        )
        raise StrategyError(
            f"the name '{name}' is claimed by several strategies: {claims}. Uninstall one, "
            "or use module:Class."
        )
    return _load(name, known[name][0].load)


def _load(name: str, load: Callable[[], Any]) -> type[Strategy]:
    with strangers_code(f"the strategy '{name}' cannot be loaded"):
        found = load()
    if not (inspect.isclass(found) and issubclass(found, Strategy)):
        raise StrategyError(
            f"'{name}' is {found!r}, which is not a subclass of promptsearch.Strategy"
        )
    if inspect.isabstract(found):
        raise StrategyError(
            f"the strategy '{name}' lacks {', '.join(sorted(found.__abstractmethods__))}"
        )
    return found if (fault := _fault(found)) is None else _refusing(found, *fault)


def _is_paper(value: object) -> bool:
    """Whether this says what a run takes in a paper, or is None."""
    return value is None or (
        isinstance(value, Paper)
        and (type(value.count), type(value.unit), type(value.told)) == (int, str, str)
        and value.count > 0
        and value.unit in get_args(Unit)
    )


def _fault(strategy: type[Strategy]) -> tuple[str, str] | None:
    """The first wrong attribute of a strategy's class, and a message that says what to write.

    It is None where all attributes are right.
    """
    kinds = set(KINDS.values())

    def some(value: Any, known: Callable[[Any], bool]) -> bool:
        return isinstance(value, (frozenset, set)) and all(known(each) for each in value)

    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "access": (
            lambda x: isinstance(x, Access),
            "one of Access.SCORES, Access.LOGITS, Access.GRADIENTS and Access.WEIGHTS",
        ),
        "proposes": (
            lambda x: some(x, kinds.__contains__) and bool(x),
            "a set of kinds of prompt, as frozenset({HardPrompt})",
        ),
        "starts_from": (
            lambda x: some(x, kinds.__contains__),
            "a set of kinds of prompt, as frozenset({HardPrompt})",
        ),
        "writes": (
            lambda x: some(x, lambda each: isinstance(each, str)),
            'a set of names of options, as frozenset({"file"})',
        ),
        "paper": (_is_paper, _PAPER),
        "finalists": (lambda x: type(x) is int and x > 0, "a whole number of at least 1"),
        **{
            name: (lambda x: type(x) is bool, "True or False")
            for name in ("deterministic", "searches", "control", "reference")
        },
    }
    for name, (good, wanted) in checks.items():
        value = getattr(strategy, name)
        if not good(value):
            return name, f"{strategy.__name__}.{name} is {str(value)[:80]!r}: write {wanted}"
    return None


def _refusing(strategy: type[Strategy], name: str, fault: str) -> type[Strategy]:
    """A class that stands in for a strategy's where one of its attributes is wrong.

    The strategy's own runs fail with the fault, while the other strategies of the study run.

    Args:
        strategy: The strategy's class.
        name: The name of the wrong attribute.
        fault: The message of the error.
    """

    @functools.wraps(strategy.__init__)
    def refuse(self: Strategy, *given: Any, **named: Any) -> None:
        raise StrategyError(fault)

    own = {
        "__init__": refuse,
        "__doc__": strategy.__doc__,
        "__module__": strategy.__module__,
        name: getattr(Strategy, name),
    }
    standing_in: type[Strategy] = type(strategy.__name__, (strategy,), own)
    other = _fault(standing_in)
    return standing_in if other is None else _refusing(standing_in, *other)


def make_strategy(
    name: str, strategy: type[Strategy], objective: Objective, seed: int, options: Mapping[str, Any]
) -> Strategy:
    """A new object of a strategy's class; an error of a stranger's constructor names the strategy.

    Args:
        name: The strategy's name, for messages.
        strategy: The strategy's class.
        objective: The objective of the run.
        seed: The seed of the run.
        options: The options as a study file gives them.

    Raises:
        StrategyError: The constructor failed, or what it made is not fit for the run.
        UnknownName: The strategy does not have one of the options.
        OptionError: An option is wrong.
    """
    given = check_options(name, strategy, options)
    with strangers_code(f"the strategy '{name}' cannot be made"):
        made = strategy(objective, seed=seed, **given)
        if not isinstance(made, Strategy):
            raise StrategyError(
                f"{strategy.__name__}() made {type(made).__name__}, which is no strategy: "
                "leave __new__ out"
            )
        if made.objective is not objective:
            raise StrategyError(
                f"{strategy.__name__} has an objective that is not the run's: {BEGIN}"
            )
        if not _is_paper(made.paper):
            raise StrategyError(
                f"{strategy.__name__}().paper is {str(made.paper)[:80]!r}: write {_PAPER}"
            )
    return made
