"""What every call needs of the examples: kept as far as memory allows, the rest is computed again.

Keys and values of inputs that stand before the prompt; or, below gated prompts, hidden states that enter the lowest layer that
attends to them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.scoring.forward import ran_out

K = TypeVar("K", bound=Hashable)

#: Examples that are computed together.
_TOGETHER = 32


class Kept(Generic[K]):
    """Tensors of items, by the item.

    What is kept is decided beforehand, and always computed in the same passes: a loss does not depend on what was asked
    for earlier. What fits stays; were the oldest thrown out for the newest, a round over a little too much would find
    nothing kept.

    Args:
        run: Puts items through the LM and gives the tensor of each.
        size: Tokens of an item.
        items: That are kept.
        device: Of the LM.

    Attributes:
        tokens: That are kept.
        computed: Tokens that went through the LM so far.
    """

    def __init__(
        self,
        run: Callable[[Sequence[K]], list[Tensor]],
        size: Callable[[K], int],
        items: Sequence[K],
        device: torch.device,
    ) -> None:
        self._put_through = run
        self._size = size
        self._device = device
        chunks = [items[i : i + _TOGETHER] for i in range(0, len(items), _TOGETHER)]
        self._chunk = {item: chunk for chunk in chunks for item in chunk}
        self._found: dict[K, Tensor] = {}
        self.tokens = sum(map(size, items))
        self.computed = 0

    def get(
        self, items: Sequence[K], run: Callable[[Sequence[K]], list[Tensor]] | None = None
    ) -> list[Tensor]:
        """The tensors of items, in their order.

        Args:
            items: Any.
            run: For those that are not kept; left out: as for the others.
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
        """Throw away what was found."""
        self._found.clear()

    def _run(self, items: Sequence[K], run: Callable[[Sequence[K]], list[Tensor]]) -> list[Tensor]:
        try:
            found = run(items)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            if len(items) == 1:
                raise ModelError(
                    f"the memory of {self._device} does not hold one row of {self._size(items[0])} tokens: take a smaller "
                    "model, a smaller `memory`, or another device"
                ) from error
            half = len(items) // 2
            return self._run(items[:half], run) + self._run(items[half:], run)
        self.computed += sum(map(self._size, items))
        return found
