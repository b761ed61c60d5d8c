"""Search examples that are not scored on, for strategies that show them solved."""

from __future__ import annotations

from promptsearch.errors import StrategyError
from promptsearch.search.objective import Objective


def check_unscored(objective: Objective, count: int, name: str = "shots") -> None:
    """See that there are enough examples that are not scored on.

    Args:
        objective: The objective, which has them.
        count: The number of examples that are asked for.
        name: What they are called: the option that asks for them.

    Raises:
        StrategyError: There are fewer.
    """
    if count > (known := len(objective.training)):
        raise StrategyError(
            f"{count} {name} were asked for, but only {known} examples are not scored on"
        )
