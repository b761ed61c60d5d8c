"""Where prompts stand, as far as a template sees it."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: The kind of prompts that a template takes: those that fill its slots, alone (`slots`) or with
#: changed weights (`tuned`), or one of the kinds that stand apart from the text: a prefix in front
#: of it (`prefix`), vectors that layers read beside it (`gated`), or changed weights (`weights`).
Kind = Literal["slots", "tuned", "prefix", "gated", "weights"]


class Placement(NamedTuple):
    """The slots of a template that takes prompts of a kind.

    Args:
        fills: Whether the prompts fill the slots that the user wrote; if not, they stand apart from
            the text.
        front: Whether there is a slot in front of the whole row, also of the tokenizer's special
            tokens, which gives the prompt a place.
        empty: Whether that slot has no tokens.
    """

    fills: bool
    front: bool = False
    empty: bool = False


PLACEMENTS: dict[Kind, Placement] = {
    "slots": Placement(fills=True),
    "tuned": Placement(fills=True, front=True, empty=True),
    "prefix": Placement(fills=False, front=True),
    "gated": Placement(fills=False, front=True),
    "weights": Placement(fills=False, front=True, empty=True),
}
