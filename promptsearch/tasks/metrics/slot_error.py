"""Slot error: what a text leaves out of its record, or makes up (arXiv:1508.01745, section 5).

The record is a meaning representation as in the E2E data, `name[Blue Spice], area[riverside]`
(arXiv:1706.09254). Values are looked for as they are written, and by the texts that the option
`forms` gives for them: a paraphrase that is in neither counts as missing. People's own references
have a slot error too, which is worth measuring beside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics.metric import Answered, Floats, Metric, signed

_SLOT = re.compile(r"\s*([^\[\],]+)\[([^\]]*)\]\s*(?:,|$)")
_WORD = re.compile(r"[^\W_]+|[£$€]")
_NOT = {"not", "no", "non", "t", "never", "isn", "without", "neither", "nor"}
#: How many words may stand between `not` and what it denies.
_REACH = 4


class RecordSlot(NamedTuple):
    """A slot of a record and its value; `yes` and `no` say whether the slot's own name holds."""

    name: str
    value: str


class SlotError(Metric):
    """The values missing from outputs or invented there, as a share of all values of the records.

    Invented is a value that other rows' records have in a slot, and this row's has nowhere.

    Args:
        field: The field that holds the record.
        forms: Value, or name of a slot whose values are yes and no -> other texts that say the
            same.
    """

    name = "slot_error"
    higher_is_better = False
    bounds = (0.0, inf)

    def __init__(
        self, *, field: str = "mr", forms: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.field = field
        self.forms = {key: tuple(texts) for key, texts in (forms or {}).items()}

    @property
    def signature(self) -> str:
        """Says how many values have other forms."""
        return signed(self.name, field=self.field, forms=len(self.forms))

    def check(self, rows: Sequence[Answered]) -> None:
        """Refuse rows without a record."""
        self._records(rows)

    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The values missing, those invented, and those of the record."""
        records = self._records(rows)
        known = sorted({slot for record in records for slot in record})
        found = []
        for row, record in zip(rows, records, strict=True):
            missing, invented = self._wrong(row.output, record, known)
            found.append([len(missing), len(invented), len(record)])
        return np.array(found, dtype=np.float64)

    def score(self, sums: Floats, rows: int) -> float:
        """The share of the records' values."""
        missing, invented, values = sums
        return float((missing + invented) / values)

    def feedback(self, row: Answered) -> str:
        """The values that are missing."""
        record = self._record(row)
        missing, _ = self._wrong(row.output, record, record)
        return f"left out: {', '.join(f'{s.name}[{s.value}]' for s in missing)}" if missing else ""

    def _records(self, rows: Sequence[Answered]) -> list[list[RecordSlot]]:
        return [self._record(row, f" of row {number}") for number, row in enumerate(rows, start=1)]

    def _record(self, row: Answered, place: str = "") -> list[RecordSlot]:
        """The slots of a row's record.

        Args:
            row: The row.
            place: Where it stands, for messages.

        Raises:
            TaskError: The row has no such field, or it holds no record.
        """
        text = row.fields.get(self.field)
        if text is None:
            raise TaskError(
                f"the metric '{self.name}' wants a record in the field '{self.field}'{place}, "
                f"which has {', '.join(row.fields) or 'no field'}"
            )
        slots = [RecordSlot(name.strip(), value.strip()) for name, value in _SLOT.findall(text)]
        if not slots or _SLOT.sub("", text).strip():
            raise TaskError(
                f"the metric '{self.name}' wants records like 'name[Blue Spice], area[riverside]' "
                f"in the field '{self.field}'{place}; got {text[:80]!r}"
            )
        return slots

    def _wrong(
        self, output: str, record: Sequence[RecordSlot], known: Sequence[RecordSlot]
    ) -> tuple[list[RecordSlot], list[RecordSlot]]:
        """The slots of the record that the output lacks, and the known ones that it invented."""
        words = _words(output)
        missing = [slot for slot in record if not self._says(words, slot)]
        # What belongs to the record may hold the words of another value: it is taken out first.
        rest = words
        for slot in record:
            for form in self._forms(slot):
                rest = _without(rest, form)
        own = {slot.value.lower() for slot in record}
        invented = [
            slot
            for slot in known
            if slot not in record
            and (slot.value in ("yes", "no") or slot.value.lower() not in own)
            and self._says(words if slot.value in ("yes", "no") else rest, slot)
        ]
        return missing, invented

    def _says(self, words: Sequence[str], slot: RecordSlot) -> bool:
        places = [place for form in self._forms(slot) for place in _places(words, form)]
        if slot.value not in ("yes", "no"):
            return bool(places)
        denied = [not _NOT.isdisjoint(words[max(place - _REACH, 0) : place]) for place in places]
        return any(denied) if slot.value == "no" else not all(denied)

    def _forms(self, slot: RecordSlot) -> list[list[str]]:
        """The texts that say a slot, as words."""
        key = text = slot.value
        if slot.value in ("yes", "no"):
            key, text = slot.name, re.sub(r"(?<=[a-z])(?=[A-Z])", " ", slot.name)  # familyFriendly
        return [_words(form) for form in (text, *self.forms.get(key, ()))]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _places(words: Sequence[str], form: Sequence[str]) -> list[int]:
    size = len(form)
    return [i for i in range(len(words) - size + 1) if words[i : i + size] == form]


def _without(words: list[str], form: list[str]) -> list[str]:
    """The words with each place of a form marked, so that nothing is found across it."""
    found = list(words)
    for place in _places(words, form):
        found[place : place + len(form)] = [""] * len(form)
    return found
