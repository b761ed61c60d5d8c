"""Items, cut into passes: as many at a time as one pass of the LM takes.

A trunk is what stands above the tokens of a pass: its keys and values are read, not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

#: The most tokens of trunks above a pass: this many times the most tokens of the pass itself.
ABOVE = 8


def pack(
    items: Iterable[T],
    tokens: Callable[[T], int],
    limit: Callable[[], int],
    above: Callable[[T], int] | None = None,
) -> Iterator[list[T]]:
    """Cut items, in their order, into passes.

    Args:
        items: The items, those of similar size together: trunks above a pass are padded to the
            longest.
        tokens: Gives the number of an item's tokens that the pass computes.
        limit: Gives the most of these in a pass, at this moment; a larger item goes alone.
        above: Gives the number of tokens of the trunk that is copied for an item; a pass has at
            most `ABOVE` times the limit of these. Left out: no trunk is copied.
    """
    some: list[T] = []
    total = longest = 0
    for item in items:
        size, trunk = tokens(item), 0 if above is None else above(item)
        if some and (
            total + size > limit() or max(longest, trunk) * (len(some) + 1) > ABOVE * limit()
        ):
            yield some
            some, total, longest = [], 0, 0
        some.append(item)
        total += size
        longest = max(longest, trunk)
    if some:
        yield some
