"""GEPA: a language model reads where an instruction fails, and writes a better one.

Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning",
arXiv:2507.19457, section 3. A parent answers a minibatch. A model reads inputs, answers, right
answers and what the metric says of each, and rewrites the parent's instruction. The child is scored
on all examples where it beats its parent on the minibatch (algorithm 1). A candidate stays in the
front while it is best on at least one example and no other dominates it; parents are drawn in
proportion to the number of examples on which they are best (algorithm 2). Two candidates with a
common ancestor may be merged. Each step has several parents with several children, as the authors'
code has them since 2026 (`PxNSampling`).

Differs from the paper: a prompt has one text, so that the proposer merges two of them, where the
paper exchanges the texts of modules (by this rule, a merge of prompts with one text is a copy of a
parent); all parents of a step share a minibatch, and the rows of the highest loss are shown, since
small models read no more; a child of two parents must not lose to either on the minibatch, instead
of on examples that are scored on; no text is scored twice. As in the paper, what the proposer reads
is never scored on: minibatches come from the training part. (The authors' code takes one set of
examples for both where it is given one.)

A candidate leaves the front only where one other is nowhere worse and somewhere better. In the
authors' code it also leaves where each of its wins is shared with some other candidate: on right
and wrong, the best of the pool was never drawn in five of nine of their runs (pull request 432 of
gepa-ai/gepa).

Beats random on the planted objective `separable`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from promptsearch import Ask, Evaluation, Objective, Prompt, Strategy, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.records.scores import ExampleIds, Floats
from promptsearch.search.answering import Answer
from promptsearch.search.asked import in_one_order
from promptsearch.search.front import front
from promptsearch.search.instructions import FROM_EXAMPLES, Instructions, solved
from promptsearch.search.options import Count
from promptsearch.search.unscored import check_unscored

#: The places of the candidates that a text is to be made of: none, one, or two.
Parents = tuple[int, ...]

#: The request for a better instruction; an instruction and what came of it are filled in.
_BETTER = """Instruction: Write the word.
Input: cat
Output: cat
Wanted: cats
New instruction: Write the plural of the word.

Instruction: Did the guest like the food?
Input: I waited an hour and the soup was cold
Output: The soup.
Wanted: no
Feedback: neither yes nor no
New instruction: Did the guest like the restaurant? Answer yes or no.

Instruction: {}
{}New instruction:"""
#: The request for an instruction that says what two others say.
_BOTH = """First: Write the plural of the word.
Second: Give one word, in small letters.
Both: Write the plural of the word, as one word in small letters.

First: Was the guest happy?
Second: Answer yes or no.
Both: Was the guest happy? Answer yes or no.

First: {}
Second: {}
Both:"""
#: The most characters of an answer, or of what the metric says of it, in a request.
_SHOWN = 100


@dataclass(frozen=True)
class Candidate:
    """An instruction that was scored on all examples.

    Args:
        text: The instruction.
        value: What it is ranked by, nats.
        losses: Nats, shape `(examples,)`; NaN where it was not scored.
        ancestors: The places of all candidates that it comes from.
    """

    text: str
    value: float
    losses: Floats
    ancestors: frozenset[int]


@dataclass
class Step:
    """A minibatch and what is proposed on it.

    Args:
        examples: Ids, shape `(minibatch,)`.
        drawn: The places of the parents of each request: one that is to be bettered, or two that
            are to be merged.
        values: Parent -> mean loss on the minibatch, nats; empty before they are scored.
        losses: Parent -> losses on the minibatch, nats, shape `(minibatch,)`.
        children: New instruction -> its parents.
    """

    examples: ExampleIds
    drawn: list[Parents]
    values: dict[int, float] = field(default_factory=dict)
    losses: dict[int, Floats] = field(default_factory=dict)
    children: dict[str, Parents] = field(default_factory=dict)

    @property
    def parents(self) -> list[int]:
        """The places of all parents, each once."""
        return list(dict.fromkeys(place for drawn in self.drawn for place in drawn))

    def passes(self, value: float, parents: Parents) -> bool:
        """Whether a child goes on: it beats its parent, or loses to neither of its two.

        One without parents, which comes from other examples, has to beat all that were drawn.
        """
        least = min(self.values[place] for place in parents or self.parents)
        return value < least or (len(parents) > 1 and value == least < math.inf)


class Reflect(Strategy):
    """Let a language model read failures and rewrite instructions.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds parents, minibatches, and what the proposer writes.
        prompts: Instructions to begin with; left out, the proposer infers some from solved
            examples.
        parents: Candidates that are drawn in each step.
        proposals: New instructions for each time that a candidate is drawn.
        minibatch: Examples on which parents and children are compared, none of them scored on.
        examples: Examples of the minibatch in a request: those on which the parent is worst.
        merges: The most pairs of candidates that are merged.
        temperature: The sampling temperature of the proposer.
        longest: The most tokens of an instruction.
        retries: Further tries after one that gave nothing usable, each from solved examples and a
            little more freely drawn, before the run ends.

    Raises:
        StrategyError: A number is out of range, or there are fewer than `examples` examples that
            are not scored on.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        prompts: list[str] = [],  # noqa: B006 - read only
        parents: Count = 2,
        proposals: Count = 2,
        minibatch: Count = 8,
        examples: Count = 3,
        merges: Annotated[int, Field(ge=0, le=1_000)] = 5,
        temperature: Annotated[float, Field(ge=0)] = 0.7,
        longest: Annotated[Count, Field(ge=2)] = 60,
        retries: Annotated[int, Field(ge=0, le=1_000)] = 20,
    ) -> None:
        super().__init__(objective, seed=seed)
        check_unscored(objective, examples, "examples")
        prompts = self.first_texts(prompts)
        self._rng = np.random.default_rng(seed)
        self._parents, self._proposals, self._examples = parents, proposals, examples
        self._minibatch = min(minibatch, len(objective.training))
        self._candidates: list[Candidate] = []
        # What is to be scored on all examples -> its parents.
        self._waiting: dict[str, Parents] = dict.fromkeys(prompts, ())
        self._step: Step | None = None
        self._merges, self._merged = merges, set[Parents]()
        self._instructions = Instructions(
            objective, seed=seed, longest=longest, temperature=temperature, retries=retries
        )
        self._instructions.know(prompts)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that a minibatch has the examples that are shown."""
        if options["examples"] > options["minibatch"]:
            raise StrategyError(
                f"a 'minibatch' of {options['minibatch']} has no {options['examples']} 'examples' "
                "to show: give a larger one, or fewer examples"
            )

    @classmethod
    def asks_proposer(cls, options: Mapping[str, Any]) -> bool:
        """Always: it has its instructions written."""
        return True

    def ask(self) -> Sequence[Prompt] | Ask:
        """Parents on a minibatch, their children on the same one, then those that passed."""
        if not self._waiting and self._step is None:
            wins = front(np.array([candidate.losses for candidate in self._candidates]))
            if wins.any():
                self._step = self._begin(wins)
            else:
                first = [()] * (self._parents * self._proposals)
                self._waiting = self._propose(first, lambda: [self._from_examples() for _ in first])
        if self._waiting or self._step is None:
            return _prompts(self._waiting)
        step = self._step
        if not step.values:
            parents = [self._candidates[place].text for place in step.parents]
            return Ask(_prompts(parents), step.examples)
        step.children = self._propose(step.drawn, lambda: self._requests(step))
        return Ask(_prompts(step.children), step.examples)

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Enter candidates, note how parents did, or let the better children pass."""
        values, losses = evaluation.values.tolist(), evaluation.losses.copy()
        step = self._step
        if self._waiting:
            for (text, parents), value, row in zip(
                self._waiting.items(), values, losses, strict=True
            ):
                older = [self._candidates[place].ancestors for place in parents]
                ancestors = frozenset(parents).union(*older)
                self._candidates.append(Candidate(text, value, row, ancestors))
            self._waiting = {}
        elif step and not step.values:
            step.values = dict(zip(step.parents, values, strict=True))
            step.losses = dict(zip(step.parents, losses, strict=True))
        elif step:
            told = zip(step.children.items(), values, strict=True)
            self._waiting = {text: up for (text, up), value in told if step.passes(value, up)}
            self._step = None

    def _begin(self, wins: ExampleIds) -> Step:
        """Draw a minibatch, and the parents of each of the next requests."""
        drawn = self._rng.choice(len(wins), size=self._parents, p=wins / wins.sum())
        requests: list[Parents] = [(int(i),) for i in drawn for _ in range(self._proposals)]
        pairs = [pair for pair in combinations(np.flatnonzero(wins).tolist(), 2) if self._fit(pair)]
        if pairs and len(self._merged) < self._merges:
            requests.append(pairs[self._rng.integers(len(pairs))])
            self._merged.add(requests[-1])
        examples = self.objective.minibatch(self._rng, self._minibatch)
        return Step(in_one_order(examples, self.objective.training), requests)

    def _fit(self, pair: tuple[int, int]) -> bool:
        """Whether two candidates may be merged, which happens once.

        Neither comes from the other, and both are as good as some ancestor of both.
        """
        one, other = (self._candidates[place] for place in pair)
        if pair in self._merged or pair[0] in other.ancestors or pair[1] in one.ancestors:
            return False
        worse = max(one.value, other.value)
        return any(self._candidates[i].value >= worse for i in one.ancestors & other.ancestors)

    def _propose(
        self, parents: Sequence[Parents], requests: Callable[[], Sequence[str]]
    ) -> dict[str, Parents]:
        """New instructions, each with the parents of its request, if it comes from that."""
        texts, anew = self._instructions.propose(requests, self._from_examples)
        return {text: () if anew else parents[place] for place, text in texts.items()}

    def _requests(self, step: Step) -> list[str]:
        """A request for each time that a candidate was drawn, and for two that are merged."""
        read = list(dict.fromkeys(up[0] for up in step.drawn if len(up) == 1))
        texts = [self._candidates[place].text for place in read]
        answers = self.objective.answers(_prompts(texts), step.examples)
        better = dict(zip(read, map(partial(self._better, step), read, answers), strict=True))
        return [
            better[up[0]]
            if len(up) == 1
            else _BOTH.format(*(self._candidates[place].text for place in up))
            for up in step.drawn
        ]

    def _better(self, step: Step, place: int, answers: Sequence[Answer]) -> str:
        """The request to better a candidate, whose worst answers on the minibatch are shown."""
        if not answers:  # it fails on these examples: there is nothing to read
            return self._from_examples()
        worst = np.argsort(-step.losses[place], kind="stable")[: self._examples]
        told = "".join(shown(answers[i]) for i in worst)
        return _BETTER.format(self._candidates[place].text, told)

    def _from_examples(self) -> str:
        objective = self.objective
        return FROM_EXAMPLES.format(
            solved(objective.examples(objective.minibatch(self._rng, self._examples)))
        )


def shown(answer: Answer) -> str:
    """An answer as a proposer sees it: input, output, what was wanted, and what the metric says."""
    row = answer.row
    parts = {
        "Input": ", ".join(map(str, row.fields.values())),
        "Output": row.output[:_SHOWN],
        "Wanted": row.references[0],
        "Feedback": answer.feedback[:_SHOWN],
    }
    return "".join(f"{name}: {' '.join(text.split())}\n" for name, text in parts.items() if text)


def _prompts(texts: Iterable[str]) -> list[TextPrompt]:
    return [TextPrompt(text) for text in texts]
