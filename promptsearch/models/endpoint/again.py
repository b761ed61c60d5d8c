"""Which requests are sent again, and when: twice as late each time, or when the server says so."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random

from promptsearch.errors import EndpointError

T = TypeVar("T")

log = logging.getLogger(__name__)

#: The longest time that a server may ask us to wait, in seconds.
LONGEST_WAIT = 60.0
#: The seconds after one word about a failed attempt in which no other is said.
_QUIET = 5.0


class Unavailable(EndpointError):
    """A request failed, and another attempt may help.

    Args:
        text: What happened.
        wait: After how many seconds the server wants it, where it says so.
        busy: Whether the server is asked too much.
    """

    def __init__(self, text: str, wait: float | None = None, *, busy: bool = False) -> None:
        super().__init__(text)
        self.wait, self.busy = wait, busy


class Again:
    """Sends a request again until it is answered, or has failed too often.

    Args:
        retries: How often it is sent again.
        pause: The seconds before it is sent again for the first time; they double each time.
    """

    def __init__(self, retries: int, pause: float) -> None:
        self._retries, self._pause = retries, pause
        self._told = float("-inf")

    def until_answered(self, send: Callable[[], T]) -> T:
        """What `send` gives, after as many attempts as it takes.

        Raises:
            Unavailable: All attempts failed.
        """
        attempts = Retrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=self._wait,
            retry=retry_if_exception_type(Unavailable),
            before_sleep=self._tell,
            reraise=True,
        )
        return attempts(send)

    def _wait(self, state: RetryCallState) -> float:
        """The seconds before the next attempt: as the server asks, or twice as many each time."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, Unavailable) else None
        # The random part keeps requests from all coming back at once.
        own = wait_exponential(self._pause, LONGEST_WAIT) + wait_random(0, self._pause)
        return float(own(state)) if asked is None else asked

    def _tell(self, state: RetryCallState) -> None:
        """Say now and then that a request is sent again: who waits must see for what."""
        now = time.monotonic()
        if now - self._told > _QUIET:
            self._told = now
            error = state.outcome.exception() if state.outcome else None
            log.warning("%s; the request is sent again", error)


def seconds_until(given: str | None) -> float | None:
    """The seconds that a server asks us to wait; it gives them as a number or as a date."""
    if given is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", given.strip()):
        return float(given)
    try:
        date = parsedate_to_datetime(given)
        return max(
            0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        )
    except (ValueError, TypeError, OverflowError):
        return None
