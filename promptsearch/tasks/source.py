"""An open file of rows, and the words for it in messages."""

from __future__ import annotations

from typing import NamedTuple

from promptsearch.errors import TaskError
from promptsearch.plain.text import Readable


class Source(NamedTuple):
    """An open file of rows.

    Args:
        file: Its bytes.
        what: The words for it in a message that it cannot be read, such as
            `the data file /tmp/rows.csv`.
        name: The words for it before a line's number: its name as the user wrote it.
    """

    file: Readable
    what: str
    name: str

    def place(self, number: int, unit: str = "line") -> str:
        """The place of a row, for messages.

        Args:
            number: The row's number, from 1.
            unit: What is counted: `line` or `row`.
        """
        return f"{self.name}, {unit} {number}"

    def refuse(self, reason: object) -> TaskError:
        """The error to raise where the file cannot be read."""
        return TaskError(f"cannot read {self.what}: {reason}")
