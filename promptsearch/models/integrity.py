"""Checks whether a model's weights are what they were, and ways to bring them back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import psutil
import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.models.quantised import stored

#: The size of an element in bytes -> the dtype that reads its bits as a whole number.
_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: The largest share of the free memory that a spare copy takes.
_SPARE_SHARE = 1 / 8


class Integrity:
    """The weights of a model as they were loaded, and as they are now.

    Args:
        model: A model that `transformers` loaded.
        name: The name of the model, for messages.

    Attributes:
        again: Gives the weights as they were loaded once more, in order, or none where what was
            loaded is not there any more; None for a model that was given as an object.
    """

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        self._name = name
        self._spare: list[Tensor] | None = None
        self.again: Callable[[], Sequence[Tensor]] | None = None

    @cached_property
    def hash(self) -> str:
        """20 hexadecimal digits from a SHA-256 over all weights.

        The same model has the same hash wherever it came from.
        """
        return self.digest()

    def digest(self) -> str:
        """The hash of the weights as they are now."""
        digest = hashlib.sha256()
        for name, weight in sorted(stored(self._model)):
            content = weight.detach().cpu().contiguous()
            digest.update(f"{name}{content.dtype}{tuple(content.shape)}".encode())
            # A single number has no dimension to be read in bytes along.
            flat = content.reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().data.cast("B") if content.numel() else b"")
        return digest.hexdigest()[:20]

    @property
    def checksum(self) -> str:
        """20 hexadecimal digits of the weights as they are now, far quicker than `hash`.

        The bits of each weight are read as whole numbers and summed over each row. Another number,
        or rows in another order, therefore give other digits; numbers that only change places
        within a row do not. Reading is all that it costs: 135 million weights take some hundredths
        of a second, their SHA-256 takes a third of a second.
        """
        digest = hashlib.sha256()
        with torch.no_grad():
            sums = [
                _bits(weight.detach().reshape(len(weight) if weight.ndim else 1, -1)).sum(
                    1, dtype=torch.int64
                )
                for _, weight in stored(self._model)
            ]
        # All in one, because a GPU is waited for each time.
        sums = [each.to(sums[0].device) for each in sums]
        digest.update(torch.cat(sums).cpu().numpy().tobytes())
        return digest.hexdigest()[:20]

    @property
    def versions(self) -> tuple[int, ...]:
        """How often each weight was written to in place, as torch counts it; costs nothing."""
        return tuple(weight._version for _, weight in stored(self._model))

    def check(self) -> None:
        """Compare the weights with those that were loaded.

        Raises:
            ModelError: Something has written to them.
        """
        if (found := self.digest()) != self.hash:
            raise ModelError(
                f"the weights of the model '{self._name}' were changed: "
                f"their hash was {self.hash} and is {found}"
            )

    def keep_spare(self) -> None:
        """Keep a copy of the weights on the CPU, from which `restore` can take them.

        It is kept only where they cannot be loaded again, and take little of the free memory.
        """
        if self.again is None and self._spare is None:
            weights = [weight for _, weight in stored(self._model)]
            size = sum(weight.numel() * weight.element_size() for weight in weights)
            if size <= _SPARE_SHARE * psutil.virtual_memory().available:
                self._spare = [weight.detach().to("cpu", copy=True) for weight in weights]

    def restore(self) -> bool:
        """Bring back the weights as they were loaded, where something has written to them.

        Returns:
            Whether the weights are right now. They are not where a large model was given as an
            object, or where what was loaded is not there any more.
        """
        if self.digest() != self.hash:
            right = self.again() if self.again is not None else self._spare or []
            weights = [weight for _, weight in stored(self._model)]
            if [weight.shape for weight in weights] == [tensor.shape for tensor in right]:
                with torch.no_grad():
                    for weight, tensor in zip(weights, right, strict=True):
                        weight.copy_(tensor)
        return self.digest() == self.hash


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
