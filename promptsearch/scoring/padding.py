"""The trunks above a pass, padded to one length, in a block of memory that the next pass takes too.

The system hands out a large block page by page, each of them zeroed, and takes it back after the
pass: on a CPU that took ten times as long as to copy the trunks. A thread therefore keeps one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from promptsearch.models.attention.forest import pad_rows

#: The most bytes that a thread keeps; a larger block is made for one pass.
LARGEST = 1 << 28


class _Kept(threading.local):
    block = torch.empty(0, dtype=torch.uint8)


_KEPT = _Kept()


def padded(trunks: Sequence[Tensor]) -> Tensor:
    """Trunks on top of each other, filled up with zeros.

    Args:
        trunks: The keys and values of each trunk on one device, shape `(tokens, values)`.

    Returns:
        Shape `(trunks, most tokens, values)`. Where no gradient is wanted, the thread's next call
        may write over it.
    """
    first, longest = trunks[0], max(map(len, trunks))
    shape = (len(trunks), longest, first.shape[1])
    size = shape[0] * shape[1] * shape[2] * first.dtype.itemsize
    if torch.is_grad_enabled() or first.device.type != "cpu" or size > LARGEST:
        return pad_rows(trunks)  # a GPU's memory is kept by torch
    if _KEPT.block.numel() < size:
        with torch.inference_mode(False):  # later passes may be in it, or not
            _KEPT.block = torch.empty(size, dtype=torch.uint8)
    found = _KEPT.block[:size].view(first.dtype).view(shape)
    for place, trunk in zip(found, trunks, strict=True):
        place[: len(trunk)] = trunk
        place[len(trunk) :] = 0
    return found
