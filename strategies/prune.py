"""Prune: solved examples, from which tokens are deleted as long as the loss falls.

J. Wang et al. 2025, "Evolving Prompts In-Context: An Open-ended, Self-replicating Perspective"
(PromptQuine), arXiv:2506.17930: what is left of a few solved examples after many deletions is
unnatural text, and often works better than the examples did. `evolution` is the paper's search:
each child loses a few tokens of a parent, which won a tournament, and the better ones live on.
`greedy` is its hill climbing, TAPruning: the deletions are tried in turn, and one is taken where
the loss does not rise above the lowest of the walk by more than a threshold. It is first-ascent
where one deletion is scored at a time, and steepest-ascent where all are.

Differs from the paper: several draws of examples compete in the first generation, and the survivors
are the best of old and new, so that the best prompt stays a parent; the program keeps the children
alone. No child loses more than an eighth of its parent, so that short prompts are cut with care.
Where the survivors have no new children, others begin; where a walk finds no deletion to take,
another begins. Losses are compared by their difference, since their ratio, which the program takes,
turns round where numbers are negative. No prompt is scored twice. The core ranks prompts again on
other examples at the end.

A prompt is a text. A deletion may let the rest be read as other tokens than it consisted of before:
the child then is what the model reads of its text, and is left out where that is no shorter, or
where a character was cut in two.

Beats random on the planted objective `separable` where it begins with words that hold the planted
prompt, and random deletion where the best part of a text is known.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from promptsearch import Evaluation, Objective, Prompt, Strategy, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.options import Count
from promptsearch.search.unscored import check_unscored

#: The tries for a child until one is new, and the beginnings that may lead to nothing new.
_TRIES = 20
#: A child loses at most one of this many tokens, or one token.
_LEAST = 8
#: What a decoder writes for a part of a character.
_CUT = "\ufffd"

Ids = tuple[int, ...]  # (tokens,) of one prompt


class Prune(Strategy):
    """Delete tokens of solved examples.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds the draws of examples and of tokens.
        method: `evolution`, or `greedy`, hill climbing.
        prompts: The texts to delete tokens of; left out: solved examples.
        shots: Solved examples in a prompt.
        sets: Draws of examples with which `evolution` begins.
        batch: Prompts in each ask: the children of a generation, or the deletions of which `greedy`
            takes the best one; 1 is first-ascent, as many as there are tokens is steepest-ascent.
        cut: The most tokens that a child of `evolution` loses.
        population: Prompts that survive a generation of `evolution`.
        tournament: Members that compete to be a parent: more of them press harder.
        threshold: By how much a prompt that `greedy` goes on from may be worse than the best one of
            its walk, in nats.
        separator: Stands behind each example.

    Raises:
        StrategyError: There are fewer than `shots` examples that are not scored on.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    paper: Paper | None = Paper(10_000, "prompts", "at most, in its authors' code")

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        method: Literal["evolution", "greedy"] = "evolution",
        prompts: list[str] = [],  # noqa: B006 - read only
        shots: Count = 4,
        sets: Count = 4,
        batch: Count = 8,
        cut: Count = 4,
        population: Count = 8,
        tournament: Count = 3,
        threshold: Annotated[float, Field(ge=0)] = 0.0,
        separator: str = "\n",
    ) -> None:
        super().__init__(objective, seed=seed)
        prompts = self.first_texts(prompts)
        if not prompts:
            check_unscored(objective, shots)
        self._rng = np.random.default_rng(seed)
        if method == "greedy":  # until no deletion is taken
            self.paper = None
        self._greedy, self._batch = method == "greedy", batch
        self._slot = objective.space.slots[0]
        self._given = [self._read(text) for text in prompts]
        self._shots, self._sets, self._separator = shots, sets, separator
        self._most, self._size, self._tournament = cut, population, tournament
        self._threshold = threshold
        self._values: dict[Ids, float] = {}  # of all that was scored, +inf for failures, nats
        self.members: list[Ids] = []  # of `evolution`, best first
        self.base: Ids | None = None  # where the walk of `greedy` stands; None: a walk begins
        self.walks = 0
        self._lowest = math.inf  # of the walk, nats
        self._at = self._vain = 0  # the place of the next deletion, and how many failed in a row
        self._asked: list[Ids] = []

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that there is something to delete."""
        if not all(text.strip() for text in options["prompts"]):
            raise StrategyError(
                "one of the 'prompts' is empty: give texts to delete tokens of, or leave them out"
            )

    @classmethod
    def shows_examples(cls, options: Mapping[str, Any]) -> bool:
        """Whether its prompts are what is left of solved examples."""
        return not options["prompts"] and options["start"] is None

    def ask(self) -> Sequence[Prompt]:
        """Texts to begin with, or such with fewer tokens than one that was scored."""
        self._asked = self._deletions() if self._greedy else self._generation()
        return [TextPrompt(self._text(ids)) for ids in self._asked]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Let the better ones live."""
        self._values.update(zip(self._asked, evaluation.values.tolist(), strict=True))
        self.members = self._survivors([*self._asked, *self.members])

    # Evolution.

    def _generation(self) -> list[Ids]:
        """Children of the members; where these have none, new beginnings, or what was scored."""
        for _ in range(_TRIES):
            if self.members and (children := self._children()):
                return children
            self.members = []
            starts = dict.fromkeys(self._given or [self._draw() for _ in range(self._sets)])
            if fresh := [ids for ids in starts if ids not in self._values]:
                return fresh
            known = list(self._values)
            some = self._rng.choice(len(known), min(self._size, len(known)), replace=False)
            self.members = self._survivors([known[i] for i in some])
        return []

    def _children(self) -> list[Ids]:
        found: dict[Ids, None] = {}
        vain = 0
        while len(found) < self._batch and vain < _TRIES:
            drawn = self._rng.integers(len(self.members), size=self._tournament)
            parent = self.members[int(drawn.min())]
            most = min(self._most, max(1, len(parent) // _LEAST))
            lost = int(self._rng.integers(1, most + 1))
            places = self._rng.choice(len(parent), lost, replace=False)
            child = self._without(parent, set(places.tolist()))
            if child and child not in self._values and child not in found:
                found[child], vain = None, 0
            else:
                vain += 1
        return list(found)

    def _survivors(self, living: Sequence[Ids]) -> list[Ids]:
        """The best of the living, of equal ones the first; what failed dies."""
        alive = [ids for ids in dict.fromkeys(living) if math.isfinite(self._values[ids])]
        return sorted(alive, key=self._values.__getitem__)[: self._size]

    # Hill climbing.

    def _deletions(self) -> list[Ids]:
        """The next deletions along the walk that are to be scored, or where a new walk begins."""
        begun = self.walks
        while self.walks - begun < _TRIES or self.base is not None:
            if self.base is None:
                self._begin()
            elif self.base not in self._values:
                return [self.base]
            elif self._vain >= len(self.base):
                self.base = None
            else:
                tried = self._tried(self.base)
                children = dict.fromkeys(child for _, child in tried if child)
                if fresh := [child for child in children if child not in self._values]:
                    return fresh
                self._step(tried)
        return []

    def _begin(self) -> None:
        """Begin a walk at the next text, or at other examples."""
        given = self._given
        self.base = given[self.walks % len(given)] if given else self._draw()
        self.walks += 1
        self._lowest, self._vain = math.inf, 0
        # The last token comes behind the first one: walks from the same text take different ways.
        self._at = int(self._rng.integers(len(self.base)))

    def _tried(self, base: Ids) -> list[tuple[int, Ids | None]]:
        """The next places, towards the beginning, and what is left without each.

        Neighbouring deletions leave the same tokens before them, which the engine computes once.
        """
        count = min(self._batch, len(base) - self._vain)
        places = [(self._at - i) % len(base) for i in range(count)]
        return [(place, self._without(base, {place})) for place in places]

    def _step(self, tried: Sequence[tuple[int, Ids | None]]) -> None:
        """Go on from the best of some deletions, unless the loss rises too far."""
        assert self.base is not None
        self._lowest = min(self._lowest, self._values[self.base])
        left = [(self._values[child], place, child) for place, child in tried if child]
        value, place, child = min(left, default=(math.inf, 0, None))
        if child and value <= self._lowest + self._threshold:
            self.base, self._at, self._vain = child, (place - 1) % len(child), 0
        else:
            self._at, self._vain = (self._at - len(tried)) % len(self.base), self._vain + len(tried)

    # Texts.

    def _draw(self) -> Ids:
        """Solved examples, drawn from those that are not scored on."""
        ids = self._rng.choice(self.objective.training, self._shots, replace=False)
        shown = self.objective.demonstrations(ids)
        return self._read("".join(text + self._separator for text in shown))

    def _read(self, text: str) -> Ids:
        """What the model reads of a text in the first slot, whose space is the first token's."""
        return tuple(self.objective.encode(self._slot.holding(text)))

    def _text(self, ids: Sequence[int]) -> str:
        """The text of tokens in the first slot."""
        return self._slot.held(self.objective.space.decode(ids))

    def _without(self, ids: Ids, places: Collection[int]) -> Ids | None:
        """What the model reads of a text without some tokens; None where this is no shorter text.

        Args:
            ids: The tokens of the text.
            places: Which of them are taken out.
        """
        text = self._text([token for place, token in enumerate(ids) if place not in places])
        read = self._read(text)
        if not 0 < len(read) < len(ids) or text.count(_CUT) > self._text(ids).count(_CUT):
            return None
        return read
