"""Items one after the other, as many at a time as a pass takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

#: Tokens of trunks above a pass, in tokens of the pass.
ABOVE = 8


def pack(
    items: Iterable[T],
    tokens: Callable[[T], int],
    limit: Callable[[], int],
    above: Callable[[T], int] | None = None,
) -> Iterator[list[T]]:
    """Cut items, in their order, into passes.

    Args:
        items: Those of similar size together: what is above a pass is padded to the longest.
        tokens: Of an item, that the pass computes.
        limit: The most of these in a pass, at this moment; a larger item goes alone.
        above: Tokens of the trunk that is copied for an item; `ABOVE` times the limit of these in a pass. Left out: none.
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
