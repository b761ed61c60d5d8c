"""A search whose scores are all alike is blind: it stops, and says why.

No two prompts of a model that is loaded here have the same losses to the last digit on all
examples. A server that always answers the same, or of which only right and wrong are known on a few
examples, can give such scores; a winner among them would be chance. The log of the run is what is
looked at, so that a run which goes on after a kill stops where it would have stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: So many different prompts without one that differs end a search; from so many on, the end of a
#: search says so.
ENOUGH, SOME = 64, 8
_TOLD = "all scores were alike"


class Alike:
    """Whether all prompts of a run had the same losses so far."""

    def __init__(self) -> None:
        self._losses: list[float] | None = None
        self._keys: set[str] = set()
        self._seen = 0
        self._differ = False

    def look(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take in what a log holds beside what it held before."""
        for line in lines[self._seen :]:
            if line["stage"] == "search" and line["examples"] == "score_on":
                for prompt, losses in zip(line["prompts"], line["losses"], strict=True):
                    if losses is not None:  # no failure
                        self._losses = self._losses or losses
                        self._differ |= losses != self._losses
                        self._keys.add(prompt["key"])
        self._seen = len(lines)

    @property
    def blind(self) -> bool:
        """Whether it is certain enough to stop."""
        return not self._differ and len(self._keys) >= ENOUGH

    def reason(self, ended: str) -> str:
        """Why a search ended, and that it was blind, if it was.

        Args:
            ended: Why it ended otherwise.
        """
        if self._differ or len(self._keys) < SOME:
            return ended
        losses = self._losses or [0.0]
        same = f"{losses[0]:g} on each" if len(set(losses)) == 1 else "the same on each of them"
        told = (
            f"{_TOLD}: {len(self._keys)} different prompts had the same losses on {len(losses)} examples "
            f"({same}), so that none is known to be better than another. Score on more examples, or see "
            "what the model answers to one of them"
        )
        return told if not ended else f"{told}. The search ended because: {ended}"


def was_blind(stopped: str) -> bool:
    """Whether a search of a record ended so.

    Args:
        stopped: Why the search ended.
    """
    return stopped.startswith(_TOLD)
