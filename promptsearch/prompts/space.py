"""The space of hard prompts: which tokens, how many, and what may not be proposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import normalize

from promptsearch.errors import StrategyError, TaskError
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.tasks.notation import Slot

#: The most cosines computed at a time: those of a whole vocabulary with a large pool would take
#: gigabytes.
_COSINES = 2**22


class PromptSpace:
    """All sequences of `length` tokens from a pool.

    Args:
        pool: Token ids that a hard prompt may use, in any order, without repeats; kept sorted.
        length: The number of tokens in a prompt, over all slots of the template.
        decode: Turns ids into text, for messages, reports and shorter prompts.
        slots: The template's slots, `length` tokens in all; left out: one slot.
        first: Turns ids into text where the first slot begins a row; left out: `decode` does.
        embeddings: Gives the LM's embeddings, shape `(vocabulary, width)`; called when they are
            first needed.

    Raises:
        TaskError: The pool is empty, the length is below 1, or the slots have another length.
    """

    def __init__(
        self,
        pool: ArrayLike,
        length: int,
        decode: Callable[[Sequence[int]], str] = str,
        *,
        slots: Sequence[Slot] = (),
        first: Callable[[Sequence[int]], str] | None = None,
        embeddings: Callable[[], Tensor] | None = None,
    ) -> None:
        ids = np.unique(np.asarray(pool, dtype=np.int64))
        if ids.size == 0:
            raise TaskError("the pool of prompt tokens is empty: no token passed its filters")
        if length < 1:
            raise TaskError(f"a prompt needs at least 1 token, got length {length}")
        self.slots = tuple(slots) or (Slot(length, space=False),)
        if (given := sum(slot.length or 0 for slot in self.slots)) != length:
            raise TaskError(
                f"the slots of a prompt of {length} tokens have {given} tokens: "
                "bind the template to its length first"
            )
        self._embeddings = embeddings
        ids.setflags(write=False)
        self.pool: NDArray[np.int64] = ids  # (pool,)
        self.length = length
        self.decode = decode
        self._first = first or decode
        self._members = frozenset(ids.tolist())

    def over(self, pool: ArrayLike) -> PromptSpace:
        """The space of prompts for the same slots over another pool."""
        return PromptSpace(
            pool,
            self.length,
            self.decode,
            slots=self.slots,
            first=self._first,
            embeddings=self._embeddings,
        )

    def shown(self, text: Callable[..., str], embeddings: Callable[[], Tensor]) -> PromptSpace:
        """The same space in an object of its own, which reaches the LM by these arguments alone.

        Args:
            text: As the method.
            embeddings: As for the constructor; never called where this space has no embeddings.
        """
        known = None if self._embeddings is None else embeddings
        return PromptSpace(
            self.pool,
            self.length,
            text,
            slots=self.slots,
            first=partial(text, begins=True),
            embeddings=known,
        )

    def text(self, ids: Sequence[int], *, begins: bool = False) -> str:
        """The text of ids.

        Args:
            ids: Ids of the vocabulary.
            begins: Whether they stand in the first slot, which may begin a row.
        """
        return (self._first if begins else self.decode)(ids)

    @property
    def embeddings(self) -> Tensor:
        """The LM's embeddings, shape `(vocabulary, width)`.

        Raises:
            StrategyError: The space was made without any.
        """
        if self._embeddings is None:
            raise StrategyError(
                "this space of prompts was made without embeddings, "
                "so it knows no neighbours of a token"
            )
        return self._embeddings()

    @property
    def size(self) -> int:
        """The exact number of prompts in the space."""
        size: int = len(self.pool) ** self.length
        return size

    def prompt(self, indices: ArrayLike) -> HardPrompt:
        """The prompt whose tokens stand at these places of the pool.

        Args:
            indices: Places in the pool, shape `(length,)`, each in `[0, len(pool))`: what
                optimizers over integers propose.
        """
        return HardPrompt(self.pool[np.asarray(indices, dtype=np.int64)])

    def indices(self, prompt: HardPrompt) -> NDArray[np.int64]:
        """The places of a prompt's tokens in the pool, shape `(length,)`; reverses `prompt`."""
        return np.searchsorted(self.pool, np.asarray(prompt.ids))

    def sample(self, rng: np.random.Generator, count: int) -> list[HardPrompt]:
        """`count` prompts, drawn uniformly from the space, with replacement."""
        return [self.prompt(row) for row in rng.integers(len(self.pool), size=(count, self.length))]

    def beginning(self, ids: Sequence[int]) -> HardPrompt | TextPrompt:
        """The prompt that only the first tokens make.

        It is a text prompt: each slot holds the text of its own tokens, and slots that no token
        reaches are empty. With all `length` tokens it is a hard prompt.

        Args:
            ids: Tokens of the pool, at most `length`.
        """
        if len(ids) == self.length:
            return HardPrompt(ids)
        texts: list[str] = []
        begin = 0
        for slot in self.slots:
            part = ids[begin : begin + (slot.length or 0)]
            begin += slot.length or 0
            text = self.text(part, begins=not texts) if part else ""
            texts.append(slot.held(text))
        return TextPrompt(texts)

    def slot_texts(self, prompt: TextPrompt) -> list[str]:
        """What a text prompt puts into each slot: its text, after the slot's space if it has one.

        Args:
            prompt: The prompt; texts beyond the slots, found in another template, stay as they are.
        """
        texts = [slot.holding(text) for slot, text in zip(self.slots, prompt.texts, strict=False)]
        return [*texts, *prompt.texts[len(texts) :]]

    def neighbours(self, tokens: ArrayLike, count: int) -> NDArray[np.int64]:
        """The tokens of the pool that are nearest to given tokens, by the cosine of embeddings.

        Args:
            tokens: Ids of the vocabulary, in the pool or not, shape `(tokens,)`.
            count: The number of neighbours wanted for each token.

        Returns:
            Ids, nearest first, shape `(tokens, min(count, len(pool) - 1))`. No token is a neighbour
            of itself; among equally near tokens the lower id comes first.

        Raises:
            StrategyError: The space knows no embeddings, or `count` is below 1.
        """
        if count < 1:
            raise StrategyError(f"a token needs at least 1 neighbour, got {count}")
        ids = torch.as_tensor(np.asarray(tokens, dtype=np.int64))
        own = torch.as_tensor(self.pool.copy())
        count = min(count, len(self.pool) - 1)
        found = [np.empty((0, count), dtype=np.int64)]
        for some in ids.split(max(1, _COSINES // len(self.pool))):
            cosines = self._directions(some) @ self._pool_directions.T  # (some, pool)
            cosines[some[:, None] == own] = -2  # a token itself ranks below all others
            nearest = cosines.sort(dim=1, descending=True, stable=True).indices[:, :count]
            found.append(self.pool[nearest.numpy()])
        return np.concatenate(found)

    @cached_property
    def _pool_directions(self) -> Tensor:
        return self._directions(torch.as_tensor(self.pool.copy()))  # (pool, width)

    def _directions(self, tokens: Tensor) -> Tensor:
        """The tokens' embeddings, scaled to length 1, shape `(tokens, width)`."""
        table = self.embeddings
        return normalize(table.detach()[tokens.to(table.device)].float().cpu(), dim=-1)

    def check(self, prompt: HardPrompt) -> None:
        """Refuse a prompt that is not in the space.

        Raises:
            StrategyError: It has the wrong number of tokens, or tokens outside the pool.
        """
        if len(prompt.ids) != self.length:
            raise StrategyError(
                f"a hard prompt here has {self.length} tokens, got {len(prompt.ids)}: "
                f"{list(prompt.ids)[:20]}"
            )
        strangers = [i for i in prompt.ids if i not in self._members]
        if strangers:
            raise StrategyError(
                f"the tokens {strangers} are not in the pool of {len(self.pool)} tokens: "
                "propose ids from objective.space.pool"
            )
