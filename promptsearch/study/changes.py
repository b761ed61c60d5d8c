"""A winner in pieces, and the prompts that differ from it a little: what a search might have found.

The pieces of a hard prompt are its tokens. Those of a text are its lines, or its words where it has
one line; a long text is cut into as many neighbouring groups as are affordable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, cast

import numpy as np

from promptsearch.errors import StrategyError
from promptsearch.models.protocol import TextModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import AnswerWords, Prompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.verbalized import VerbalizedPrompt
from promptsearch.records.explained import Way
from promptsearch.scoring.layout import begins_row
from promptsearch.tasks.template import Template

#: The most pieces of a text, orders that are tried, and near words for each token.
PIECES, ORDERS, NEAR = 16, 8, 2
#: A line or a word, with the space around it.
_LINE, _WORD = re.compile(r"\s*[^\n]+\s*"), re.compile(r"\s*\S+\s*")


@dataclass(frozen=True)
class Change:
    """A winner that was changed.

    Args:
        way: How it was changed.
        place: The place of the piece; None where all of them were shuffled.
        prompt: The changed prompt.
    """

    way: Way
    place: int | None
    prompt: Prompt


class Pieces(Protocol):
    """A prompt of words in pieces."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The text of each piece."""

    def without(self, place: int) -> Prompt:
        """The prompt without one piece."""

    def ordered(self, order: Sequence[int]) -> Prompt:
        """The prompt with its pieces in another order."""

    def near(self, place: int) -> Sequence[Prompt]:
        """The prompts with a near word in the place of a piece; none where nothing is near."""


def pieces_of(prompt: Prompt, space: PromptSpace, template: Template, lm: TextModel) -> Pieces:
    """The pieces of a prompt of words.

    Args:
        prompt: A hard prompt or a text, with answer words or without.
        space: The space that was searched.
        template: The template, bound.
        lm: The model, for its tokenizer.
    """
    words = getattr(prompt, "words", prompt)  # those beside which answer words stand
    pieces: Pieces
    if isinstance(words, HardPrompt):
        pieces = _Tokens(words, space, template, lm)
    else:
        (text,) = TextPrompt.among([words])
        pieces = _Words(text)
    return pieces if prompt.answers is None else _Answered(pieces, prompt.answers)


def changes_of(pieces: Pieces, rng: np.random.Generator) -> list[Change]:
    """The changed prompts: each piece left out, other orders, near words; none comes twice.

    Args:
        pieces: The winner.
        rng: Draws the orders.
    """
    count = len(pieces.shown)
    found = [Change("without", place, pieces.without(place)) for place in range(count)]
    own = pieces.ordered(range(count))
    orders = (pieces.ordered(rng.permutation(count).tolist()) for _ in range(4 * ORDERS))
    fresh = dict.fromkeys(each for each in orders if each != own)
    found += [Change("shuffled", None, prompt) for prompt in list(fresh)[:ORDERS]]
    return found + [
        Change("near", place, prompt) for place in range(count) for prompt in pieces.near(place)
    ]


class _Tokens:
    """A hard prompt in tokens, as `Pieces`."""

    def __init__(
        self, prompt: HardPrompt, space: PromptSpace, template: Template, lm: TextModel
    ) -> None:
        self._ids, self._space, self._template, self._lm = prompt.ids, space, template, lm
        self.shown = tuple(lm.decode([i]) for i in prompt.ids)

    def without(self, place: int) -> Prompt:
        """A text: the slot of the token holds one token less."""
        sizes = [slot.length or 0 for slot in self._template.slots]
        slots = np.repeat(np.arange(len(sizes)), sizes)
        left: list[tuple[int, ...]] = [
            tuple(i for at, i in enumerate(self._ids) if at != place and slots[at] == slot)
            for slot in range(len(sizes))
        ]
        beginnings = begins_row(self._template, self._lm, left)
        texts = [
            self._lm.decode(ids, begins=at) if ids else ""
            for ids, at in zip(left, beginnings, strict=True)
        ]
        return TextPrompt.standing(texts, self._template)

    def ordered(self, order: Sequence[int]) -> Prompt:
        """The same tokens in another order."""
        return HardPrompt(self._ids[i] for i in order)

    def near(self, place: int) -> Sequence[Prompt]:
        """Words of the pool whose embeddings point where the token's does."""
        try:
            near = self._space.neighbours([self._ids[place]], NEAR)[0].tolist()
        except StrategyError:  # a model behind an endpoint shows no embeddings
            return ()
        head, tail = self._ids[:place], self._ids[place + 1 :]
        return [HardPrompt((*head, i, *tail)) for i in near]


class _Words:
    """A text in lines or words, as `Pieces`; what parts them stays where it is."""

    def __init__(self, prompt: TextPrompt) -> None:
        cut = [list(_grouped(_cut(text), PIECES)) for text in prompt.texts]
        self._slots = [slot for slot, pieces in enumerate(cut) for _ in pieces]
        found = [_parted(piece) for pieces in cut for piece in pieces]
        self._around = [(before, behind) for before, _, behind in found]
        self._texts, self.shown = prompt.texts, tuple(words for _, words, _ in found)

    def without(self, place: int) -> Prompt:
        """The text without a piece and what parts it from the next one."""
        return self._made([i for i in range(len(self.shown)) if i != place], closed=True)

    def ordered(self, order: Sequence[int]) -> Prompt:
        """The same pieces in another order."""
        return self._made(order, closed=False)

    def near(self, place: int) -> Sequence[Prompt]:
        """Nothing is near: words of a text may be several tokens."""
        return ()

    def _made(self, order: Sequence[int], *, closed: bool) -> Prompt:
        """The text of some pieces.

        Args:
            order: The places of the pieces.
            closed: Whether the pieces bring their own surroundings along, and do not take over
                those of the piece that stood in their place.
        """
        texts = ["" for _ in self._texts]
        for at, i in enumerate(order):
            before, behind = self._around[i if closed else at]
            texts[self._slots[i if closed else at]] += before + self.shown[i] + behind
        if closed:  # an end that has come to light holds no space
            texts = [
                text.strip(" ") if text.strip() and text != whole else text
                for text, whole in zip(texts, self._texts, strict=True)
            ]
        return TextPrompt(texts)


class _Answered:
    """A prompt with answer words, as `Pieces`: its words change, the answer words stay."""

    def __init__(self, words: Pieces, answers: AnswerWords) -> None:
        self._words, self._answers = words, answers
        self.shown = words.shown

    def without(self, place: int) -> Prompt:
        """The prompt without one piece of its words."""
        return self._with(self._words.without(place))

    def ordered(self, order: Sequence[int]) -> Prompt:
        """The prompt with its words in another order."""
        return self._with(self._words.ordered(order))

    def near(self, place: int) -> Sequence[Prompt]:
        """The prompts with a near word in the place of a piece."""
        return [self._with(words) for words in self._words.near(place)]

    def _with(self, words: Prompt) -> Prompt:
        return VerbalizedPrompt(cast("HardPrompt | TextPrompt", words), self._answers)


def _cut(text: str) -> list[str]:
    lines = _LINE.findall(text)
    return lines if len(lines) > 1 else _WORD.findall(text)


def _grouped(pieces: Sequence[str], most: int) -> Iterator[str]:
    """The pieces, neighbours joined so that there are at most so many."""
    count = max(1, len(pieces))
    for _, group in groupby(enumerate(pieces), lambda each: each[0] * min(most, count) // count):
        yield "".join(piece for _, piece in group)


def _parted(piece: str) -> tuple[str, str, str]:
    """The space before a piece, the piece, and the space behind it."""
    words = piece.strip()
    before, _, behind = piece.partition(words) if words else (piece, "", "")
    return before, words, behind
