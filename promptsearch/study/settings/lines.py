"""Where each key of a study stands, for messages."""

from __future__ import annotations

from collections.abc import Mapping

from promptsearch.plain.limits import KeyPath


class Lines:
    """The lines of a study's keys, for messages.

    They are no settings: all are equal, so that studies that differ in them alone are equal.

    Args:
        source: What to call the study.
        places: A path of keys -> `line 7`, or the option of the command line that says it.
    """

    def __init__(self, source: str, places: Mapping[KeyPath, str] | None = None) -> None:
        self._source, self._places = source, dict(places or {})

    def __eq__(self, other: object) -> bool:
        """Whether the other is of this class, too."""
        return isinstance(other, Lines)

    __hash__ = None  # type: ignore[assignment]

    def note(self, path: KeyPath, place: str) -> None:
        """Remember where a key stands."""
        self._places[path] = place

    def at(self, path: KeyPath) -> str:
        """The study, and the line of a path of keys or of what holds it."""
        ends = range(len(path), 0, -1)
        place = next((self._places[path[:end]] for end in ends if path[:end] in self._places), None)
        return f"{self._source}, {place}" if place else self._source
