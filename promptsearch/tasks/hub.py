"""Rows of data sets on the Hugging Face Hub, or in a folder of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from promptsearch.errors import TaskError
from promptsearch.tasks.columns import rows_of
from promptsearch.tasks.fields import Row


def read_hub(data: Mapping[str, Any]) -> list[Row]:
    """The rows of a data set.

    Args:
        data: `{hub: owner/name}` with optional `config`, `revision` and `split`; without a split,
            the rows of all of them.

    Raises:
        TaskError: It cannot be loaded.
    """
    import datasets

    hub = data["hub"]
    try:
        asked = {key: data.get(key) for key in ("revision", "split")}
        found = datasets.load_dataset(hub, data.get("config"), **asked)
        parts = found if isinstance(found, dict) else {data.get("split") or "data": found}
        tables = {split: part.with_format("arrow")[:] for split, part in parts.items()}
    except Exception as error:  # the Hub client raises errors of many packages
        raise TaskError(
            f"cannot load the data set '{hub}' from the Hub ({type(error).__name__}: {error}). "
            "Offline, save it as JSONL, CSV or Parquet and name it with data: {path: FILE}."
        ) from error
    # As its file in Parquet is read, so that both give the same texts.
    return [row for split, table in tables.items() for row in rows_of(table, _Split(hub, split))]


class _Split(NamedTuple):
    """A split of a data set, for messages."""

    hub: str
    split: str

    def place(self, number: int, unit: str = "row") -> str:
        return f"{self.hub}, split {self.split}, {unit} {number}"

    def refuse(self, reason: object) -> TaskError:
        return TaskError(f"cannot read the data set '{self.hub}', split {self.split}: {reason}")
