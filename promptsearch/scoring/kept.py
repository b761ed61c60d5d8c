"""Keys and values of trunks: those that every call needs are kept, the others are computed again."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from promptsearch.errors import ModelError
from promptsearch.model import LanguageModel
from promptsearch.scoring.forward import keys_values, ran_out
from promptsearch.scoring.layout import Layout
from promptsearch.scoring.tree import Path

#: Examples whose trunks are computed together.
_TOGETHER = 32


class Kept:
    """The trunks of a split whose inputs stand before the prompt.

    What is kept is decided beforehand, and always computed in the same passes: a loss does not depend on what was asked
    for earlier. What fits stays; were the oldest thrown out for the newest, a round over a little too much would find
    nothing kept.

    Args:
        lm: The model.
        layouts: Of the examples that are kept, the first of the split.
        limit: Tokens of a pass.

    Attributes:
        tokens: Whose keys and values are kept.
        computed: Tokens that went through the LM so far.
    """

    def __init__(self, lm: LanguageModel, layouts: Sequence[Layout], limit: int) -> None:
        self._lm = lm
        self._limit = limit
        leads = list(dict.fromkeys(layout.segments[0] for layout in layouts if layout.lead))
        chunks = [leads[i : i + _TOGETHER] for i in range(0, len(leads), _TOGETHER)]
        self._chunk = {lead: chunk for chunk in chunks for lead in chunk}
        self._found: dict[Path, Tensor] = {}
        self.tokens = sum(map(len, leads))
        self.computed = 0

    def get(self, trunks: Sequence[Path], vectors: Tensor | None) -> list[Tensor]:
        """Keys and values of trunks, shape `(tokens, values)` each.

        Args:
            trunks: Their ids.
            vectors: Those of soft prompts, see `forward.run`.
        """
        for trunk in trunks:
            if trunk in self._chunk and trunk not in self._found:
                chunk = self._chunk[trunk]
                self._found.update(zip(chunk, self._run(chunk, None), strict=True))
        others = [trunk for trunk in trunks if trunk not in self._found]
        found = self._found | dict(zip(others, self._run(others, vectors), strict=True))
        return [found[trunk] for trunk in trunks]

    def _run(self, trunks: Sequence[Path], vectors: Tensor | None) -> list[Tensor]:
        try:
            found = keys_values(self._lm, trunks, vectors, self._limit)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            if len(trunks) == 1:
                raise ModelError(
                    f"the memory of {self._lm.device} does not hold one row of {len(trunks[0])} tokens: take a smaller model, "
                    "a smaller `memory`, or another device"
                ) from error
            half = len(trunks) // 2
            return self._run(trunks[:half], vectors) + self._run(trunks[half:], vectors)
        self.computed += sum(map(len, trunks))
        return found
