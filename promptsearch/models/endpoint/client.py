"""One server and one of its models: what it writes, and what it thinks of a text.

A request is sent again, a limited number of times, where another attempt may help: the server
cannot be reached or takes too long, asks to wait (429), or fails (5xx). Everything else is an
`EndpointError` at once. The key of the server is read from the environment when a request is sent.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random

from promptsearch.errors import EndpointDown, EndpointError
from promptsearch.models.endpoint.answers import Answer, Completion, Likely, Logprobs
from promptsearch.models.endpoint.secret import check_key, hide, read_key
from promptsearch.models.endpoint.transport import Response, TooLong, Transport

log = logging.getLogger(__name__)

#: The longest time that a server may ask us to wait, in seconds; and the most characters that
#: messages show of what it says.
LONGEST_WAIT, _SHOWN = 60.0, 200
#: The seconds after one word about a failed attempt in which no other is said.
_QUIET = 5.0
#: The statuses after which another attempt may help; 408 and 409 are the server's own time limit
#: and lock.
_AGAIN = (408, 409, 429)
_HINTS = {
    401: "it wants a key, or another one: name the environment variable that holds it with 'key'",
    403: "it wants a key, or another one: name the environment variable that holds it with 'key'",
    404: (
        "it has no such path or model: the URL usually ends in /v1, "
        "and GET URL/models lists the models"
    ),
}


class _Unavailable(EndpointError):
    """A request failed, and another attempt may help."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class EndpointUnavailable(EndpointError):
    """A request failed in all attempts."""


class EndpointRefused(EndpointError):
    """The server does not take such a request."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server, and one of its models.

    Args:
        url: The server's URL up to and including `/v1`; without user, password or query.
        model: The model's name, as the server calls it.
        key: The name of the environment variable that holds the key; None where the server wants
            none.
        seconds: How long an answer may take, from the request to its last byte.
        retries: How often a request is sent again.
        pause: The seconds before it is sent again for the first time; they double each time.
        chat: Whether prompts go to `/chat/completions`, as the message of a user: for servers that
            have nothing else.

    Raises:
        EndpointError: The URL is no URL, or the key's name is no name.

    Example:
        >>> endpoint = Endpoint("http://localhost:8000/v1", "llama")
        >>> endpoint.complete("The capital of France is", max_tokens=3).text  # doctest: +SKIP
        ' Paris.'
    """

    url: str
    model: str
    key: str | None = None
    seconds: float = 60.0
    retries: int = 5
    pause: float = 0.5
    chat: bool = False
    _transport: Transport = field(init=False, repr=False, compare=False)
    _told: list[float] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))
        check_key(self.key)
        object.__setattr__(self, "_transport", Transport(self.seconds))

    def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Completion:
        """Let the model go on with a text.

        Args:
            prompt: The text.
            max_tokens: The most tokens to write.
            temperature: The temperature that tokens are drawn with; at 0 the most probable token is
                always taken.
            top_p: The probability that the candidates have together from which they are drawn.
            seed: A seed for servers that can draw the same text again.
            stop: The texts before which the continuation ends.

        Raises:
            EndpointError: The request failed for good, or the answer is no completion.
            EndpointDown: The server lets nobody in.
        """
        given: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        given |= (
            {"messages": [{"role": "user", "content": prompt}]} if self.chat else {"prompt": prompt}
        )
        given |= {"top_p": top_p} if top_p < 1 else {}
        given |= {"seed": seed} if seed is not None else {}
        given |= {"stop": list(stop)} if stop else {}
        answer = self._post("/chat/completions" if self.chat else "/completions", given)
        return answer.completion(prompt, max_tokens, chat=self.chat)

    def logprobs(self, prompt: str, most: int = 1, written: int = 0) -> Logprobs:
        """The log-probability of each token of a text, where the server gives them.

        The tokens are counted: a server that does not know `echo` sends, without an error, the
        log-probabilities of the text that it wrote itself.

        Args:
            prompt: The text.
            most: How many of the most probable tokens to ask for at each place.
            written: How many tokens the server may write; where it does not accept 0, it is asked
                again with 1.

        Raises:
            EndpointError: The server does not give them, or gives others; or as for `complete`.
            EndpointDown: The server lets nobody in.
        """
        given = {
            "model": self.model,
            "prompt": prompt,
            "echo": True,
            "logprobs": most,
            "temperature": 0.0,
        }
        try:
            return self._post("/completions", {**given, "max_tokens": written}).logprobs(prompt)
        except EndpointRefused:  # some servers want to write at least a token
            if written:
                raise
            return replace(
                self._post("/completions", {**given, "max_tokens": 1}).logprobs(prompt), written=1
            )

    def likely(self, prompt: str, most: int = 1) -> Likely:
        """The most probable tokens after a text, where the server gives them.

        Args:
            prompt: The text.
            most: How many tokens to ask for.

        Raises:
            EndpointError: The server does not give them; or as for `complete`.
            EndpointDown: The server lets nobody in.
        """
        given = {
            "model": self.model,
            "prompt": prompt,
            "logprobs": most,
            "max_tokens": 1,
            "temperature": 0.0,
        }
        return self._post("/completions", given).first()

    # Private.

    def _post(self, path: str, given: Mapping[str, Any]) -> Answer:
        """The server's answer, after as many attempts as it takes."""
        attempts = Retrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=self._wait,
            retry=retry_if_exception_type(_Unavailable),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return attempts(self._attempt, path, given)
        except _Unavailable as error:
            raise EndpointUnavailable(
                f"{error} (after {self.retries + 1} attempts)"
            ) from error.__cause__

    def _wait(self, state: RetryCallState) -> float:
        """The seconds before the next attempt: as the server asks, or twice as many each time."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _Unavailable) else None
        # The random part keeps requests from all coming back at once.
        own = wait_exponential(self.pause, LONGEST_WAIT) + wait_random(0, self.pause)
        return float(own(state)) if asked is None else asked

    def _tell(self, state: RetryCallState) -> None:
        """Say now and then that a request is sent again: who waits must see for what."""
        now = time.monotonic()
        if not self._told or now - self._told[-1] > _QUIET:
            self._told[:] = [now]
            error = state.outcome.exception() if state.outcome else None
            log.warning("%s; the request is sent again", error)

    def _attempt(self, path: str, given: Mapping[str, Any]) -> Answer:
        headers = (
            {} if self.key is None else {"Authorization": f"Bearer {read_key(self.key, self.url)}"}
        )
        try:
            response = self._transport.post(self.url + path, json.dumps(given).encode(), headers)
        except TooLong as error:
            raise EndpointError(
                f"the answer of the endpoint {self.url} {error}: expected a short one"
            ) from None
        except (TimeoutError, httpx2.TimeoutException):
            raise _Unavailable(
                f"the endpoint {self.url} did not answer within {self.seconds:g} seconds"
            ) from None
        except httpx2.TransportError as error:
            reason = self._shown(str(error) or type(error).__name__)
            raise _Unavailable(
                f"the endpoint {self.url} cannot be reached, or broke off: {reason}"
            ) from None
        except (
            httpx2.HTTPError,
            httpx2.InvalidURL,
            httpx2.StreamError,
            OSError,
            ValueError,
        ) as error:
            reason = self._shown(f"{type(error).__name__}: {error}")
            raise EndpointError(
                f"the answer of the endpoint {self.url} cannot be read: {reason}"
            ) from None
        if response.status != 200:
            raise self._refusal(response)
        try:
            body = response.body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise EndpointError(
                f"the endpoint {self.url} answered something else than JSON: "
                f"{self._shown(response.body)}"
            ) from None
        return Answer(hide(body, self.key, short=False), self.url, self._shown)

    def _refusal(self, response: Response) -> EndpointError:
        status = response.status
        text = (
            f"the endpoint {self.url} answered {status} to a request for the model '{self.model}'"
        )
        said = f". It says: {self._shown(response.body)}" if response.body.strip() else ""
        if status in _HINTS:
            return EndpointDown(f"{text}: {_HINTS[status]}{said}")
        if status in _AGAIN or status >= 500:
            wait = _retry_after(response.retry_after)
            if wait is not None and wait > LONGEST_WAIT:
                return EndpointUnavailable(
                    f"{text}, and asks to come back in {wait:.0f} seconds{said}"
                )
            return _Unavailable(f"{text}{said}", wait)
        return EndpointRefused(f"{text}{said}")

    def _shown(self, given: bytes | str) -> str:
        """What messages show of what a server said: some characters on one line, never the key."""
        text = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
        text = " ".join(hide(text, self.key).split())
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def check_url(url: str) -> str:
    """The URL without a slash at its end.

    Raises:
        EndpointError: It is no URL, or holds what may be a secret; the message does not repeat it.
    """
    try:
        parsed = httpx2.URL(url.strip())
    except (httpx2.InvalidURL, TypeError, ValueError) as error:
        raise EndpointError(
            "the endpoint's URL cannot be read: expected http://HOST:PORT/v1"
        ) from error.__cause__
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise EndpointError(
            "the endpoint's URL holds a user, a password or a query, which may be secrets: "
            "leave them out, and name the environment variable that holds the key with 'key'"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise EndpointError(
            "the endpoint's URL should look like http://HOST:PORT/v1 or https://HOST/v1"
        )
    return str(parsed).rstrip("/")


def _retry_after(given: str | None) -> float | None:
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
