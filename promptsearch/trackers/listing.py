"""Trackers by name, as packages bring them."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from promptsearch.errors import UnknownName

#: The group of entry points in which packages say which trackers they bring.
GROUP = "promptsearch.trackers"


def known_trackers() -> dict[str, EntryPoint]:
    """The installed trackers by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def find_tracker(name: str) -> EntryPoint:
    """The tracker of this name, not imported yet.

    Args:
        name: The name.

    Raises:
        UnknownName: No tracker has it.
    """
    known = known_trackers()
    if name not in known:
        raise UnknownName("tracker", name, known)
    return known[name]
