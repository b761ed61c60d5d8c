"""The tensors that every call needs: kept from call to call, as far as memory allows.

What is not kept is computed again. These tensors are the keys and values of inputs that stand
before the prompt; or, with gated prompts, the hidden states that enter the lowest layer that
attends to them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.scoring.out_of_memory import in_halves

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", Tensor, KeysValues)

#: The number of examples that are computed together.
_TOGETHER = 32


class Kept(Generic[K, V]):
    """The tensors of items, by item, kept from call to call.

    Which items are kept is decided beforehand, and they are always computed in the same passes: so
    a loss does not depend on what was asked for earlier. What fits stays for good. If the oldest
    tensors made room for the newest, a round over slightly more items than fit would never find one
    that is kept.

    Args:
        run: Puts items through the LM and gives the tensor of each.
        size: Gives the number of an item's tokens.
        items: The items that are kept.
        devices: The LM's devices.

    Attributes:
        tokens: The number of tokens that are kept.
        computed: The number of tokens that went through the LM so far.
    """

    def __init__(
        self,
        run: Callable[[Sequence[K]], list[V]],
        size: Callable[[K], int],
        items: Sequence[K],
        devices: Sequence[torch.device],
    ) -> None:
        self._put_through: Callable[[Sequence[K]], list[V]] = run
        self._size = size
        self._devices = devices
        chunks = [items[i : i + _TOGETHER] for i in range(0, len(items), _TOGETHER)]
        self._chunk = {item: chunk for chunk in chunks for item in chunk}
        self._found: dict[K, V] = {}
        self.tokens = sum(map(size, items))
        self.computed = 0

    def get(
        self, items: Sequence[K], run: Callable[[Sequence[K]], list[V]] | None = None
    ) -> list[V]:
        """The tensors of items, in their order.

        Args:
            items: Any items, kept or not.
            run: Computes items that are not kept; left out: the `run` of the constructor does.

        Raises:
            ModelError: The memory of the device does not hold a single item.
        """
        for item in items:
            if item in self._chunk and item not in self._found:
                chunk = self._chunk[item]
                self._found.update(zip(chunk, self._run(chunk, self._put_through), strict=True))
        others = [item for item in items if item not in self._found]
        found = self._found | dict(
            zip(others, self._run(others, run or self._put_through), strict=True)
        )
        return [found[item] for item in items]

    def clear(self) -> None:
        """Throw away the tensors that are kept, so that they are computed again."""
        self._found.clear()

    def _run(self, items: Sequence[K], run: Callable[[Sequence[K]], list[V]]) -> list[V]:
        parts = in_halves(run, items, self._devices, self._told)
        self.computed += sum(map(self._size, items))
        return [one for part in parts for one in part]

    def _told(self, item: K) -> str:
        """What an item is, and what to do where memory does not hold it."""
        return (
            f"{self._size(item)} tokens: take a smaller model, a smaller `memory`, or another "
            "device"
        )
