"""What splits are drawn from: a source of their own, or one that several share.

A split has a source of its own where the data name one (an official split); the others are drawn
from the source that is there. Rows are put in order by a hash of their text, so that neither the
order of a file nor other rows decide where a row falls, and no text stands in two splits. What
stands in two sources, by text or group, is dropped from `search`, and from `select` where it stands
in `test`. An official test split keeps all of its rows, also those of the same text; but text
answers to the same text are right answers of one example.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from promptsearch.errors import TaskError
from promptsearch.tasks.examples import Read, content_of
from promptsearch.tasks.filling import Filling
from promptsearch.tasks.splits import SPLITS, PerClass, Size, Split, hash_of

#: The name of a source that all splits are drawn from.
WHOLE = "data"


@dataclass(frozen=True)
class Drawing:
    """What the splits of a task are drawn from, and how.

    Args:
        task: The task's name, for messages.
        sources: Name of a source -> its examples; `WHOLE`, or the split that it is the source of.
        rows: Name of a source -> the number of its rows before anything was dropped.
        sizes: Split -> its size.
        choices: The answers to choose from that all examples share; None where there are none.
    """

    task: str
    sources: Mapping[str, Sequence[Read]]
    rows: Mapping[str, int]
    sizes: Mapping[str, Size]
    choices: tuple[str, ...] | None

    def source(self, split: str) -> str:
        """The name of the source that a split is drawn from.

        Raises:
            TaskError: There is a source for the test split alone.
        """
        for name in (split, WHOLE, "search", "select"):
            if name in self.sources:
                return name
        raise TaskError(
            f"task '{self.task}': the data name a source for test alone, and nothing is drawn from "
            "an official test split: name one for search, too"
        )

    def splits(self, seed: int | None = None) -> tuple[dict[str, Split], list[str]]:
        """The splits, and notes about what could not be met.

        Args:
            seed: Draws search and select examples in an order of its own, from all that the test
                split leaves; None for the one order.

        Raises:
            TaskError: There are too few examples, or a group is larger than any split.
        """
        if seed is None:
            parts, notes = self._fill(SPLITS, None, ())
        else:
            test = self._fill(SPLITS, None, ())[0]["test"]
            parts, notes = self._fill(("search", "select"), seed, test)
            parts["test"] = test
        return {name: _split(name, parts[name]) for name in SPLITS}, notes

    def drawable(self, split: str) -> list[Read]:
        """All examples that a seed may draw into a split, in the one order."""
        test = self._fill(SPLITS, None, ())[0]["test"]
        return _ordered(_left(self.sources[self.source(split)], test), None)

    def hash(self, split: str) -> str:
        """The hash of what seeds draw a split from, and of how large it is."""
        rows = [content_of(each.example) for each in self.drawable(split)]
        return hash_of([rows, str(self.sizes[split])])

    def _fill(
        self, names: Sequence[str], seed: int | None, taken: Sequence[Read]
    ) -> tuple[dict[str, list[Read]], list[str]]:
        """The examples of splits, each from its source without what was taken; and notes."""
        parts: dict[str, list[Read]] = {}
        notes: list[str] = []
        for source, examples in self.sources.items():
            named = [name for name in names if self.source(name) == source]
            if not named:
                continue
            filling = Filling(
                self.task,
                "the data" if source == WHOLE else f"the {source} data",
                self.rows[source],
                {name: self.sizes[name] for name in sorted(named, key=self._turn)},
                self.choices,
            )
            found, told = filling.fill(_ordered(_left(examples, taken), seed), seed)
            parts |= found
            notes += told
        return parts, notes

    def _turn(self, name: str) -> tuple[int, int]:
        """When it is a split's turn to be filled: by class, by number, and then with the rest."""
        size = self.sizes[name]
        turn = 0 if isinstance(size, PerClass) else 1 if size is not None else 2
        return turn, SPLITS.index(name)


def draw_up(
    task: str,
    read: Mapping[str, Sequence[Read]],
    rows: Mapping[str, int],
    sizes: Mapping[str, Size],
    choices: tuple[str, ...] | None,
) -> tuple[Drawing, list[str]]:
    """What the splits are drawn from, overlap between sources dropped; and notes about it.

    Args:
        task: The task's name.
        read: Name of a source -> its examples.
        rows: Name of a source -> the number of its rows.
        sizes: Split -> its size.
        choices: See `Drawing`.

    Raises:
        TaskError: Nothing is left of a source.
    """
    kept: dict[str, list[Read]] = {}
    notes = []
    for name in sorted(read, reverse=True):  # test, select, search
        kept[name] = list(read[name])
        for other in [each for each in kept if each != name]:
            left = _left(kept[name], kept[other])
            if dropped := len(kept[name]) - len(left):
                grouped = any(each.example.group for each in left + kept[name])
                by = "text or group" if grouped else "text"
                notes.append(f"{dropped} examples of {name} dropped whose {by} stands in {other}")
                kept[name] = left
            if not left:
                raise TaskError(
                    f"task '{task}': nothing is left of the {name} data: each text or group in "
                    f"them stands in the {other} data, too"
                )
    drawing = Drawing(task, kept, rows, sizes, choices)
    by_source: dict[str, list[str]] = {}
    for split in SPLITS:
        by_source.setdefault(drawing.source(split), []).append(split)
    for source, splits in by_source.items():
        if source == WHOLE:
            continue
        drawn = [split for split in splits if split != source]
        if drawn:
            notes.append(f"{' and '.join(drawn)} drawn from the {source} data, by a hash of texts")
        size = sizes[source]
        if size is not None and not drawn and size != len(kept[source]):
            much = f"{size.number} of each class" if isinstance(size, PerClass) else f"{size}"
            notes.append(
                f"{source} has {much} of the {len(kept[source])} examples of its data, picked by a "
                "hash of texts"
            )
    return drawing, notes


def _left(examples: Sequence[Read], used: Sequence[Read]) -> list[Read]:
    """The examples that share neither a text nor a group with those that are used."""
    texts = {each.text for each in used}
    groups = {each.example.group for each in used} - {""}
    return [e for e in examples if e.text not in texts and e.example.group not in groups]


def _ordered(examples: Sequence[Read], seed: int | None) -> list[Read]:
    """In the order of a hash of their texts; content breaks the ties of an official test split."""
    digests = {id(each): each.digest(seed) for each in examples}
    twice = {text for text, count in Counter(e.text for e in examples).items() if count > 1}

    def rank(each: Read) -> tuple[bytes, str]:
        tied = json.dumps(content_of(each.example), sort_keys=True) if each.text in twice else ""
        return digests[id(each)], tied

    return sorted(examples, key=rank)


def _split(name: str, part: Sequence[Read]) -> Split:
    return Split(name, tuple(replace(each.example, id=i) for i, each in enumerate(part)))
