"""Checks whether a model's weights are what they were, and copies that bring them back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from torch import Tensor

#: The size of an element in bytes -> the dtype that reads its bits as a whole number.
_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: The largest share of the free memory that a spare copy takes.
_SPARE_SHARE = 1 / 8


def checksum(model: Any) -> str:
    """20 hexadecimal digits that follow from a model's weights as they are at this moment.

    The bits of each weight are read as whole numbers and summed over each row. Another number, or
    rows in another order, therefore give other digits; numbers that only change places within a row
    do not. Reading is all that it costs: 135 million weights take some hundredths of a second,
    their SHA-256 takes a third of a second.

    Args:
        model: A model that `transformers` loaded.
    """
    digest = hashlib.sha256()
    with torch.no_grad():
        for weight in model.parameters():
            rows = weight.detach().reshape(len(weight) if weight.ndim else 1, -1)
            digest.update(_bits(rows).sum(1, dtype=torch.int64).cpu().numpy().tobytes())
    return digest.hexdigest()[:20]


def _bits(rows: Tensor) -> Tensor:
    """The bits of a table as whole numbers: 64 bits long where rows allow it, for speed."""
    size = rows.element_size()
    if (
        rows.shape[1] * size % 8 == 0
        and rows.storage_offset() * size % 8 == 0
        and rows.is_contiguous()
    ):
        return rows.view(torch.int64)
    return rows.view(_WHOLE[size])


def spare_of(model: Any) -> list[Tensor] | None:
    """A copy of a model's weights on the CPU; None where it would take much of the free memory."""
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if size > _SPARE_SHARE * psutil.virtual_memory().available:
        return None
    return [weight.detach().to("cpu", copy=True) for weight in model.parameters()]


def write_weights(model: Any, right: Sequence[Tensor]) -> None:
    """Write given weights into a model's own, in order; where shapes differ, nothing is written.

    Args:
        model: A model that `transformers` loaded.
        right: A tensor for each weight, in any dtype.
    """
    weights = list(model.parameters())
    if [weight.shape for weight in weights] == [tensor.shape for tensor in right]:
        with torch.no_grad():
            for weight, tensor in zip(weights, right, strict=True):
                weight.copy_(tensor)
