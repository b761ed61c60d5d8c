"""Splits: examples that belong together, and how many a study asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, TypeAlias

from promptsearch.errors import TaskError, UnknownName
from promptsearch.printable import brief
from promptsearch.tasks.examples import Example, content_of

#: The names of a task's splits: prompts are searched, then selected, then tested.
SPLITS = ("search", "select", "test")


@dataclass(frozen=True)
class Split:
    """Examples that belong together, in a fixed order.

    Args:
        name: `search`, `select` or `test`.
        examples: All of them.
    """

    name: str
    examples: tuple[Example, ...]

    @property
    def hash(self) -> str:
        """The first 20 hexadecimal digits of the SHA-256 of all examples in their order."""
        return hash_of([content_of(e) for e in self.examples])

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.examples)


@dataclass(frozen=True)
class PerClass:
    """The size of a split that has as many examples of each answer.

    Args:
        number: The number of examples of each answer to choose from, at least 1.
    """

    number: int


#: The size of a split: a number of examples, of each answer, or None for all that there are.
Size: TypeAlias = int | PerClass | None


def sizes_of(given: Mapping[str, Any], official: Sequence[str], task: str) -> dict[str, Size]:
    """The size of each split.

    Args:
        given: Split -> number, or `{"per_class": number}`; None or left out: all examples of its
            own source.
        official: The splits that have one.
        task: The task's name, for messages.

    Raises:
        UnknownName: There is no such split.
        TaskError: A size is below 1 or no whole number, or missing where the split has no source of
            its own.
    """
    if not isinstance(given, Mapping):
        raise TaskError(
            f"task '{task}': the splits are {brief(given)}: expected the number of examples of "
            "each, such as {'search': 512, 'select': 256, 'test': 1000}"
        )
    for name in given:
        if name not in SPLITS:
            raise UnknownName("split", name, SPLITS)
    sizes: dict[str, Size] = {}
    for name in SPLITS:
        size = given.get(name)
        if size is None and name in official:
            sizes[name] = None
            continue
        if isinstance(size, Mapping) and set(size) != {"per_class"}:
            raise TaskError(
                f"task '{task}': the size of '{name}' is {dict(size)}: expected a number of "
                "examples, or {per_class: NUMBER}"
            )
        number = _whole(name, size["per_class"] if isinstance(size, Mapping) else size, task)
        if number < 1:
            raise TaskError(
                f"task '{task}': the split '{name}' needs at least 1 example, got {number}"
            )
        sizes[name] = PerClass(number) if isinstance(size, Mapping) else number
    return sizes


def _whole(name: str, size: Any, task: str) -> int:
    """A size as a whole number; 0 where there is none."""
    try:
        if isinstance(size, bool):
            raise TypeError
        return index(0 if size is None else size)
    except TypeError:
        raise TaskError(
            f"task '{task}': the size of '{name}' is {brief(size)}: expected a whole number"
        ) from None


def hash_of(content: Any) -> str:
    """The first 20 hexadecimal digits of the SHA-256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
