"""What a server's JSON says: each value that is used is checked for its type, size and range.

What is asked for is known: one choice, a text, the log-probabilities of the tokens in a text that
was sent. An answer that says anything else is an `EndpointError`, never a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from promptsearch.errors import EndpointError
from promptsearch.models.endpoint.said import (
    Completion,
    Likely,
    Logprobs,
    Place,
    bytes_of,
    estimate_tokens,
)
from promptsearch.plain.json import Twice, once, too_deep

#: The most bytes for a token in a server's count. A count with more is no count of the whole text:
#: some servers leave out what they had kept of it.
_MOST_BYTES_PER_TOKEN = 256
#: The most tokens that a server may have counted.
_MOST_TOKENS = 10_000_000
#: The lowest log-probability in nats (vLLM writes -9999 for -inf), and how far above 0 the rounding
#: of a small dtype may put one.
_LOWEST, _ROUNDING = -10_000.0, 1e-3


class Answer:
    """The JSON of one answer.

    Args:
        body: The body of the answer as it came, the key taken out.
        url: The URL of the server.
        shown: Turns what came into what messages show of it.

    Raises:
        EndpointError: It is no JSON, or JSON that cannot be kept.
    """

    def __init__(self, body: str, url: str, shown: Callable[[str], str]) -> None:
        self._body, self._url, self._shown = body, url, shown
        if too_deep(body):
            raise self.strange("JSON that is not nested so deep")
        try:
            self._data = json.loads(body, object_pairs_hook=once)
            json.dumps(self._data, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise self.strange("whole characters, no halves of surrogate pairs,") from None
        except Twice:
            raise self.strange("each key once in a mapping") from None
        except ValueError:
            raise EndpointError(
                f"the endpoint {url} answered something else than JSON: {shown(body)}"
            ) from None

    def completion(self, prompt: str, max_tokens: int, *, chat: bool) -> Completion:
        """The text that was written.

        Args:
            prompt: The prompt that was sent.
            max_tokens: The most tokens that were asked for.
            chat: Whether it is the answer to a message.
        """
        choice = self._choice()
        text = self._get(choice, "message", Mapping).get("content") if chat else choice.get("text")
        if not isinstance(text, str):
            raise self.strange("a text")
        out = min(max_tokens, estimate_tokens(text))
        return Completion(
            text,
            self._count("prompt_tokens", prompt, estimate_tokens(prompt)),
            self._count("completion_tokens", text, out),
            {"stop": True, "length": False}.get(str(choice.get("finish_reason"))),
        )

    def logprobs(self, prompt: str) -> Logprobs:
        """The log-probabilities of the tokens of the prompt, and of no others.

        Args:
            prompt: The prompt that was sent.
        """
        found = self._get(self._choice(), "logprobs", Mapping, "log-probabilities of the prompt")
        tokens, values = (self._get(found, name, list) for name in ("tokens", "token_logprobs"))
        listed = found.get("top_logprobs") or [None] * len(tokens)
        if not (isinstance(listed, list) and len(tokens) == len(values) == len(listed)):
            raise self.strange("as many log-probabilities as tokens")
        if not all(isinstance(token, str) for token in tokens):
            raise self.strange("as many log-probabilities as tokens, which are text,")
        nats = [None if value is None else self._nats(value) for value in values]
        likely = [self._likely(each) for each in listed]
        begin, end = self._span(prompt, tokens)
        if any(value is None for value in nats[max(begin, 1) : end]):
            raise self.strange("a log-probability of every token but the first")
        some = slice(begin, end)
        counted = self._count("prompt_tokens", prompt, end)
        return Logprobs(tuple(tokens[some]), tuple(nats[some]), tuple(likely[some]), counted)

    def places(self) -> tuple[Place, ...]:
        """What was written, token by token, each with the most probable ones at its place."""
        found = self._get(
            self._choice(), "logprobs", Mapping, "log-probabilities of what was written"
        )
        # Chats have this form, and llama.cpp's server uses it everywhere.
        if isinstance(found.get("content"), list):
            places = [self._place(each) for each in found["content"]]
        else:
            tokens = self._get(found, "tokens", list)
            listed = self._get(found, "top_logprobs", list)
            if not all(isinstance(token, str) for token in tokens) or len(tokens) != len(listed):
                raise self.strange("the most probable tokens beside each token")
            places = [
                Place(token, self._likely(each) or {})
                for token, each in zip(tokens, listed, strict=True)
            ]
        if not places or not places[0].likely:
            raise self.strange("the most probable tokens at the first place")
        # Behind a place without a list, nothing is known.
        known = next((i for i, place in enumerate(places) if not place.likely), len(places))
        return tuple(places[:known])

    def strange(self, expected: str) -> EndpointError:
        """The error for an answer that is not what it should be.

        Args:
            expected: What the answer should have held.
        """
        return EndpointError(
            f"expected {expected} from the endpoint {self._url}, got {self._shown(self._body)}"
        )

    # Private.

    def _choice(self) -> Mapping[str, Any]:
        choices = self._data.get("choices") if isinstance(self._data, Mapping) else None
        if not (
            isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], Mapping)
        ):
            raise self.strange("'choices' with one in it")
        if choices[0].get("index") not in (None, 0):
            raise self.strange("the choice with index 0")
        return choices[0]

    def _place(self, given: Any) -> Place:
        listed = given.get("top_logprobs") if isinstance(given, Mapping) else None
        if not (isinstance(listed, list) and all(isinstance(each, Mapping) for each in listed)):
            raise self.strange("the most probable tokens at each place")
        likely = self._likely(
            # Of tokens with the same text, the first is the most probable one.
            {self._get(each, "token", str): each.get("logprob") for each in reversed(listed)}
        )
        return Place(self._get(given, "token", str), likely or {})

    def _get(self, data: Mapping[str, Any], name: str, kind: type, expected: str = "") -> Any:
        if not isinstance(data.get(name), kind):
            raise self.strange(expected or f"'{name}' as a {kind.__name__.lower()}")
        return data[name]

    def _nats(self, value: Any) -> float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and _LOWEST <= value <= _ROUNDING):  # NaN is refused, too
            what = f"numbers from {_LOWEST:g} to 0, not {self._shown(repr(value))}"
            raise self.strange(f"as many log-probabilities as tokens, {what},")
        return min(float(value), 0.0)

    def _likely(self, listed: Any) -> Likely | None:
        if not listed and not isinstance(listed, (int, str)):
            return None
        if not isinstance(listed, Mapping):
            raise self.strange("'top_logprobs' with a mapping of tokens for each place")
        return {token: self._nats(value) for token, value in listed.items()}

    def _count(self, name: str, text: str, otherwise: int) -> int:
        """The number of tokens that the server counted in a text.

        It is `otherwise` where the server does not say, or did not count the whole text.
        """
        counted = self._usage(name)
        return (
            otherwise
            if counted is None or counted * _MOST_BYTES_PER_TOKEN < bytes_of(text)
            else counted
        )

    def _usage(self, name: str) -> int | None:
        usage = self._data.get("usage")
        if usage is not None and not isinstance(usage, Mapping):
            raise self.strange("'usage' as a mapping")
        counted = None if usage is None else usage.get(name)
        if counted is not None and (type(counted) is not int or not 0 <= counted <= _MOST_TOKENS):
            raise self.strange(f"'{name}' as a number of tokens")
        return counted

    def _span(self, prompt: str, tokens: list[str]) -> tuple[int, int]:
        """Where the tokens of the prompt begin and end.

        A special token before it and what was written after it are left out.
        """
        counted = self._usage("prompt_tokens")
        # One token was written, unless the server does not tell those.
        ends = [len(tokens), len(tokens) - 1]
        if counted is not None and not 0 < counted <= len(tokens):
            raise self.strange(
                f"log-probabilities of the prompt's {counted} tokens, and of no others"
            )
        for end in ends if counted is None else [counted]:
            for begin in (0, 1):
                broken = end == counted and any(map(_is_broken, tokens[begin:end]))
                if begin < end and (
                    _spell(tokens[begin:end], prompt)
                    if broken
                    else "".join(tokens[begin:end]) == prompt
                ):
                    return begin, end
        raise self.strange("log-probabilities of the prompt's own tokens")


def _is_broken(token: str) -> bool:
    r"""Whether a token is no text of its own, but bytes within a character.

    Such bytes come as `\ufffd`, or as `bytes:\xe2`.
    """
    return "\ufffd" in token or token.startswith("bytes:")


def _spell(tokens: list[str], prompt: str) -> bool:
    """Whether tokens, some of which are no text of their own, can be those of the prompt.

    Each unreadable piece stands for a character of the prompt or for a part of one; all other
    pieces stand for themselves.
    """
    places = {0}  # the places in the prompt where the next token may begin
    for token in tokens:
        if token.startswith("bytes:"):
            places = {
                place + more
                for place in places
                for more in range(token.count("\\x") + 1)
                if place + more <= len(prompt)
            }
            continue
        for piece in re.findall("\ufffd|[^\ufffd]+", token):
            if piece == "\ufffd":
                places |= {place + 1 for place in places if place < len(prompt)}
            else:
                places = {place + len(piece) for place in places if prompt.startswith(piece, place)}
    return len(prompt) in places
