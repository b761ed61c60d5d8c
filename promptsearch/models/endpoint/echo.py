"""The echo of a server, checked on known texts: are the log-probabilities of tokens really theirs?

The echo is a text that was sent, as it comes back with the log-probability of each token. A server
also says what it would write after a text, and how probable that is. The same token, now within a
longer text that is sent, must have that log-probability in the echo. Where it does not, one mistake
is known and can be mended: a shift by one place. It has two forms. In one, the numbers of the list
stand one place early. In the other, which llama.cpp's Python server shows on models whose texts
begin with no special token, each token is looked up in what the model expects after it, so that its
own number is found among the most probable tokens one place before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

from promptsearch.errors import EndpointDown, EndpointError
from promptsearch.models.endpoint.client import Endpoint, EndpointRefused, EndpointUnavailable
from promptsearch.models.endpoint.said import Logprobs

#: The known texts, each of which goes on in its own way, and what is sent after the token that
#: follows: a token at the end of the list may be right by chance.
_TEXTS = (
    "The capital of France is",
    "One, two, three, four,",
    "Open the door and",
    "It was a good",
)
_MORE = " and so on."
#: How many of the texts are compared: some models go on with what is no text, so not all are.
_COMPARED = 3
#: How far two values of the same log-probability may lie apart, in nats: servers compute a text and
#: its continuation in different kernels.
_NOISE = 0.25
#: How many of the most probable tokens to ask for, at each place of a text and at one place: the
#: first number that a server accepts is taken.
_EACH, _ONE = (100, 20, 5), (1000, 100, 20, 5)


def _straight(found: Logprobs) -> Logprobs:
    return found


def _early(found: Logprobs) -> Logprobs:
    """The echo, put right where the number of each token stands one place before it."""
    return replace(found, values=(None, *found.values[:-1]), likely=(None, *found.likely[:-1]))


def _late(found: Logprobs) -> Logprobs:
    """The echo, put right where each number stands in the list of likely tokens one place before.

    A token that is not in that list has no number.
    """
    likely = (None, *found.likely[:-1])
    values = [
        None if each is None else each.get(token)
        for token, each in zip(found.tokens, likely, strict=True)
    ]
    return replace(found, values=tuple(values), likely=likely)


_READINGS: dict[str, Callable[[Logprobs], Logprobs]] = {
    "straight": _straight,
    "early": _early,
    "late": _late,
}


@dataclass(frozen=True)
class Echo:
    """How the log-probabilities of a server are read.

    Args:
        reading: `straight`: the numbers are right as they come; `early` and `late`: they are put
            right, in the two forms of the shift.
        most: The number of most probable tokens to ask for.
    """

    reading: str = "straight"
    most: int = 1

    @property
    def partial(self) -> bool:
        """Whether only the log-probabilities of the most probable tokens are told."""
        return self.reading == "late"

    def read(self, endpoint: Endpoint, text: str, end: str) -> tuple[float, bool | None, int]:
        """How probable the end of a text is.

        Args:
            endpoint: The server.
            text: The whole text.
            end: What it ends with, such as an answer.

        Returns:
            The log-probability of the end in nats; whether each of its tokens is the most probable
            one, None where the server does not say; and the number of tokens in the text.

        Raises:
            EndpointError: The end is not made of whole tokens, or the server does not say how
                probable they are.
        """
        sent = endpoint.logprobs(text, self.most)
        tail = sent.tail(end)
        found = _READINGS[self.reading](sent)
        values, greedy = found.values[tail], found.greedy[tail]
        if None in values:
            raise EndpointError(
                f"{end!r} is not among the {self.most} tokens that the model finds most probable "
                f"there, and the endpoint {endpoint.url} tells the log-probabilities of no others"
            )
        nats = sum(value for value in values if value is not None)
        return nats, None if None in greedy else all(greedy), sent.tokens_in


def verify_echo(endpoint: Endpoint) -> Echo:
    """Find out how the echo is to be read.

    Raises:
        EndpointError: It cannot be used: there is no echo, or what it says is not what the server
            writes; the message says which.
        EndpointDown: Nobody answers, or nobody is let in.
    """
    first = endpoint.logprobs(_TEXTS[0])
    if None in first.likely[1:]:
        raise EndpointError("it does not say which tokens are the most probable")
    far: dict[str, list[float]] = {name: [] for name in _READINGS}
    for text in _TEXTS:
        if len(far["straight"]) == _COMPARED:
            break
        token, nats = _next(endpoint, text)
        if not token.isprintable() or not token or "\ufffd" in token:
            continue  # a special token or a piece of a character comes back as another text
        found = endpoint.logprobs(text + token + _MORE)
        ends = list(accumulate(map(len, found.tokens)))
        place = bisect_left(ends, len(text) + 1)
        if found.tokens[place] != token or ends[place] != len(text + token):
            continue  # within the longer text, the token is another one: nothing to compare
        for name, reading in _READINGS.items():
            far[name].append(_distance(reading(found), place, token, nats))
    if not far["straight"]:
        raise EndpointError(
            "it cannot be checked, "
            "since what the server writes does not come back as the same token"
        )
    name = min(far, key=lambda each: max(far[each]))  # the first among equals
    if max(far[name]) > _NOISE:
        raise EndpointError(
            "its log-probabilities are not those of the tokens beside which they stand"
        )
    most = _most(_EACH, lambda most: endpoint.logprobs(_TEXTS[0], most)) if name == "late" else 1
    return Echo(name, most)


def _distance(found: Logprobs, place: int, token: str, nats: float | None) -> float:
    """The distance between a token's log-probability and the one that the server writes it with.

    It is in nats, and infinite where one of the two is not known.
    """
    value, likely = found.values[place], found.likely[place]
    if nats is None and likely and token in likely:
        nats = max(likely.values())  # what a server writes is the most probable token
    return float("inf") if value is None or nats is None else abs(value - nats)


class Lists(NamedTuple):
    """What a server lists of the tokens that it writes.

    Args:
        most: The number of most probable tokens at each place.
        unseen: The probability of all others together, the highest on the known texts.
    """

    most: int
    unseen: float


def find_lists(endpoint: Endpoint) -> Lists:
    """Find out how many of the most probable tokens a server lists for what it writes.

    Raises:
        EndpointError: It lists none.
        EndpointDown: Nobody answers, or nobody is let in.
    """
    most = _most(_ONE, lambda most: endpoint.places(_TEXTS[0], most))
    return Lists(most, max(endpoint.places(text, most)[0].unseen for text in _TEXTS))


def _next(endpoint: Endpoint, text: str) -> tuple[str, float | None]:
    """The token that the model writes after a text, and its log-probability.

    The log-probability is None where the server does not tell it.
    """
    try:
        likely = endpoint.places(text)[0].likely
    except (EndpointDown, EndpointUnavailable):
        raise
    except EndpointError:
        return endpoint.complete(text, max_tokens=1).text, None
    token = max(likely, key=lambda each: likely[each])
    return token, likely[token]


def _most(counts: Sequence[int], ask: Callable[[int], object]) -> int:
    *high, last = counts
    for most in high:
        try:
            ask(most)
            return most
        except EndpointRefused:
            continue
    ask(last)
    return last
