"""Which scores a server can give, asked of it once, at the start.

* `nats`: it gives the log-probability of each token of a text, so that losses are those of models
  that are loaded here. What it gives is compared with what it writes first, see
  `promptsearch.endpoint.echo`.
* `first`: it lists the most probable tokens of what it writes, and all answers are one token:
  losses are nats, but an answer that is not listed counts as probable as the last one that is.
* `errors`: it only writes; the loss is then 1 where the text that it writes is wrong, and 0 where
  it is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from promptsearch.endpoint.client import Endpoint, EndpointUnavailable
from promptsearch.endpoint.echo import Echo, most_likely, verify_echo
from promptsearch.errors import EndpointDown, EndpointError

T = TypeVar("T")

#: What a server is asked to see whether it answers at all.
_PROBE = "The capital of France is Paris."


class Way(NamedTuple):
    """How scores come from a server.

    Args:
        scores: `nats`, `first` or `errors`.
        echo: How log-probabilities of a text are read; None: they are not.
        most: The number of the most probable tokens that are listed for `first`.
        reason: Why there are no better scores, for people; empty for `nats`.
    """

    scores: str
    echo: Echo | None = None
    most: int = 0
    reason: str = ""

    @property
    def shifted(self) -> bool:
        """Whether log-probabilities come one place off, and are put right."""
        return self.echo is not None and self.echo.reading != "straight"


def find_way(endpoint: Endpoint, *, single: bool) -> Way:
    """Ask a server what it can do.

    Args:
        endpoint: The server.
        single: Whether all answers that will be scored are one token.

    Raises:
        EndpointDown: Nobody answers, or nobody is let in.
        EndpointError: The server answers something else than completions.
    """
    if endpoint.chat:
        ping(endpoint)
        return Way("errors", reason="a chat tells no log-probabilities of a text")
    echo = _reached(lambda: verify_echo(endpoint))
    if isinstance(echo, Echo):
        return Way("nats", echo)
    ping(endpoint)  # whatever is wrong with its log-probabilities: does it write?
    if not single:
        return Way("errors", reason=str(echo))
    most = _reached(lambda: most_likely(endpoint))
    if isinstance(most, int):
        return Way("first", most=most, reason=str(echo))
    return Way("errors", reason=f"{echo}; and of what it writes, {most}")


def ping(endpoint: Endpoint) -> None:
    """See that a server writes.

    Raises:
        EndpointDown: Nobody answers, or nobody is let in.
        EndpointError: The server answers something else than completions.
    """
    try:
        endpoint.complete(_PROBE, max_tokens=1)
    except EndpointUnavailable as error:
        raise EndpointDown(str(error)) from error


def _reached(ask: Callable[[], T]) -> T | EndpointError:
    """What a server can do, or why it cannot; that nobody answers is no reason to ask for less."""
    try:
        return ask()
    except EndpointUnavailable as error:
        raise EndpointDown(str(error)) from error
    except EndpointDown:
        raise
    except EndpointError as error:
        return error
