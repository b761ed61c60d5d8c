"""What of a split's examples is kept from call to call, within a limit of bytes.

It is the keys and values of leads, the tokens before the first slot. With gated prompts it is the
hidden states of whole rows that enter the lowest layer that reads the prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.models import LanguageModel
from promptsearch.models.attention.keys_values import KeysValues
from promptsearch.scoring.forward import entering, keys_values
from promptsearch.scoring.prefix_cache import Kept
from promptsearch.scoring.reading import Layout
from promptsearch.scoring.tree import Path, Tree
from promptsearch.scoring.waves import WAVE_TOKENS


class Memory:
    """The tensors of examples that every call needs, as far as the bytes allow.

    Args:
        lm: The model, in the dtype to compute in.
        layouts: The layouts of all examples.
        trees: The whole row of each example, where its states are kept; none where the keys and
            values of leads are.
        name: The split's name, for messages.
        memory: The bytes for keys and values; None: as many as the work at hand wants.
        keep: Whether anything is kept from call to call.
        limit: Gives the most tokens of a pass at this moment.

    Attributes:
        held: The number of each example's tokens for which something may be kept, shape
            `(examples,)`.
        kept: The number of examples, from the first, for which something is kept.
        wave: The most tokens of trunks, or of states, that may be held at a time.

    Raises:
        ModelError: `memory` does not hold what is kept of one example.
    """

    def __init__(
        self,
        lm: LanguageModel,
        layouts: Sequence[Layout],
        trees: Sequence[Tree],
        *,
        name: str,
        memory: int | None,
        keep: bool,
        limit: Callable[[], int],
    ) -> None:
        self._lm, self._layouts, self._trees, self._name = lm, layouts, trees, name
        self._limit = limit
        leads = [layout.lead for layout in layouts]
        self.held = np.array([len(tree.ids) for tree in trees] if trees else leads)
        # The bytes of what is kept for a token.
        numbers = lm.gated_shape[2] if trees else lm.passes.values if lm.passes.trees else 0
        self._bytes = numbers * lm.dtype.itemsize
        room = self._room(memory)
        kept = self._fitting(room) if keep else 0
        if kept < len(layouts):
            # The other examples go through the rest of the memory, some at a time.
            wave = min(WAVE_TOKENS, max(room // 4, int(self.held.max())))
            kept = self._fitting(room - wave) if keep else 0
        else:
            wave = min(WAVE_TOKENS, room)
        self.kept, self.wave = kept, wave
        inputs = list(dict.fromkeys(layout.segments[0] for layout in layouts[:kept] if layout.lead))
        first = limit()
        self._leads = Kept(
            lambda paths: keys_values(lm, paths, None, first), len, inputs, lm.devices
        )
        # The states that enter the lowest layer that the last gated prompts had, and its number.
        self._states: tuple[int, Kept[int, Tensor]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The number of tokens for which something is kept, and its bytes."""
        tokens = int(self.held[: self.kept].sum()) if self._trees else self._leads.tokens
        return tokens, tokens * self._bytes

    def forget(self) -> None:
        """Throw away what is kept; it is computed again when it is needed."""
        self._leads.clear()
        self._states = None

    def trunks(self, paths: Sequence[Path], vectors: Tensor | None) -> tuple[list[KeysValues], int]:
        """The keys and values of trunks, and the number of tokens that were computed for them.

        Args:
            paths: The ids of each trunk.
            vectors: The vectors for which negative ids stand, as in `forward.run`.
        """
        before = self._leads.computed
        found = self._leads.get(
            paths, lambda paths: keys_values(self._lm, paths, vectors, self._limit())
        )
        return found, self._leads.computed - before

    def states(self, layer: int, examples: Sequence[int]) -> tuple[dict[int, Tensor], int]:
        """The states of examples that enter a layer; those of any other layer are forgotten.

        Args:
            layer: The layer's number.
            examples: Ids of examples.

        Returns:
            The states of each example, shape `(tokens, width)`; and the number of tokens that went
            through the layers below for them.
        """
        if self._states is None or self._states[0] != layer:
            lm, limit, trees = self._lm, self._limit(), self._trees
            kept = Kept(
                lambda examples: entering(lm, layer, [trees[e] for e in examples], limit),
                lambda example: len(trees[example].ids),
                list(range(self.kept)),
                lm.devices,
            )
            self._states = layer, kept
        kept = self._states[1]
        before = kept.computed
        found = dict(zip(examples, kept.get(examples), strict=True))
        return found, kept.computed - before

    def _room(self, memory: int | None) -> int:
        """The number of tokens for which `memory` holds what may be kept.

        Raises:
            ModelError: It does not hold the longest example.
        """
        if memory is None or not self._lm.passes.trees:
            return WAVE_TOKENS
        longest = int(self.held.argmax())
        if memory < (least := self._bytes * int(self.held[longest])):
            what = "states" if self._trees else "keys and values"
            raise ModelError(
                f"a memory of {memory:,} bytes does not hold the {what} of {self._name} "
                f"example {longest}: {self.held[longest]} tokens of {self._bytes:,} bytes. "
                f"Expected at least {least:,}"
            )
        return memory // self._bytes

    def _fitting(self, room: int) -> int:
        """The number of examples, from the first, that `room` tokens hold; 0 if none is kept."""
        if not self.held.any() or not self._lm.passes.trees:
            return 0
        seen: set[Path | int] = set()
        for i, layout in enumerate(self._layouts):
            # Many examples may have the same lead, which then takes room once.
            item = i if self._trees else layout.segments[0]
            if item not in seen:
                seen.add(item)
                room -= int(self.held[i])
            if room < 0:
                return i
        return len(self._layouts)
