"""The events of a study: one stream, which everything listens to that shows or follows it.

They are made where a run is made, in this process or another, and reach the listeners of the
study's own process one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """An event: where a study stands.

    Stages of the whole study are `loading`, `note` (something that stays on the screen) and
    `ended`; those of a run are `waiting` (it is to be made), `begun`, `search` (an evaluation was
    told, or replayed), `select`, `test`, and at its end `done` or `failed`.

    Args:
        run: `task/label/seed0`; empty for the study as a whole.
        number: The run's number, from 1.
        total: Runs in the study.
        stage: What happened.
        best: The best mean score so far by what the search follows: the loss in nats, or a metric.
        spent: LM tokens of its own budget.
        budget: LM tokens; None before the run has one.
        seconds: The time of this run so far, in seconds; 0 where an earlier call made it.
        message: For people: what is loading, or why the run failed.
        facts: What listeners learn of a run: `waiting`, what time it may take depends on; `begun`,
            what it is told to do; `done`, how it ended. JSON values by name.
        aim: What the search follows: `loss`, or the name of a metric.
    """

    run: str
    number: int
    total: int
    stage: str
    best: float | None = None
    spent: int = 0
    budget: int | None = None
    seconds: float = 0.0
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    aim: str = "loss"

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.stage in ("done", "failed")

    @property
    def cached(self) -> float:
        """The share of the tokens of a run that is done whose scores lay in the cache."""
        return float(self.facts.get("cached_share", 0.0))


Listener = Callable[[Progress], None]


def told_to(*listeners: Listener) -> Listener:
    """A listener that passes each event on to others, in this order.

    Args:
        listeners: The others.
    """

    def tell(event: Progress) -> None:
        for listener in listeners:
            listener(event)

    return tell
