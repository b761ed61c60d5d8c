"""What a server says: texts that its model wrote, and how probable the model finds tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from promptsearch.errors import EndpointError

#: How many bytes of UTF-8 count as one token where no tokenizer is at hand. A token of English has
#: more than four, so that the estimate is too high and a budget is rather left over than overdrawn.
BYTES_PER_TOKEN = 3

#: The most probable tokens at one place: the text of each -> its log-probability in nats.
Likely = Mapping[str, float]


def bytes_of(text: str) -> int:
    """The number of bytes of a text in UTF-8; half a character counts, too."""
    return len(text.encode("utf-8", "surrogatepass"))


def estimate_tokens(text: str) -> int:
    """The estimated number of tokens in a text, from its bytes in UTF-8, see `BYTES_PER_TOKEN`."""
    return math.ceil(bytes_of(text) / BYTES_PER_TOKEN)


class Place(NamedTuple):
    """A token that a model wrote, and what else it might have written there.

    Args:
        token: The token's text.
        likely: The most probable tokens at this place.
    """

    token: str
    likely: Likely

    @property
    def unseen(self) -> float:
        """The probability of all tokens together that are not listed."""
        return max(0.0, 1.0 - sum(map(math.exp, self.likely.values())))


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

    def came_to_end(self, most: int) -> bool:
        """Whether the text came to its end; a server that does not say wrote fewer tokens then.

        Args:
            most: The most tokens that it was asked for.
        """
        return self.tokens_out < most if self.ended is None else self.ended


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
    """

    tokens: tuple[str, ...]
    values: tuple[float | None, ...]
    likely: tuple[Likely | None, ...]
    tokens_in: int

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
        # vLLM gives the bytes before the last one of a character as tokens without a text.
        while begin > 0 and length and not self.tokens[begin - 1]:
            begin -= 1
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


def _is_best(value: float | None, likely: Likely | None) -> bool | None:
    """Whether none of the most probable tokens is more probable."""
    return None if value is None or not likely else value >= max(likely.values())
