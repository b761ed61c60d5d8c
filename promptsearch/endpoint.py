"""The client of a server with the completions API of OpenAI, which vLLM, SGLang, llama.cpp and many others offer.

    POST URL/completions {"model": ..., "prompt": ..., "max_tokens": ...}

A request is sent again, a limited number of times, where another attempt may help: the server cannot be reached or takes too
long, asks to wait (429), or fails (5xx). Everything else is an `EndpointError` at once. The key of the server is read from the
environment when a request is sent, and is taken out of whatever the server says before that is shown.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random

from promptsearch.errors import EndpointDown, EndpointError

#: Bytes of UTF-8 that count as one token where no tokenizer is at hand: few enough for the estimate to be above what English
#: takes (more than four), so that a budget is rather left over than overdrawn.
BYTES_PER_TOKEN = 3
#: The longest time that a server may ask to wait, in seconds; and the most bytes and characters that are read and shown of it.
LONGEST_WAIT, _BODY, _SHOWN = 60.0, 2**24, 200
#: Answers after which another attempt may help; 408 and 409 are the server's own time limit and lock.
_AGAIN = (408, 409, 429)
_HINTS = {
    401: "it wants a key, or another one: name the environment variable that holds it with 'key'",
    403: "it wants a key, or another one: name the environment variable that holds it with 'key'",
    404: "it has no such path or model: the URL usually ends in /v1, and GET URL/models lists the models",
}


class _Unavailable(EndpointError):
    """Another attempt may help."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class EndpointUnavailable(EndpointError):
    """No attempt helped."""


class EndpointRefused(EndpointError):
    """The server does not take such a request."""


def estimate_tokens(text: str) -> int:
    """How many tokens a text may have, from its bytes of UTF-8, see `BYTES_PER_TOKEN`."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Args:
        text: What it wrote.
        tokens_in: Of the prompt, as the server counts them; where it does not say, estimated from the bytes.
        tokens_out: Of the text, likewise.
    """

    text: str
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Logprobs:
    """What a model thinks of a text, token by token.

    Args:
        tokens: Their texts; together they are the text, without special tokens before it.
        values: Log-probability of each, given those before it, in nats; None for the first, which nothing stands before.
        greedy: Whether each is the most probable one at its place; None where the server does not say.
        tokens_in: Of the whole prompt, as the server counts them.
    """

    tokens: tuple[str, ...]
    values: tuple[float | None, ...]
    greedy: tuple[bool | None, ...]
    tokens_in: int

    def tail(self, text: str) -> slice:
        """The tokens that the text ends with.

        Args:
            text: The end of what was sent, such as an answer.

        Raises:
            EndpointError: A token straddles the boundary, so that the text has no log-probability of its own.
        """
        length, begin = 0, len(self.tokens)
        while length < len(text) and begin > 0:
            begin -= 1
            length += len(self.tokens[begin])
        found = "".join(self.tokens[begin:])
        if found != text:
            raise EndpointError(
                f"no token of the model begins where {text!r} begins, its last tokens are {list(self.tokens[begin:])}: put a "
                "space before {answer}, or take other answers"
            )
        if self.values[begin] is None:
            raise EndpointError(f"nothing stands before {text!r}: the model needs at least one token")
        return slice(begin, len(self.tokens))


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server, and one of its models.

    Args:
        url: Up to and including `/v1`; without user, password or query.
        model: As the server calls it.
        key: The name of the environment variable that holds the key; None: the server wants none.
        seconds: How long an answer may take.
        retries: How often a request is sent again.
        pause: Seconds before it is sent again for the first time; they double each time.
        chat: Whether prompts go to `/chat/completions`, as the message of a user: for servers that have nothing else.

    Raises:
        EndpointError: The URL or the key's name is none.

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
    _client: httpx2.Client = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))
        check_key(self.key)
        object.__setattr__(self, "_client", httpx2.Client(timeout=self.seconds))
        weakref.finalize(self, self._client.close)

    def complete(
        self, prompt: str, *, max_tokens: int, temperature: float = 0.0, seed: int | None = None, stop: Sequence[str] = ()
    ) -> Completion:
        """Let the model go on with a text.

        Args:
            prompt: The text.
            max_tokens: The most tokens to write.
            temperature: 0: always the most probable token.
            seed: For servers that can draw the same text again.
            stop: Texts before which it ends.

        Raises:
            EndpointError: The request failed for good, or the answer is none.
            EndpointDown: The server lets nobody in.
        """
        given: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens, "temperature": temperature}
        given |= {"messages": [{"role": "user", "content": prompt}]} if self.chat else {"prompt": prompt}
        given |= {"seed": seed} if seed is not None else {}
        given |= {"stop": list(stop)} if stop else {}
        data = self._post("/chat/completions" if self.chat else "/completions", given)
        choice = self._choice(data)
        text = self._get(choice, "message", dict).get("content") if self.chat else choice.get("text")
        if not isinstance(text, str):
            raise self._strange("a text", data)
        counted = self._usage(data, "prompt_tokens"), self._usage(data, "completion_tokens")
        return Completion(
            text,
            estimate_tokens(prompt) if counted[0] is None else counted[0],
            min(max_tokens, estimate_tokens(text)) if counted[1] is None else counted[1],
        )

    def logprobs(self, prompt: str) -> Logprobs:
        """The log-probability of each token of a text, where the server gives them.

        They are counted: a server that leaves out `echo` sends those of the text that it wrote itself, without an error.

        Args:
            prompt: The text.

        Raises:
            EndpointError: The server does not give them, or gives others; or as `complete`.
            EndpointDown: The server lets nobody in.
        """
        given = {"model": self.model, "prompt": prompt, "echo": True, "logprobs": 1, "temperature": 0.0}
        try:
            data = self._post("/completions", {**given, "max_tokens": 0})
        except EndpointRefused:  # some servers want to write at least a token
            data = self._post("/completions", {**given, "max_tokens": 1})
        found = self._choice(data).get("logprobs")
        if not isinstance(found, Mapping):
            raise self._strange("log-probabilities of the prompt", data)
        tokens, values = (self._get(found, name, list) for name in ("tokens", "token_logprobs"))
        best = found.get("top_logprobs") or [None] * len(tokens)
        typed = (
            len(tokens) == len(values) == len(best)
            and all(isinstance(token, str) for token in tokens)
            and all(value is None or _is_number(value) for value in values)
        )
        if not typed:
            raise self._strange("as many log-probabilities as tokens", data)
        begin, end = self._span(prompt, tokens, data)
        if any(value is None for value in values[max(begin, 1) : end]):
            raise self._strange("a log-probability of every token but the first", data)
        counted = self._usage(data, "prompt_tokens")
        greedy = [_is_best(value, top) for value, top in zip(values, best, strict=True)]
        return Logprobs(
            tuple(tokens[begin:end]), tuple(values[begin:end]), tuple(greedy[begin:end]), end if counted is None else counted
        )

    # Private.

    def _span(self, prompt: str, tokens: list[str], data: Any) -> tuple[int, int]:
        r"""Where the tokens of the prompt begin and end, special ones before and the one that was written after it left out.

        Bytes that are no character of their own come back as a replacement character, or as `bytes:\xe2`: only a text without
        these can be compared with the prompt, others must have the number of tokens that the server counted.
        """
        counted = self._usage(data, "prompt_tokens")
        ends = [len(tokens), len(tokens) - 1]  # with nothing written, or with the token that some servers must write
        if counted is not None and counted not in ends:
            raise self._strange(f"log-probabilities of the prompt's {counted} tokens, and of no others", data)
        for end in ends if counted is None else [counted]:
            for begin in (0, 1):
                if "".join(tokens[begin:end]) == prompt:
                    return begin, end
            broken = any("\ufffd" in token or token.startswith("bytes:") for token in tokens[:end])
            if broken and end == counted:
                return 0, end
        raise self._strange("log-probabilities of the prompt's own tokens", data)

    def _post(self, path: str, given: Mapping[str, Any]) -> Any:
        """The server's answer as JSON, after as many attempts as it takes."""
        attempts = Retrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=self._wait,
            retry=retry_if_exception_type(_Unavailable),
            reraise=True,
        )
        try:
            return attempts(self._attempt, path, given)
        except _Unavailable as error:
            raise EndpointUnavailable(f"{error} (after {self.retries + 1} attempts)") from error.__cause__

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: what the server asks for, or twice as many each time."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _Unavailable) else None
        own = wait_exponential(self.pause, LONGEST_WAIT) + wait_random(0, self.pause)  # so that not all come back at once
        return float(own(state)) if asked is None else asked

    def _attempt(self, path: str, given: Mapping[str, Any]) -> Any:
        end = time.monotonic() + self.seconds
        body = bytearray()
        try:
            headers = self._headers()
            with self._client.stream("POST", self.url + path, json=dict(given), headers=headers) as answer:
                for part in answer.iter_bytes():
                    body += part
                    # The client's own limit is one of silence: a server that sends a byte a second would never reach it.
                    if time.monotonic() > end:
                        raise _Unavailable(f"the endpoint {self.url} took longer than {self.seconds:g} seconds")
                    if len(body) > _BODY:
                        raise EndpointError(f"the endpoint {self.url} sent more than {_BODY} bytes in answer to one request")
        except httpx2.TimeoutException as error:
            raise _Unavailable(f"the endpoint {self.url} did not answer within {self.seconds:g} seconds") from error
        except httpx2.TransportError as error:
            reason = self._shown(str(error) or type(error).__name__)
            raise _Unavailable(f"the endpoint {self.url} cannot be reached, or broke off: {reason}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            reason = self._shown(f"{type(error).__name__}: {error}")
            raise EndpointError(f"the answer of the endpoint {self.url} cannot be read: {reason}") from error
        if answer.status_code != 200:
            raise self._refusal(answer, bytes(body))
        try:
            return json.loads(body)
        except ValueError as error:  # JSON and UTF-8 alike
            raise EndpointError(
                f"the endpoint {self.url} answered something else than JSON: {self._shown(bytes(body))}"
            ) from error

    def _refusal(self, answer: httpx2.Response, body: bytes) -> EndpointError:
        status = answer.status_code
        text = f"the endpoint {self.url} answered {status} to a request for the model '{self.model}'"
        said = f". It says: {self._shown(body)}" if body.strip() else ""
        if status in _HINTS:
            return EndpointDown(f"{text}: {_HINTS[status]}{said}")
        if status in _AGAIN or status >= 500:
            wait = _retry_after(answer.headers.get("retry-after"))
            if wait is not None and wait > LONGEST_WAIT:
                return EndpointUnavailable(f"{text}, and asks to come back in {wait:.0f} seconds{said}")
            return _Unavailable(f"{text}{said}", wait)
        return EndpointRefused(f"{text}{said}")

    def _headers(self) -> dict[str, str]:
        if self.key is None:
            return {}
        return {"Authorization": f"Bearer {self._secret()}"}

    def _secret(self) -> str:
        secret = os.environ.get(self.key or "", "").strip()
        if not secret:
            raise EndpointDown(f"the environment variable {self.key} is empty: it should hold the key of {self.url}")
        if not (secret.isascii() and secret.isprintable()):  # the client would show it
            raise EndpointDown(f"the environment variable {self.key} holds characters that no key has: look at how it is set")
        return secret

    def _shown(self, given: bytes | str) -> str:
        """What a server said as a message may show it: some characters on one line, and never the key."""
        text = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
        secret = os.environ.get(self.key or "", "").strip()
        if secret:
            text = text.replace(secret, "***")
        text = " ".join(text.split())
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")

    def _strange(self, expected: str, data: Any) -> EndpointError:
        return EndpointError(f"expected {expected} from the endpoint {self.url}, got {self._shown(json.dumps(data))}")

    def _choice(self, data: Any) -> Mapping[str, Any]:
        choices = data.get("choices") if isinstance(data, Mapping) else None
        if not (isinstance(choices, list) and choices and isinstance(choices[0], Mapping)):
            raise self._strange("'choices' with one in it", data)
        return choices[0]

    def _get(self, data: Mapping[str, Any], name: str, kind: type) -> Any:
        if not isinstance(data.get(name), kind):
            raise self._strange(f"'{name}' as a {kind.__name__}", data)
        return data[name]

    def _usage(self, data: Any, name: str) -> int | None:
        """How many tokens the server counted; None where it does not say."""
        usage = data.get("usage")
        counted = usage.get(name) if isinstance(usage, Mapping) else None
        if usage is not None and not isinstance(usage, Mapping):
            raise self._strange("'usage' as a mapping", data)
        if counted is not None and (type(counted) is not int or counted < 0):
            raise self._strange(f"'{name}' as a number of tokens", data)
        return counted


def check_url(url: str) -> str:
    """A URL without a slash at its end.

    Raises:
        EndpointError: It is none, or holds what may be a secret; the message does not repeat it.
    """
    try:
        parsed = httpx2.URL(url.strip())
    except (httpx2.InvalidURL, TypeError, ValueError) as error:
        raise EndpointError("the endpoint's URL cannot be read: expected http://HOST:PORT/v1") from error.__cause__
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise EndpointError(
            "the endpoint's URL holds a user, a password or a query, which may be secrets: leave them out, and name the "
            "environment variable that holds the key with 'key'"
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise EndpointError("the endpoint's URL should look like http://HOST:PORT/v1 or https://HOST/v1")
    return str(parsed).rstrip("/")


def check_key(key: str | None) -> None:
    """See that a key is named, not given.

    Raises:
        EndpointError: It is no name of an environment variable; the message does not repeat it.
    """
    if key is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key):
        raise EndpointError("'key' is the name of an environment variable, such as OPENAI_API_KEY, never the key itself")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_best(value: float | None, top: Any) -> bool | None:
    """Whether none of the most probable tokens is more probable."""
    if value is None or not isinstance(top, Mapping) or not top or not all(map(_is_number, top.values())):
        return None
    return bool(value >= max(top.values()))


def _retry_after(given: str | None) -> float | None:
    """Seconds that a server asks to wait, given as such or as a date."""
    if given is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", given.strip()):
        return float(given)
    try:
        date = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
