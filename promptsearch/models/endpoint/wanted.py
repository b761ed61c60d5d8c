"""What a server is asked for: texts to go on with, and how."""

from __future__ import annotations

from typing import NamedTuple


class Unfinished(NamedTuple):
    """A text to go on with.

    Args:
        text: The text.
        tokens: The most tokens to write.
        temperature: As for `Endpoint.complete`, like `top_p` and `seed`.
        stop: The text before which the continuation ends; empty where none does.
    """

    text: str
    tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str = ""
