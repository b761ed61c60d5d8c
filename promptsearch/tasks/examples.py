"""An example: one input with its right answers, and the row of the data that gives it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Example:
    """One input with its right answers.

    Args:
        id: Its place in its split.
        fields: The texts of the template's fields.
        answer: The text of the right answer, the first one where there are several, as it stands
            behind the template.
        choice: The right answer's place among those to choose from; None for text answers.
        aliases: Other texts that count as right in the metric, and never in the loss.
        also: Further right answers, which count in the loss as the first one does.
        options: The answers to choose from where they differ by row; None where they are those of
            the task, or where the answer is text.
        group: The group of rows that it belongs to, such as an author; empty where there is none.
    """

    id: int
    fields: Mapping[str, str]
    answer: str
    choice: int | None
    aliases: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    options: tuple[str, ...] | None = None
    group: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """All right answers that count in the loss, at least one."""
        return (self.answer, *self.also)

    @property
    def right(self) -> tuple[str, ...]:
        """All texts that count as right: references and aliases."""
        return (*self.references, *self.aliases)


class Read(NamedTuple):
    """An example as a row gives it.

    Args:
        place: Where the row stands.
        labels: The texts of the row's label, at least one.
        example: The example, not yet numbered.
        text: What makes it the same as another: its text under the template, and its options; or
            what a field of its row says.
    """

    place: str
    labels: tuple[str, ...]
    example: Example
    text: str

    def digest(self, seed: int | None = None) -> bytes:
        """The hash of the text, by which rows are put in order; with a seed, in another order."""
        salt = "" if seed is None else f"{seed}\0"
        return hashlib.sha256(f"{salt}{self.text}".encode()).digest()


def content_of(example: Example) -> list[Any]:
    """What an example says, for hashes of it; what it does not have is left out."""
    more = (example.also, example.options, example.group)
    plain = [dict(example.fields), example.answer, list(example.aliases)]
    return [*plain, *more] if any(more) else plain


def groups_of(examples: Sequence[Example], ids: Iterable[int]) -> list[str] | None:
    """What examples belong to, a name of its own for one that belongs to nothing.

    Args:
        examples: All examples of a split.
        ids: Those that are asked for.

    Returns:
        A name for each of these; None where none belongs to a group.
    """
    asked = [(i, examples[i].group) for i in ids]
    return [group or f"\0{i}" for i, group in asked] if any(group for _, group in asked) else None
