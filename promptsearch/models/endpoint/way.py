"""Which scores a server can give; it is asked once, at the start.

* `nats`: it gives the log-probability of each token in a text, so that losses are like those of
  models that are loaded here. Before they are used, they are compared with what the server writes,
  see `promptsearch.models.endpoint.echo`.
* `first`: it lists the most probable tokens at each place that it writes, and answers are to be
  chosen from, or one token each. Losses are in nats, but bounds: a token that is not listed counts
  as probable as the last one that is, and of an answer that parts from what is written, only the
  tokens up to there count.
* `errors`: it only writes. The loss is then 1 where the text that it writes is wrong, and 0 where
  it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from promptsearch.errors import EndpointDown, EndpointError
from promptsearch.models.endpoint.client import Endpoint, EndpointUnavailable
from promptsearch.models.endpoint.echo import Echo, Lists, find_lists, verify_echo

T = TypeVar("T")

#: Why a chat gives no better scores.
_CHAT = "a chat tells no log-probabilities of a text"
#: Why answers are read from lists although there is an echo.
_PARTIAL = "of a prompt, it tells the log-probabilities of the {} most probable tokens only"
#: The text that a server is sent to see whether it answers at all.
_PROBE = "The capital of France is Paris."


class Way(NamedTuple):
    """How scores come from a server.

    Args:
        scores: `nats`, `first` or `errors`.
        echo: How log-probabilities of a text are read; None where they are not.
        most: The number of most probable tokens that are listed for `first`.
        reason: Why there are no better scores, for people; empty for `nats`.
        unseen: The probability that all tokens together have that are not listed, for `first`: the
            highest on known texts.
    """

    scores: str
    echo: Echo | None = None
    most: int = 0
    reason: str = ""
    unseen: float = 0.0

    @property
    def shifted(self) -> bool:
        """Whether log-probabilities come one place off, and are put right."""
        return self.echo is not None and self.echo.reading != "straight"


def find_way(endpoint: Endpoint, *, listed: bool) -> Way:
    """Ask a server what it can do.

    Args:
        endpoint: The server.
        listed: Whether lists of the most probable tokens tell how probable the answers are that
            will be scored.

    Raises:
        EndpointDown: Nobody answers, or nobody is let in.
        EndpointError: The server answers something else than completions.
    """
    if endpoint.chat:
        found: Echo | EndpointError = EndpointError(_CHAT)
    else:
        found = _reached(lambda: verify_echo(endpoint))
    echo = found if isinstance(found, Echo) else None
    if echo and not (echo.partial and listed):
        return Way("nats", echo)
    if not echo:
        ping(endpoint)  # its log-probabilities cannot be used, but it may still write
    reason = str(found) if echo is None else _PARTIAL.format(echo.most)
    if not listed:
        return Way("errors", reason=reason)
    lists = _reached(lambda: find_lists(endpoint))
    if isinstance(lists, Lists):
        return Way("first", most=lists.most, reason=reason, unseen=lists.unseen)
    if echo:
        return Way("nats", echo)
    return Way("errors", reason=f"{reason}; and of what it writes, {lists}")


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
            "an answer beyond these counts as probable as the last of them, and one that parts "
            "from what it writes as if it had ended there; on known texts, all tokens beyond the "
            f"list had at most {100 * served.get('unseen', 0.0):.2g} % of the probability{because}"
        )
    shifted = ", which come one place off and are put right" if served.get("shifted") else ""
    return f"losses are nats, from the log-probabilities that it gives of a prompt{shifted}"
