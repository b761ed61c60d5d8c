"""Where generated answers end: at a token of the model's own, or before a text of the template."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from promptsearch.models import LanguageModel
from promptsearch.tasks.template import Template


class Ending:
    """What ends an answer, and its text up to there.

    Args:
        lm: The model, whose own tokens end every answer.
        template: The template, whose end token ends an answer, too, as its text does; None for a
            text that goes on as it will.
        stop: A further text before which an answer ends; empty where there is none.
    """

    def __init__(self, lm: LanguageModel, template: Template | None = None, stop: str = "") -> None:
        self._lm = lm
        given = () if template is None else (lm.special.id_of(template.end_token),)
        #: The tokens at which an answer ends.
        self.ids = lm.ends | {i for i in given if i is not None}
        self._stops = tuple(filter(None, (stop, "" if template is None else template.end)))
        # The last tokens of an answer among which a text that ends with the last one begins: a byte
        # each at least, and a character of 4 bytes may be cut at their beginning.
        self._reach = max((len(stop.encode()) for stop in self._stops), default=0) + 4
        self._unwritten = lm.special.ids | self.ids

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether an answer has come to its end.

        Args:
            ids: The answer's tokens so far, at least one; it had no end before the last of them.
        """
        if ids[-1] in self.ids:
            return True
        if not self._stops:
            return False
        written = (i for i in reversed(ids) if i not in self._unwritten)
        near = self._lm.decode([*islice(written, self._reach)][::-1])
        # Where they have fewer bytes, there are tokens without a text, and it may begin before all.
        if len(near.encode()) >= self._reach and not self._stopped(near):
            return False
        return self._stopped(self._written(ids))

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer up to its end, without special tokens.

        Args:
            ids: The answer's tokens, its end among them.
        """
        text = self._written(ids)
        for stop in self._stops:
            text = text.partition(stop)[0]
        return text

    def _stopped(self, text: str) -> bool:
        return any(stop in text for stop in self._stops)

    def _written(self, ids: Sequence[int]) -> str:
        # What a decoder writes begins a row.
        begins = self._lm.family.encodes
        return self._lm.decode([i for i in ids if i not in self._unwritten], begins=begins)
