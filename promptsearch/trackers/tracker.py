"""The contract of a tracker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar


class Tracker(ABC):
    """Where the numbers of a study's runs go.

    It lives in a process of its own, and may raise anything: that is said once, and the runs go on.
    No event is logged twice: what a killed study logged before is left out when it goes on.

    Attributes:
        needs: The package that it logs with, which is also the extra that installs it.

    Args:
        study: The study's name.
        folder: The study's folder.
    """

    needs: ClassVar[str] = ""

    def __init__(self, study: str, folder: Path) -> None:
        self.study = study
        self.folder = folder

    @abstractmethod
    def begin(self, run: str, facts: Mapping[str, Any], known: str) -> str:
        """Open a run, or one that a killed study had opened.

        Args:
            run: Its name, `task/label/seed0`.
            facts: What it is told to do: texts and numbers by name.
            known: What this method returned when the run was opened first; empty before that.

        Returns:
            What the tracker finds the run by.
        """

    @abstractmethod
    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Log how far a run has come.

        Args:
            run: Its name; it was begun before.
            step: LM tokens spent, each time more than before.
            values: The numbers by name.
        """

    @abstractmethod
    def end(self, run: str, values: Mapping[str, float], failed: bool) -> None:
        """Log how a run ended, and close it.

        Args:
            run: Its name; it was begun before.
            values: Its numbers by name: scores, tokens, seconds; none where it failed.
            failed: Whether it failed.
        """

    def close(self) -> None:  # noqa: B027 - most trackers have nothing to close
        """Finish: whatever is still on its way is sent."""


def flat(facts: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Facts without lists and mappings inside: `options.interval: 8`.

    Args:
        facts: JSON values by name; what is None is left out.
    """
    found: dict[str, str | int | float | bool] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": each for key, each in flat(value).items()}
        elif isinstance(value, str | int | float):
            found[name] = value
        elif value is not None:
            found[name] = str(value)
    return found
