"""GrIPS: edit the phrases of a given instruction, and keep what lowers the loss.

Prasad et al. 2022, "GrIPS: Gradient-free, Edit-based Instruction Search for Prompting Large
Language Models", arXiv:2203.07281, section 3: each step makes a few candidates by an edit of the
present instruction (delete a phrase, swap two, add a deleted one again, put a paraphrase in place
of one), and takes the best candidate if it is better. A few steps without success end the walk.
Simulated annealing is from the paper's appendix.

Differs from the paper: phrases are spans of words between punctuation marks, not constituents of a
parser; what replaces a phrase is words of the pool, or what a proposer writes, instead of a
paraphraser's answer. The criterion is the loss, not balanced accuracy; the paper's entropy term,
which keeps instructions from always giving the same answer, is an option. When a walk has ended,
another begins from the next given instruction, until the budget is spent. An edit touches one
occurrence of a phrase only, and no text is scored twice.

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from promptsearch import Evaluation, Objective, Prompt, Strategy, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.instructions import VARIATION, read_instruction
from promptsearch.search.options import Count

#: How many edits are tried for each candidate before an instruction counts as used up.
_TRIES = 50
#: The steps in which the annealing's temperature falls to 1 / e of itself, as in the paper.
_COOLING = 5


Span = tuple[int, int]  # begin and end of a phrase among the words of a text


class Edit(NamedTuple):
    """A text after an edit.

    Args:
        pieces: Its words, each with the blanks before it.
        cut: The phrases that were taken out.
    """

    pieces: list[str]
    cut: Sequence[str] = ()


class Blank(str):
    """A phrase that the proposer is to write anew; other edits move it as one word."""

    __slots__ = ()


class Grips(Strategy):
    """Edit the phrases of an instruction.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the edits.
        prompts: The instructions to start from, one walk from each in turn. Left out: each walk
            starts from words of the pool, as many as a hard prompt has tokens.
        batch: Candidates in each step.
        edits: Edits that make a candidate.
        phrase: The most words in a phrase.
        patience: Steps without success, in a row, after which a walk begins anew.
        substitute: What stands in place of a phrase: words of the `pool`, or what the `proposer`
            writes.
        entropy: Weight in nats of the predicted answers' entropy, which is taken off the loss; only
            where the answers are choices.
        annealing: The temperature in nats at which a walk also takes worse candidates; it falls
            step by step; 0 never takes worse ones.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    paper: Paper | None = Paper(50, "prompts", "at most 10 steps of 5, in its authors' code")
    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        prompts: list[str] = [],  # noqa: B006 - read only
        batch: Count = 5,
        edits: Count = 1,
        phrase: Count = 2,
        patience: Count = 20,
        substitute: Literal["pool", "proposer"] = "pool",
        entropy: Annotated[float, Field(ge=0)] = 0.0,
        annealing: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._rng = np.random.default_rng(seed)
        prompts = self.first_texts(prompts)
        self._prompts, self._batch, self._edits, self._phrase, self._patience = (
            prompts,
            batch,
            edits,
            phrase,
            patience,
        )
        self._substitute, self._entropy, self._annealing = substitute, entropy, annealing
        self.walks = 0
        self.base: str | None = None  # None: a walk begins
        self.value = math.inf  # of the base, nats
        self.step = self._vain = 0
        self._deleted: list[str] = []  # phrases that the walk has taken out
        self._cuts: dict[str, list[str]] = {}  # what was deleted to make a candidate
        self._known: dict[str, float] = {}  # text -> what it is ranked by, +inf for failures, nats

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that there is something to edit."""
        if not all(text.strip() for text in options["prompts"]):
            raise StrategyError(
                "one of the 'prompts' is empty: give instructions to edit, or leave them out"
            )

    @classmethod
    def asks_proposer(cls, options: Mapping[str, Any]) -> bool:
        """Where it writes what phrases are substituted by."""
        return bool(options["substitute"] == "proposer")

    @classmethod
    def takes_words(cls, options: Mapping[str, Any]) -> bool:
        """Where they begin a walk, or stand in place of phrases."""
        given = options["prompts"] or options["start"] is not None
        return bool(options["substitute"] == "pool" or not given)

    def ask(self) -> Sequence[Prompt]:
        """An instruction to start from, or edits of the present one."""
        for _ in range(_TRIES):  # where nothing new can be made of an instruction, the walk ends
            if self.base is None:
                self._begin()
            assert self.base is not None
            if self.base not in self._known:
                return [TextPrompt(self.base)]
            if self.value < math.inf and (fresh := self._candidates(self.base)):
                return [TextPrompt(text) for text in fresh]
            self.base = None
        return []

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Go on from the best candidate, if it is better."""
        texts = [prompt.texts[0] for prompt in TextPrompt.among(prompts)]
        values = self.criterion(evaluation)
        self._known.update(zip(texts, values, strict=True))
        best = int(np.argmin(values))
        if texts[0] == self.base:
            self.value = values[0]
            return
        self.step += 1
        if self.takes(values[best]):
            self._vain = 0 if values[best] < self.value else self._vain + 1
            self.base, self.value = texts[best], values[best]
            self._deleted += self._cuts[texts[best]]
        else:
            self._vain += 1
        if self._vain >= self._patience:
            self.base = None

    def _begin(self) -> None:
        """Begin a new walk."""
        if self._prompts:
            self.base = self._prompts[self.walks % len(self._prompts)]
        else:
            self.base = " ".join(self._word() for _ in range(self.objective.space.length))
        self.value = self._known.get(self.base, math.inf)
        self.walks += 1
        self.step = self._vain = 0
        self._deleted = []

    def criterion(self, evaluation: Evaluation) -> list[float]:
        """What to rank by, in nats: loss minus weighted entropy of the predictions (section 3)."""
        if not self._entropy or evaluation.choices is None:
            return [float(value) for value in evaluation.values]
        # Where the answers to choose from differ by row, only their texts compare.
        options = [each.options for each in self.objective.examples(evaluation.examples)]
        found = []
        # The choices of each prompt have the shape (examples, choices).
        for value, choices in zip(evaluation.values, evaluation.choices, strict=True):
            # Behind the choices of an example that has fewer stands NaN.
            chosen = [
                int(np.nanargmax(row)) if own is None else own[int(np.nanargmax(row))]
                for own, row in zip(options, choices, strict=True)
                if not np.isnan(row).all()
            ]
            _, counts = np.unique(chosen, return_counts=True)
            shares = counts / max(1, len(chosen))
            # Section 3: the sum of p log p is minus the entropy.
            found.append(float(value) + self._entropy * float((shares * np.log(shares)).sum()))
        return found

    def takes(self, value: float) -> bool:
        """Whether to go on from this value: always if it is better, else by chance (annealing)."""
        worse = value - self.value
        if worse < 0 or not self._annealing or not math.isfinite(value):
            return worse < 0
        heat = self._annealing * math.exp(-self.step / _COOLING)
        if not heat:  # after thousands of steps it is no number above 0 any more
            return worse == 0
        return bool(self._rng.random() < math.exp(-worse / heat))

    def _candidates(self, base: str) -> list[str]:
        """New texts, each the base with some edits."""
        self._cuts = {}
        head, _, tail = base.partition(base.strip())  # blanks that no edit touches
        # Texts with phrases that wait for the proposer's answer, and what was deleted before.
        waiting: list[tuple[list[str], list[str]]] = []
        for _ in range(_TRIES * self._batch):
            if len(self._cuts) + len(waiting) == self._batch:
                break
            pieces, cut = split(base), list[str]()
            for _ in range(self._edits):
                pieces, removed = self._edit(pieces)
                cut += removed
            if any(isinstance(piece, Blank) for piece in pieces):
                waiting.append((pieces, cut))
            else:
                self._enter(head, "".join(pieces), tail, cut)
        written = self._written([each for pieces, _ in waiting for each in pieces])
        for pieces, cut in waiting:
            edited = [next(written) if isinstance(piece, Blank) else piece for piece in pieces]
            self._enter(head, "".join(edited), tail, cut)
        return list(self._cuts)

    def _written(self, pieces: Sequence[str]) -> Iterator[str]:
        """What the proposer writes for each blank; the phrase as it was where it writes nothing."""
        blanks = [piece for piece in pieces if isinstance(piece, Blank)]
        if not blanks:
            return
        texts = self.objective.proposer.generate(
            [VARIATION.format(blank.strip()) for blank in blanks],
            seed=self.seed,
            max_tokens=16,
            stop=("\n",),
        )
        for blank, text in zip(blanks, texts, strict=True):
            yield f" {line}" if (line := read_instruction(text)) else blank

    def _enter(self, head: str, edited: str, tail: str, cut: list[str]) -> None:
        """Take an edited text in if it is new; the blanks before its first word are not its own."""
        text = head + edited.strip() + tail
        if edited.strip() and text not in self._known and text not in self._cuts:
            self._cuts[text] = cut

    def _edit(self, pieces: list[str]) -> Edit:
        """One edit at one place, of a kind that is drawn.

        Args:
            pieces: Words, each with the blanks before it.
        """
        spans = phrases_of(pieces, self._phrase)
        span = self._pick(spans)
        others = [other for other in spans if other[1] <= span[0] or other[0] >= span[1]]
        kinds = ["delete"] if span[1] - span[0] < len(pieces) else []
        kinds += ["swap"] if others else []
        kinds += ["add"] if self._deleted else []
        # Half of all edits bring something new in, since there are many more edits of that kind.
        kind = (
            kinds[self._rng.integers(len(kinds))]
            if kinds and self._rng.random() < 0.5
            else "substitute"
        )
        if kind == "delete":
            return delete(pieces, span)
        if kind == "swap":
            return swap(pieces, span, self._pick(others))
        if kind == "add":
            phrase = self._deleted[self._rng.integers(len(self._deleted))]
            return add(pieces, phrase, int(self._rng.integers(len(pieces) + 1)))
        if self._substitute == "proposer":
            begin, end = span
            return Edit([*pieces[:begin], Blank("".join(pieces[begin:end])), *pieces[end:]])
        return substitute(pieces, span, [self._word() for _ in range(span[0], span[1])])

    def _pick(self, spans: list[Span]) -> Span:
        """A phrase, drawn so that each number of words is as likely as any other."""
        size = self._rng.choice(sorted({b - a for a, b in spans}))
        found = [span for span in spans if span[1] - span[0] == size]
        return found[self._rng.integers(len(found))]

    def _word(self) -> str:
        """A word of the pool."""
        space = self.objective.space
        return space.decode([int(self._rng.choice(space.pool))]).strip()


def split(text: str) -> list[str]:
    """A text as words, each with the blanks before it; blanks around the text are left out."""
    pieces = re.findall(r"\s*\S+", text)
    # The first word gets a blank, too, so that it may move.
    return [f" {pieces[0].strip()}", *pieces[1:]] if pieces else []


def phrases_of(pieces: Sequence[str], longest: int) -> list[Span]:
    """All spans of up to `longest` words without a punctuation mark inside: begin and end.

    Args:
        pieces: Words, as `split` gives them.
        longest: The most words in a span.
    """
    spans = []
    for begin in range(len(pieces)):
        for end in range(begin + 1, min(begin + longest, len(pieces)) + 1):
            spans.append((begin, end))
            if _mark(pieces[end - 1]):
                break
    return spans


def delete(pieces: list[str], span: Span) -> Edit:
    """Take a phrase out."""
    begin, end = span
    return Edit(pieces[:begin] + pieces[end:], ["".join(pieces[begin:end])])


def swap(pieces: list[str], one: Span, other: Span) -> Edit:
    """Let two phrases change places."""
    (a, b), (c, d) = sorted([one, other])
    return Edit(pieces[:a] + pieces[c:d] + pieces[b:c] + pieces[a:b] + pieces[d:])


def add(pieces: list[str], phrase: str, place: int) -> Edit:
    """Put a phrase that was taken out before the word at a place."""
    return Edit([*pieces[:place], *split(f" {phrase.strip()}"), *pieces[place:]])


def substitute(pieces: list[str], span: Span, words: Sequence[str]) -> Edit:
    """Put other words in place of a phrase's, one for one; blanks and punctuation stay."""
    begin, end = span
    new = [
        f"{piece[: -len(piece.lstrip())]}{word}{_mark(piece)}"
        for piece, word in zip(pieces[begin:end], words, strict=True)
    ]
    return Edit(pieces[:begin] + new + pieces[end:])


def _mark(piece: str) -> str:
    """The punctuation marks behind a word."""
    found = re.search(r"(?<=\w)[.,;:?!]+$", piece)
    return found[0] if found else ""
