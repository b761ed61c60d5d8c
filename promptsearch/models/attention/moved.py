"""What a pass holds for all of its layers, on the device of each."""

from __future__ import annotations

import torch
from torch import Tensor


class Moved:
    """Tensors that layers on several devices read: each is moved once to a device, and kept."""

    def __init__(self) -> None:
        # With the tensor itself, which keeps its id from being another's.
        self._found: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def to(self, tensor: Tensor, device: torch.device) -> Tensor:
        """A tensor on a device; itself where it lies there.

        Args:
            tensor: The tensor, which nothing writes to.
            device: The device of a layer.
        """
        if tensor.device == device:
            return tensor
        key = id(tensor), device
        if key not in self._found:
            self._found[key] = tensor, tensor.to(device)
        return self._found[key][1]
