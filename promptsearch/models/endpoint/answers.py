"""What a server's JSON says: each value that is used is checked for its type, size and range.

What is asked for is known: one choice, a text, the log-probabilities of the tokens in a text that
was sent. An answer that says anything else is an `EndpointError`, never a number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from promptsearch.errors import EndpointError
from promptsearch.plain.json import too_deep

#: How many bytes of UTF-8 count as one token where no tokenizer is at hand. A token of English has
#: more than four, so that the estimate is too high and a budget is rather left over than overdrawn.
BYTES_PER_TOKEN = 3
#: The most bytes for a token in a server's count. A count with more is no count of the whole text:
#: some servers leave out what they had kept of it.
_MOST_BYTES_PER_TOKEN = 256
#: The most tokens that a server may have counted.
_MOST_TOKENS = 10_000_000
#: The lowest log-probability in nats (vLLM writes -9999 for -inf), and how far above 0 the rounding
#: of a small dtype may put one.
_LOWEST, _ROUNDING = -10_000.0, 1e-3

#: The most probable tokens at one place: the text of each -> its log-probability in nats.
Likely = Mapping[str, float]


def estimate_tokens(text: str) -> int:
    """The estimated number of tokens in a text, from its bytes in UTF-8, see `BYTES_PER_TOKEN`."""
    return math.ceil(_bytes(text) / BYTES_PER_TOKEN)


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Args:
        text: What it wrote.
        tokens_in: The number of tokens in the prompt, as the server counts them; where it does not
            say, estimated from the bytes.
        tokens_out: The number of tokens in the text, likewise.
        ended: Whether the text came to its end before the last token; None where the server does
            not say.
    """

    text: str
    tokens_in: int
    tokens_out: int
    ended: bool | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Logprobs:
    """What a model thinks of a text, token by token.

    Args:
        tokens: The texts of the tokens; together they are the text, without special tokens before
            it.
        values: The log-probability of each token, given those before it, in nats; None for the
            first where nothing stands before it.
        likely: The most probable tokens at the place of each; None where the server does not say.
        tokens_in: The number of tokens in the whole prompt, as the server counts them.
        written: The number of tokens that the server wrote after it.
    """

    tokens: tuple[str, ...]
    values: tuple[float | None, ...]
    likely: tuple[Likely | None, ...]
    tokens_in: int
    written: int = 0

    @property
    def greedy(self) -> tuple[bool | None, ...]:
        """Whether each token is the most probable at its place; None where the server is silent."""
        return tuple(map(_is_best, self.values, self.likely))

    def tail(self, text: str) -> slice:
        """The tokens that the text ends with.

        Args:
            text: The end of what was sent, such as an answer.

        Raises:
            EndpointError: A token straddles the boundary, so that the text has no log-probability
                of its own; or nothing stands before the text.
        """
        length, begin = 0, len(self.tokens)
        while length < len(text) and begin > 0:
            begin -= 1
            length += len(self.tokens[begin])
        found = "".join(self.tokens[begin:])
        if found != text:
            raise EndpointError(
                f"no token of the model begins where {text!r} begins, its last tokens are "
                f"{list(self.tokens[begin:])}: put a "
                "space before {answer}, or take other answers"
            )
        if self.values[begin] is None:
            raise EndpointError(
                f"nothing stands before {text!r}: the model needs at least one token"
            )
        return slice(begin, len(self.tokens))


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
            self._data = json.loads(body, object_pairs_hook=_once)
            json.dumps(self._data, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise self.strange("whole characters, no halves of surrogate pairs,") from None
        except _Twice:
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
        after = len(tokens) - end
        return Logprobs(tuple(tokens[some]), tuple(nats[some]), tuple(likely[some]), counted, after)

    def first(self) -> Likely:
        """The most probable tokens at the first place that was written."""
        found = self._get(
            self._choice(), "logprobs", Mapping, "log-probabilities of what was written"
        )
        # Chats have this form, and llama.cpp's server uses it everywhere.
        if isinstance(found.get("content"), list):
            (first,) = found["content"][:1] or [None]
            listed = first.get("top_logprobs") if isinstance(first, Mapping) else None
            if not (isinstance(listed, list) and all(isinstance(each, Mapping) for each in listed)):
                raise self.strange("the most probable tokens at the first place")
            listed = {
                self._get(each, "token", str): each.get("logprob") for each in reversed(listed)
            }
        else:
            listed = (self._get(found, "top_logprobs", list)[:1] or [None])[0]
        if not (likely := self._likely(listed)):
            raise self.strange("the most probable tokens at the first place")
        return likely

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
            if counted is None or counted * _MOST_BYTES_PER_TOKEN < _bytes(text)
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
        # Either nothing was written, or the one token that some servers must write.
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


class _Twice(ValueError):
    """A key stands twice in one mapping."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _is_best(value: float | None, likely: Likely | None) -> bool | None:
    """Whether none of the most probable tokens is more probable."""
    return None if value is None or not likely else value >= max(likely.values())


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
