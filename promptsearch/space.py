"""The space of hard prompts: which tokens, how many, and what may not be proposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptsearch.errors import StrategyError, TaskError
from promptsearch.prompt import HardPrompt


class PromptSpace:
    """All sequences of `length` tokens from a pool.

    Args:
        pool: Token ids that a hard prompt may use, any order, no repeats; kept sorted.
        length: Tokens in a prompt, over all slots of the template.
        decode: Turns ids into text, for messages and reports.

    Raises:
        TaskError: The pool is empty, or the length is below 1.
    """

    def __init__(self, pool: ArrayLike, length: int, decode: Callable[[Sequence[int]], str] = str) -> None:
        ids = np.unique(np.asarray(pool, dtype=np.int64))
        if ids.size == 0:
            raise TaskError("the pool of prompt tokens is empty: no token passed its filters")
        if length < 1:
            raise TaskError(f"a prompt needs at least 1 token, got length {length}")
        ids.setflags(write=False)
        self.pool: NDArray[np.int64] = ids  # (pool,)
        self.length = length
        self.decode = decode
        self._members = frozenset(ids.tolist())

    @property
    def size(self) -> int:
        """The number of prompts in the space, exactly."""
        size: int = len(self.pool) ** self.length
        return size

    def prompt(self, indices: ArrayLike) -> HardPrompt:
        """The prompt whose tokens stand at these places of the pool.

        Args:
            indices: Shape `(length,)`, each in `[0, len(pool))`: what optimizers over integers propose.
        """
        return HardPrompt(self.pool[np.asarray(indices, dtype=np.int64)])

    def indices(self, prompt: HardPrompt) -> NDArray[np.int64]:
        """The reverse of `prompt`, shape `(length,)`."""
        return np.searchsorted(self.pool, np.asarray(prompt.ids))

    def sample(self, rng: np.random.Generator, count: int) -> list[HardPrompt]:
        """`count` prompts, uniform over the space, with replacement."""
        return [self.prompt(row) for row in rng.integers(len(self.pool), size=(count, self.length))]

    def check(self, prompt: HardPrompt) -> None:
        """Refuse a prompt that is not in the space.

        Raises:
            StrategyError: Wrong number of tokens, or tokens outside the pool.
        """
        if len(prompt.ids) != self.length:
            raise StrategyError(f"a hard prompt here has {self.length} tokens, got {len(prompt.ids)}: {list(prompt.ids)[:20]}")
        strangers = [i for i in prompt.ids if i not in self._members]
        if strangers:
            raise StrategyError(
                f"the tokens {strangers} are not in the pool of {len(self.pool)} tokens: propose ids from objective.space.pool"
            )
