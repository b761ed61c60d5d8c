"""One server and one of its models: what it writes, and what it thinks of a text.

A request is sent again, a limited number of times, where another attempt may help: the server
cannot be reached or takes too long, asks to wait (429), or fails (5xx). Everything else is an
`EndpointError` at once. The key of the server is read from the environment when a request is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx2

from promptsearch.errors import EndpointDown, EndpointError
from promptsearch.models.endpoint.again import LONGEST_WAIT, Again, Unavailable, seconds_until
from promptsearch.models.endpoint.answers import Answer
from promptsearch.models.endpoint.pace import Outcome, Pace
from promptsearch.models.endpoint.said import Completion, Logprobs, Place
from promptsearch.models.endpoint.secret import check_key, hide, read_key
from promptsearch.models.endpoint.transport import Response, TooLong, Transport
from promptsearch.models.endpoint.url import check_url

#: The most characters that messages show of what a server says.
_SHOWN = 200
#: The statuses after which another attempt may help; 408 and 409 are the server's own time limit
#: and lock.
_AGAIN = (408, 409, 429)
#: The statuses by which a server says that it is asked too much.
_BUSY = (408, 429, 503)
_HINTS = {
    401: "it wants a key, or another one: name the environment variable that holds it with 'key'",
    403: "it wants a key, or another one: name the environment variable that holds it with 'key'",
    404: (
        "it has no such path or model: the URL usually ends in /v1, "
        "and GET URL/models lists the models"
    ),
}


class EndpointUnavailable(EndpointError):
    """A request failed in all attempts."""


class EndpointRefused(EndpointError):
    """The server does not take such a request."""


class Price(NamedTuple):
    """What a token costs in money: one that is read, and one that is written."""

    read: float
    written: float


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
        parallel: The most requests at a time; it may be fewer, see `pace`.
        price: What its tokens cost; None where nobody counts it.

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
    parallel: int = 4
    price: Price | None = None
    _pace: Pace = field(init=False, repr=False, compare=False)
    _transport: Transport = field(init=False, repr=False, compare=False)
    _again: Again = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))
        check_key(self.key)
        object.__setattr__(self, "_transport", Transport(self.seconds))
        object.__setattr__(self, "_pace", Pace(self.parallel))
        object.__setattr__(self, "_again", Again(self.retries, self.pause))

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
        given |= {"top_p": top_p} if top_p < 1 else {}
        given |= {"seed": seed} if seed is not None else {}
        given |= {"stop": list(stop)} if stop else {}
        return self._ask(prompt, given).completion(prompt, max_tokens, chat=self.chat)

    def logprobs(self, prompt: str, most: int = 1) -> Logprobs:
        """The log-probability of each token of a text, where the server gives them.

        The tokens are counted: a server that does not know `echo` sends, without an error, the
        log-probabilities of the text that it wrote itself. It is asked to write one token behind
        the text: some servers refuse to write none, and llama.cpp's Python server takes 0 for as
        many as there is room for.

        Args:
            prompt: The text.
            most: How many of the most probable tokens to ask for at each place.

        Raises:
            EndpointError: The server does not give them, or gives others; or as for `complete`.
            EndpointDown: The server lets nobody in.
        """
        given = {
            "model": self.model,
            "prompt": prompt,
            "echo": True,
            "logprobs": most,
            "max_tokens": 1,
            "temperature": 0.0,
        }
        return self._post("/completions", given).logprobs(prompt)

    def places(self, prompt: str, most: int = 1, tokens: int = 1) -> tuple[Place, ...]:
        """What the model goes on with, each token with the most probable ones at its place.

        Args:
            prompt: The text.
            most: How many of the most probable tokens to ask for at each place.
            tokens: The most tokens to write.

        Raises:
            EndpointError: The server does not give them; or as for `complete`.
            EndpointDown: The server lets nobody in.
        """
        given = {"model": self.model, "max_tokens": tokens, "temperature": 0.0}
        if self.chat:
            given |= {"logprobs": True, "top_logprobs": most}
        else:
            given |= {"logprobs": most}
        return self._ask(prompt, given).places()

    def behind_embeddings(self, embeddings: str, token: int) -> Place:
        """A token behind embeddings, with its log-probability among the most probable ones.

        See `promptsearch.models.endpoint.embeddings`.

        Args:
            embeddings: The embeddings, packed as vLLM takes them.
            token: The id of the only token that may be written.

        Raises:
            EndpointError: As for `complete`.
            EndpointDown: The server lets nobody in.
        """
        given = {
            "model": self.model,
            "prompt_embeds": embeddings,
            "allowed_token_ids": [token],
            "logprobs": 1,
            "max_tokens": 1,
            "temperature": 0.0,
        }
        return self._post("/completions", given).places()[0]

    # Private.

    def _ask(self, prompt: str, given: Mapping[str, Any]) -> Answer:
        """The answer to a text, sent as a user's message where the server chats."""
        if self.chat:
            messages = [{"role": "user", "content": prompt}]
            return self._post("/chat/completions", {**given, "messages": messages})
        return self._post("/completions", {**given, "prompt": prompt})

    def _post(self, path: str, given: Mapping[str, Any]) -> Answer:
        """The server's answer, after as many attempts as it takes."""
        try:
            return self._again.until_answered(lambda: self._paced(path, given))
        except Unavailable as error:
            raise EndpointUnavailable(
                f"{error} (after {self.retries + 1} attempts)"
            ) from error.__cause__

    def _paced(self, path: str, given: Mapping[str, Any]) -> Answer:
        """One attempt, when the server can bear it."""
        begun = self._pace.enter()
        outcome: Outcome = "unknown"
        try:
            answer = self._attempt(path, given)
            outcome = "answered"
            return answer
        except Unavailable as error:
            outcome = "busy" if error.busy else "unknown"
            raise
        finally:
            self._pace.leave(begun, outcome)

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
            raise Unavailable(
                f"the endpoint {self.url} did not answer within {self.seconds:g} seconds",
                busy=True,
            ) from None
        except httpx2.TransportError as error:
            reason = self._shown(str(error) or type(error).__name__)
            raise Unavailable(
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
            wait = seconds_until(response.retry_after)
            if wait is not None and wait > LONGEST_WAIT:
                return EndpointUnavailable(
                    f"{text}, and asks to come back in {wait:.0f} seconds{said}"
                )
            return Unavailable(f"{text}{said}", wait, busy=status in _BUSY)
        return EndpointRefused(f"{text}{said}")

    def _shown(self, given: bytes | str) -> str:
        """What messages show of what a server said: some characters on one line, never the key."""
        text = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
        text = " ".join(hide(text, self.key).split())
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
