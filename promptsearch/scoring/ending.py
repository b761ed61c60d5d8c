"""Where generated answers end: at a token of the model's own, or before a text of the template."""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.models import LanguageModel


class Ending:
    """What ends an answer, and its text up to there.

    Args:
        lm: The model, whose own tokens end every answer.
        stop: The text before which an answer ends; empty where only the model's tokens end it.
    """

    def __init__(self, lm: LanguageModel, stop: str = "") -> None:
        self._lm, self._stop = lm, stop
        self._unwritten = lm.special.ids | lm.ends

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether an answer has come to its end.

        Args:
            ids: The answer's tokens so far, at least one; it had no end before the last of them.
        """
        return ids[-1] in self._lm.ends or bool(self._stop and self._stop in self._written(ids))

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer up to its end, without special tokens.

        Args:
            ids: The answer's tokens, its end among them.
        """
        text = self._written(ids)
        return text.partition(self._stop)[0] if self._stop else text

    def _written(self, ids: Sequence[int]) -> str:
        return self._lm.decode([i for i in ids if i not in self._unwritten])
