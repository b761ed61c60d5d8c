"""Filling splits with the examples of a source.

Rows come in an order of their own, see `promptsearch.tasks.drawing`. A split of N takes the first N
rows that are left; one of `per_class: N` the first N of each answer; one without a size all the
rest. Rows of a group stay together: groups, ordered by a hash of their name, go whole into the
first split; one that does not fit any more is skipped, and tried for the next. So a split may be a
little smaller than asked, which is told.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptsearch.errors import TaskError
from promptsearch.tasks.examples import Read
from promptsearch.tasks.fields import shown
from promptsearch.tasks.splits import PerClass, Size


@dataclass(frozen=True)
class Filling:
    """Splits that are to be filled from one source.

    Args:
        task: The task's name, for messages.
        where: The words for the source in messages, such as `the data`.
        rows: The number of its rows before anything was dropped.
        wants: Split -> its size: those by class first, then numbers, then one without a size.
        choices: The answers to choose from that all examples share; None where there are none.
    """

    task: str
    where: str
    rows: int
    wants: Mapping[str, Size]
    choices: tuple[str, ...] | None

    def fill(
        self, examples: Sequence[Read], seed: int | None
    ) -> tuple[dict[str, list[Read]], list[str]]:
        """The examples of each split, and notes about sizes that could not be met.

        Args:
            examples: The examples of the source, in order.
            seed: Puts groups in another order; None for the one order.

        Raises:
            TaskError: There are too few examples, or a group is larger than any split.
        """
        grouped = any(each.example.group for each in examples)
        if any(isinstance(size, PerClass) for size in self.wants.values()):
            self._check_classes(examples, grouped)
        self._check_room(examples)
        if grouped and len(self.wants) > 1:
            return self._groups(examples, seed)
        return self._rows(examples), []

    def _check_classes(self, examples: Sequence[Read], grouped: bool) -> None:
        if self.choices is None:
            raise TaskError(
                f"task '{self.task}': 'per_class' counts the examples of each answer to choose "
                "from, and there are none that all rows share: give a number"
            )
        if grouped:
            raise TaskError(
                f"task '{self.task}': 'per_class' and 'group' cannot both be met: leave one out"
            )
        counts = Counter(each.example.answer for each in examples)
        sizes = {name: s.number for name, s in self.wants.items() if isinstance(s, PerClass)}
        wanted = sum(sizes.values())
        for choice in self.choices:
            if counts[choice] < wanted:
                want = f"want{'s' * (len(sizes) == 1)} {wanted} of each class"
                raise TaskError(
                    f"task '{self.task}': {self.where} hold {counts[choice]} examples of the class "
                    f"{shown(choice.strip())}, but {' and '.join(sizes)} {want}: lower per_class"
                )

    def _check_room(self, examples: Sequence[Read]) -> None:
        classes = len(self.choices or ())
        sizes = {
            name: size.number * classes if isinstance(size, PerClass) else size
            for name, size in self.wants.items()
        }
        total = sum(1 if size is None else size for size in sizes.values())
        if total > len(examples):
            told = ", ".join(f"{n}: {'all' if size is None else size}" for n, size in sizes.items())
            raise TaskError(
                f"task '{self.task}': the splits want {total} examples ({told}), but {self.where} "
                f"hold {len(examples)} different ones in {self.rows} rows"
            )

    def _rows(self, examples: Sequence[Read]) -> dict[str, list[Read]]:
        """Fill one split after the other with the first examples that are left."""
        parts: dict[str, list[Read]] = {}
        rest = list(examples)
        for name, size in self.wants.items():
            if isinstance(size, PerClass):
                parts[name] = _first_of_each(rest, size.number)
                chosen = set(map(id, parts[name]))
                rest = [each for each in rest if id(each) not in chosen]
            else:
                parts[name], rest = rest[:size], rest[len(rest) if size is None else size :]
        return parts

    def _groups(
        self, examples: Sequence[Read], seed: int | None
    ) -> tuple[dict[str, list[Read]], list[str]]:
        """Fill one split after the other with the first groups that fit in whole."""
        sizes = Counter(each.example.group for each in examples)
        salt = "" if seed is None else f"{seed}\0"
        order = sorted(sizes, key=lambda name: hashlib.sha256(f"{salt}{name}".encode()).digest())
        rooms = {
            name: size if isinstance(size, int) else len(examples)
            for name, size in self.wants.items()
        }
        largest = max(order, key=lambda group: sizes[group])
        if sizes[largest] > max(rooms.values()):
            told = ", ".join(f"{name}: {room}" for name, room in rooms.items())
            raise TaskError(
                f"task '{self.task}': the group {shown(largest)} has {sizes[largest]} examples, "
                f"more than any split ({told}), and a group stays whole: raise a size, or leave "
                "the group out with 'where'"
            )
        places: dict[str, str] = {}
        for name in rooms:
            for group in order:
                if group not in places and sizes[group] <= rooms[name]:
                    places[group] = name
                    rooms[name] -= sizes[group]
        parts = {n: [e for e in examples if places.get(e.example.group) == n] for n in self.wants}
        if empty := next((name for name, part in parts.items() if not part), None):
            raise TaskError(
                f"task '{self.task}': no group of {self.where} fits into the split '{empty}', and "
                "a group stays whole: raise its size, or lower those of the others"
            )
        notes = [
            f"{name} has {len(parts[name])} of {size} examples: no other group fits in whole"
            for name, size in self.wants.items()
            if isinstance(size, int) and len(parts[name]) < size
        ]
        return parts, notes


def _first_of_each(examples: Sequence[Read], number: int) -> list[Read]:
    """The first examples of each answer, in their order."""
    seen: Counter[str] = Counter()
    found = []
    for each in examples:
        seen[each.example.answer] += 1
        if seen[each.example.answer] <= number:
            found.append(each)
    return found
