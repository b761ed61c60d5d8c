"""Answers in lists of the most probable tokens: how probable they are at least, and at most.

A server wrote some tokens, and listed the most probable ones at the place of each. An answer is
followed token by token. As long as its tokens are those that were written, all of their
log-probabilities are known. Where it parts from what was written, that of its next token is still
listed, but nothing is known of those behind it. A token that is not listed is at most as probable
as the last one that is. So each answer has a highest log-probability, which is its own where it is
known wholly, and a lowest one, which is that or minus infinity. Losses are those of the highest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from promptsearch.models.endpoint import Place

#: Cuts a text into the texts of its tokens.
Cut = Callable[[str], list[str]]


class Range(NamedTuple):
    """Between which log-probabilities an answer lies, and whether it was written.

    Args:
        highest: The highest log-probability in nats.
        lowest: The lowest: the same where it is known, else minus infinity.
        written: Whether each of its tokens is the one that was written, the most probable one.
    """

    highest: float
    lowest: float
    written: bool

    def over(self, length: int) -> Range:
        """The same, divided by the answer's length."""
        return self._replace(highest=self.highest / length, lowest=self.lowest / length)


def range_of(answer: str, places: Sequence[Place], cut: Cut | None, *, anew: bool) -> Range:
    """How probable an answer is.

    Args:
        answer: The answer, as it stands behind the text that was sent.
        places: What was written, at least one token.
        cut: The tokenizer, where it is at hand; else the longest listed token that an answer goes
            on with is taken to be its next one.
        anew: Whether what was written begins anew, as in a chat: blanks before an answer are then
            no part of it, and those before the first token that is written make no difference
            where the answer is not listed without them.
    """
    rest = answer.lstrip() if anew else answer
    tokens = None if cut is None else cut(rest)
    if tokens is not None and "".join(tokens) != rest:
        tokens = None  # some of them are pieces of characters, and have no text of their own
    nats, written = 0.0, True
    for number, place in enumerate(places):
        spelt = _next(rest, None if tokens is None else tokens[number], place, anew and not number)
        if spelt is None:
            return Range(nats + min(place.likely.values()), -math.inf, False)
        nats += place.likely[spelt]
        rest = rest[len(spelt.lstrip() if anew and not number else spelt) :]
        written = written and spelt == place.token
        if not rest:
            return Range(nats, nats, written)
        if not written:
            break
    return Range(nats, -math.inf, False)


def loss_range(ranges: Sequence[Range], right: int) -> tuple[float, float]:
    """The lowest and the highest loss that answers to choose from may have, in nats.

    Args:
        ranges: How probable each of them is.
        right: The right one's place.
    """
    highest = np.array([each.highest for each in ranges])
    lowest = np.array([each.lowest for each in ranges])
    best, worst = lowest.copy(), highest.copy()
    best[right], worst[right] = highest[right], lowest[right]
    if worst[right] == -math.inf:
        return float(logsumexp(best) - best[right]), math.inf
    return float(logsumexp(best) - best[right]), float(logsumexp(worst) - worst[right])


def _next(rest: str, token: str | None, place: Place, blanks: bool) -> str | None:
    """The listed token with which an answer goes on; None where it is not listed.

    Args:
        rest: What is left of the answer.
        token: Its next token; None where the tokenizer is not at hand.
        place: The place.
        blanks: Whether a listed token may have blanks before it that the answer has not.
    """
    likely = place.likely
    if token is not None:
        found = [token] if token in likely else []
        bare = token.lstrip()
        spelt = [each for each in likely if bare and each.lstrip() == bare] if blanks else []
    else:
        found = [each for each in likely if each and rest.startswith(each)]
        spelt = [each for each in likely if each.strip() and rest.startswith(each.lstrip())]
        spelt = spelt if blanks else []
    # The longest one, and of those with blanks before them the most probable one.
    return max(found or spelt, key=lambda each: (len(each.strip()), likely[each]), default=None)
