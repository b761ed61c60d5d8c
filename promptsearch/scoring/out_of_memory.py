"""Rows that the memory of a device does not hold together: they go on in halves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from promptsearch.errors import ModelError
from promptsearch.models.device import in_words
from promptsearch.scoring.forward import ran_out

log = logging.getLogger(__name__)

Row = TypeVar("Row")
Found = TypeVar("Found")


def in_halves(
    work: Callable[[Sequence[Row]], Found],
    rows: Sequence[Row],
    devices: Sequence[torch.device],
    told: Callable[[Row], str],
) -> list[Found]:
    """What is computed of rows: of all together or, where memory runs out, of each part that fits.

    Args:
        work: Computes some rows together.
        rows: The rows, at least one.
        devices: The devices of the model, for the message.
        told: Says of a row that does not fit alone what it is, and what to do.

    Raises:
        ModelError: The memory of the device does not hold a single row.
    """
    try:
        return [work(rows)]
    except RuntimeError as error:
        if not ran_out(error):
            raise
        if len(rows) == 1:
            raise ModelError(
                f"the memory of {in_words(devices)} does not hold one row of {told(rows[0])}"
            ) from error
    half = len(rows) // 2
    log.warning("out of memory: %d rows go on in halves", len(rows))
    return [
        found
        for some in (rows[:half], rows[half:])
        for found in in_halves(work, some, devices, told)
    ]
