"""JSON within limits: no key twice, only finite numbers, no deeper nesting than people write."""

from __future__ import annotations

import json
import math
from typing import Any

#: The most levels of lists and objects within one another.
DEPTH = 100


def parse_json(content: bytes | str) -> Any:
    """Read JSON.

    Args:
        content: Bytes in UTF-8, or text.

    Raises:
        ValueError: It is no JSON, is nested deeper than `DEPTH`, gives a key twice, or holds a
            number that is not finite or takes more than 64 bits.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        data = json.loads(
            text,
            parse_constant=_refuse,
            parse_float=_float,
            parse_int=_int,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {DEPTH} levels") from None
    level = [data]
    for _ in range(DEPTH + 1):
        level = [
            child
            for each in level
            if isinstance(each, (dict, list))
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return data
    raise ValueError(f"nested deeper than {DEPTH} levels")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _int(digits: str) -> int:
    number = int(digits) if len(digits) < 21 else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"the number {digits[:20]}... takes more than 64 bits")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found
