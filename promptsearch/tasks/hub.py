"""Rows of data sets on the Hugging Face Hub, or in a folder of the same form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from promptsearch.errors import TaskError
from promptsearch.tasks.columns import reading
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

    try:
        asked = {key: data.get(key) for key in ("revision", "split")}
        found = datasets.load_dataset(data["hub"], data.get("config"), **asked)
        parts = found if isinstance(found, dict) else {data.get("split") or "data": found}
        places = {split: f"{data['hub']}, split {split}" for split in parts}
        return [row for split, part in parts.items() for row in _rows(part, places[split])]
    except Exception as error:  # the Hub client raises errors of many packages
        raise TaskError(
            f"cannot load the data set '{data['hub']}' from the Hub "
            f"({type(error).__name__}: {error}). "
            "Offline, save it as JSONL, CSV or Parquet and name it with data: {path: FILE}."
        ) from error


def _rows(part: Any, name: str) -> Iterator[Row]:
    read = {
        field: reading(getattr(kind, "dtype", ""), getattr(kind, "names", None))
        for field, kind in part.features.items()
    }
    for number, row in enumerate(part, start=1):
        values = {field: read[field](value) for field, value in row.items()}
        yield Row(values, f"{name}, row {number}")
