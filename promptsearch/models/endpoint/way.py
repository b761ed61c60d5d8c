"""Which scores a server can give; it is asked once, at the start.

* `nats`: it gives the log-probability of each token in a text, so that losses are like those of
  models that are loaded here. Before they are used, they are compared with what the server writes,
  see `promptsearch.models.endpoint.echo`.
* `first`: it lists the most probable tokens at the first place that it writes, and each answer is
  one token. Losses are in nats, but an answer that is not listed counts as probable as the last one
  that is.
* `errors`: it only writes. The loss is then 1 where the text that it writes is wrong, and 0 where
  it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from promptsearch.errors import EndpointDown, EndpointError
from promptsearch.models.endpoint.client import Endpoint, EndpointUnavailable
from promptsearch.models.endpoint.echo import Echo, most_likely, verify_echo

T = TypeVar("T")

#: The text that a server is sent to see whether it answers at all.
_PROBE = "The capital of France is Paris."


class Way(NamedTuple):
    """How scores come from a server.

    Args:
        scores: `nats`, `first` or `errors`.
        echo: How log-probabilities of a text are read; None where they are not.
        most: The number of most probable tokens that are listed for `first`.
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
    ping(endpoint)  # its log-probabilities cannot be used, but it may still write
    if not single:
        return Way("errors", reason=str(echo))
    most = _reached(lambda: most_likely(endpoint))
    if isinstance(most, int):
        return Way("first", most=most, reason=str(echo))
    return Way("errors", reason=f"{echo}; and of what it writes, {most}")


def ping(endpoint: Endpoint) -> None:
    """Check that a server writes.

    Raises:
        EndpointDown: Nobody answers, or nobody is let in.
        EndpointError: The server answers something else than completions.
    """
    try:
        endpoint.complete(_PROBE, max_tokens=1)
    except EndpointUnavailable as error:
        raise EndpointDown(str(error)) from error


def _reached(ask: Callable[[], T]) -> T | EndpointError:
    """What a server can do, or the error that says why it cannot.

    That nobody answers is raised: it is no reason to ask for less.
    """
    try:
        return ask()
    except EndpointUnavailable as error:
        raise EndpointDown(str(error)) from error
    except EndpointDown:
        raise
    except EndpointError as error:
        return error


def losses_of(served: Mapping[str, Any]) -> str:
    """A text that says what losses are with a model behind an endpoint.

    Args:
        served: The model's `served`, as `study.json` holds it.
    """
    scores, reason = served.get("scores"), served.get("reason")
    because = f" ({reason})" if reason else ""
    if scores == "errors":
        return (
            "losses are 0 and 1, not nats: it gives no log-probabilities of a prompt, "
            f"so what it writes is compared{because}"
        )
    if scores == "first":
        return (
            f"losses are nats, from the {served['most']} most probable tokens of what it writes: "
            f"an answer beyond these counts as probable as the last of them{because}"
        )
    shifted = ", which come one place off and are put right" if served.get("shifted") else ""
    return f"losses are nats, from the log-probabilities that it gives of a prompt{shifted}"
