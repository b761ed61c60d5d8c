"""How many requests a server is sent at a time: more while it answers, half as many when it cannot.

The rule is that of TCP (additive increase, multiplicative decrease; Chiu and Jain 1989). At first
each answer allows one request more, so that their number doubles from round to round, until the
server says for the first time that it is busy; from then on each round allows one more. A server
is busy where it says so (429, 503) or does not answer in time. What had begun before the number was
last halved tells nothing of the new one.
"""

from __future__ import annotations

from threading import Condition
from typing import Literal

#: How many requests are sent at a time at first, where more are allowed.
_FIRST = 4

#: How a request went: it was answered, the server was busy, or neither is known.
Outcome = Literal["answered", "busy", "unknown"]


class Pace:
    """Lets as many requests through as a server can bear.

    Args:
        most: The most requests at a time, at least 1.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = float(min(_FIRST, most))
        self._under_way = self._halved = 0
        self._free = Condition()

    @property
    def allowed(self) -> int:
        """How many requests may be under way now."""
        return int(self._allowed)

    def enter(self) -> int:
        """Wait until another request may be sent; the number that is given belongs to `leave`."""
        with self._free:
            self._free.wait_for(lambda: self._under_way < self.allowed)
            self._under_way += 1
            return self._halved

    def leave(self, begun: int, outcome: Outcome) -> None:
        """Note how a request went.

        Args:
            begun: What `enter` gave.
            outcome: How it went.
        """
        with self._free:
            self._under_way -= 1
            if outcome == "busy" and begun == self._halved:
                self._allowed = max(1.0, self._allowed / 2)
                self._halved += 1
            elif outcome == "answered":
                more = 1.0 / self._allowed if self._halved else 1.0
                self._allowed = min(float(self._most), self._allowed + more)
            self._free.notify_all()
