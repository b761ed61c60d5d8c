"""A search whose scores are all alike is blind: it stops, and says why.

With a model that is loaded here, no two prompts have the same losses to the last digit on all
examples. A server can give such scores: one that always answers the same, or one that tells only
right and wrong, on a few examples. A winner among them would be chance. The log of the run is what
is looked at, so that a run which goes on after a kill stops where it would have stopped.

A metric that a search follows is the same for many prompts, such as 0 for all whose answers are
wrong: how a hard search begins. With a model that is loaded here it goes on, and the reason why it
ends still says if no prompt was better. Behind a server it stops, since nothing there tells it from
one that always answers the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Numbers of different prompts that all have the same losses: at the first a search ends; from the
#: second on, the reason why a search ended says that they were alike.
ENOUGH, SOME = 64, 8
#: How a reason begins that says so.
_TOLD = "all scores were alike"


class Alike:
    """Tells whether all prompts of a run have had the same losses so far.

    Args:
        served: Whether the scores come from a model behind a server.
    """

    def __init__(self, *, served: bool) -> None:
        self._served = served
        self._follows = False  # whether the losses are those of a metric
        self._losses: list[float] | None = None
        self._keys: set[str] = set()
        self._seen = 0
        self._differ = False

    def look(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take in the lines that a log has gained since the last look.

        Args:
            lines: All lines of the log, in order.
        """
        for line in lines[self._seen :]:
            if line["stage"] == "search" and line["examples"] == "score_on":
                self._follows |= "followed" in line
                for prompt, losses in zip(line["prompts"], line["losses"], strict=True):
                    if losses is not None:  # no failure
                        self._losses = self._losses or losses
                        self._differ |= losses != self._losses
                        self._keys.add(prompt["key"])
        self._seen = len(lines)

    @property
    def blind(self) -> bool:
        """Whether enough prompts were alike to stop the search."""
        mere = self._follows and not self._served  # a metric alone can be the same for many
        return not self._differ and not mere and len(self._keys) >= ENOUGH

    def reason(self, ended: str) -> str:
        """The reason why a search ended, with a word about its scores if they were all alike.

        Args:
            ended: The reason apart from that; empty where the search ended because it was blind.
        """
        if self._differ or len(self._keys) < SOME:
            return ended
        losses = self._losses or [0.0]
        # Minus a metric of 0 is -0.
        same = f"{losses[0] + 0:g} on each" if len(set(losses)) == 1 else "the same on each of them"
        told = (
            f"{_TOLD}: {len(self._keys)} different prompts had the same losses on "
            f"{len(losses)} examples ({same}), so that none is known to be better than another. "
            "Score on more examples, or see what the model answers to one of them"
        )
        return told if not ended else f"{told}. The search ended because: {ended}"


def was_blind(stopped: str) -> bool:
    """Whether a search had scores that were all alike when it ended.

    Args:
        stopped: The reason why the search ended, as its record gives it.
    """
    return stopped.startswith(_TOLD)
