"""Joint: an instruction and the solved examples below it, searched together.

`capo`: Zehle et al. 2025, "CAPO: Cost-Aware Prompt Optimization", arXiv:2504.16005, algorithm 1. A
population of instructions with examples; a child has an instruction that a language model makes of
its parents', and some of their examples, to which one is added, from which one is taken, or none;
long prompts pay a penalty. CAPO races prompts on blocks of examples by paired tests: `race: true`
in the study file does so here.

`tpe`: Opsahl-Ong et al. 2024, "Optimizing Instructions and Demonstrations for Multi-Stage Language
Model Programs" (MIPROv2), arXiv:2406.11695, section 4. Some instructions are proposed and some sets
of examples are drawn first; then tree-structured Parzen estimators choose one of each.

Differs from the papers: one request crosses instructions and changes the child, where CAPO makes
two; parents win a tournament of two, where CAPO draws them evenly; a child that gets no instruction
of its own takes a parent's, or another one. A child has the examples that both parents have, and
draws the others (CAPO draws all, some of them twice). Into a full set an example comes in place of
another, where CAPO adds none and has to pass worse, smaller sets to the next full one; its program
loses what was added in a later branch. A child has new examples or, where none are found, those of
a scored prompt in another order. MIPROv2's examples are solved by the model and kept where it was
right; here they are the task's own, more sets are drawn where all pairs are scored, and its hints
about data and programs are left out. The penalty steers the search alone: the loss tells what wins.

Beats random on the planted objective `separable`, and random pairs of an instruction and a set of
examples where the best pair is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, product
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import Trial, TrialState, create_trial
from pydantic import Field

from promptsearch import Evaluation, Objective, Prompt, Strategy, TextPrompt
from promptsearch.errors import BudgetExhausted, NothingUsable, StrategyError
from promptsearch.records.run import Paper
from promptsearch.search.instructions import CROSSING, FROM_EXAMPLES, Instructions, solved
from promptsearch.search.options import Count
from promptsearch.search.unscored import check_unscored

#: The tries for a child, or for what TPE proposes, until it is new.
_TRIES = 20

Pair = tuple[str, tuple[int, ...]]  # an instruction, and ids of the examples below it, in order


class Joint(Strategy):
    """Search an instruction and solved examples together.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds all draws, and what the proposer writes.
        method: `capo`, an evolution of both, or `tpe`, which chooses among given ones (MIPROv2).
        prompts: Instructions to begin with.
        proposals: Instructions that the proposer adds at the beginning; 0: it is never asked.
        shots: The most solved examples in a prompt.
        sets: Sets of examples for `tpe`, the first one empty; as many more once all are used up.
        population: Prompts that survive a generation of `capo`.
        batch: Prompts in each ask.
        penalty: What a prompt as long as the longest of the first ask pays, in nats; shorter ones
            pay less.
        examples: Solved examples in a request for an instruction.
        temperature: The sampling temperature of the proposer.
        longest: The most tokens of an instruction.
        retries: Further tries after one that gave no instruction to begin with.
        separator: Stands behind the instruction and behind each example, where there are any.

    Raises:
        StrategyError: There are fewer than `shots` or `examples` examples that are not scored on.
    """

    proposes: ClassVar[frozenset[type]] = frozenset({TextPrompt})
    starts_from: ClassVar[frozenset[type]] = frozenset({TextPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        method: Literal["capo", "tpe"] = "capo",
        prompts: list[str] = [],  # noqa: B006 - read only
        proposals: Annotated[int, Field(ge=0, le=1_000)] = 8,
        shots: Count = 4,
        sets: Annotated[Count, Field(ge=2)] = 8,
        population: Annotated[Count, Field(ge=2)] = 8,
        batch: Count = 4,
        penalty: Annotated[float, Field(ge=0)] = 0.05,
        examples: Count = 3,
        temperature: Annotated[float, Field(ge=0)] = 0.7,
        longest: Annotated[Count, Field(ge=2)] = 40,
        retries: Annotated[int, Field(ge=0, le=1_000)] = 20,
        separator: str = "\n",
    ) -> None:
        super().__init__(objective, seed=seed)
        check_unscored(objective, shots)
        if proposals:
            check_unscored(objective, examples, "examples")
        self._rng = np.random.default_rng(seed)
        if method == "tpe":  # CAPO counts tokens
            self.paper = Paper(50, "prompts", "20 to 50, by task, in its experiments")
        self._tpe, self._proposals = method == "tpe", proposals
        self._shots, self._sets, self._separator = shots, sets, separator
        self._size, self._batch, self._examples = population, batch, examples
        self._penalty, self._longest = penalty, 0
        self.instructions = list(dict.fromkeys(self.first_texts(prompts)))

        def writer(retries: int) -> Instructions:
            return Instructions(
                objective, seed=seed, longest=longest, temperature=temperature, retries=retries
            )

        self._first, self._again = writer(retries), writer(0)
        self._again.know(self.instructions)
        self._values: dict[Pair, float] = {}  # with the penalty, +inf for failures, nats
        self.members: list[Pair] = []  # of `capo`, best first
        self._asked: list[Pair] = []
        self.choice: Choice | None = None  # of `tpe`

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """See that there are instructions."""
        if not all(text.strip() for text in options["prompts"]):
            raise StrategyError("one of the 'prompts' is empty: give instructions to begin with")

    @classmethod
    def asks_proposer(cls, options: Mapping[str, Any]) -> bool:
        """Where it has instructions written."""
        return bool(options["proposals"])

    @classmethod
    def shows_examples(cls, options: Mapping[str, Any]) -> bool:
        """Whether its prompts hold solved examples: below an instruction, above the input."""
        return True

    def ask(self) -> Sequence[Prompt]:
        """Pairs of an instruction and examples, none of which was scored before."""
        if not self._values and not self._asked:
            self._gather()
        self._asked = self._chosen() if self._tpe else self._generation()
        return [TextPrompt(self._text(pair)) for pair in self._asked]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Let the better ones live, or TPE learn from their losses."""
        lengths = [self.objective.length(prompt) for prompt in prompts]
        self._longest = self._longest or max(lengths)
        values = evaluation.values.tolist()
        for pair, value, length in zip(self._asked, values, lengths, strict=True):
            self._values[pair] = value + self._penalty * length / max(1, self._longest)
        alive = [p for p in (*self._asked, *self.members) if math.isfinite(self._values[p])]
        # The same examples in another order are no other member: they would soon be all there is.
        kept: dict[tuple[str, frozenset[int]], Pair] = {}
        for pair in sorted(alive, key=self._values.__getitem__):
            kept.setdefault(_unordered(pair), pair)
        self.members = list(kept.values())[: self._size]

    def _gather(self) -> None:
        """Have instructions written, as many as are wanted, or as there come.

        Raises:
            NothingUsable: There is none.
            StrategyError: None is given, and none may be written.
        """
        wanted = len(self.instructions) + self._proposals
        while (missing := wanted - len(self.instructions)) > 0:
            # Without any, the search cannot begin; with some, a vain try is the last one.
            writer = self._again if self.instructions else self._first
            try:
                found = writer.propose(partial(self._requests, missing), self._request)
            except (BudgetExhausted, NothingUsable):
                if not self.instructions:
                    raise
                break
            self.instructions += found.texts.values()
            self._again.know(self.instructions)
        if not self.instructions:
            raise StrategyError(
                "it has no instructions: give 'prompts', or let some be written by 'proposals'"
            )

    def _requests(self, count: int) -> list[str]:
        return [self._request() for _ in range(count)]

    def _request(self) -> str:
        ids = self.objective.minibatch(self._rng, self._examples)
        return FROM_EXAMPLES.format(solved(self.objective.examples(ids)))

    def _draw(self, least: int = 0) -> tuple[int, ...]:
        """A set of examples that are not scored on, of a size that is drawn (CAPO, section 3)."""
        count = int(self._rng.integers(least, self._shots + 1))
        return tuple(self._rng.choice(self.objective.training, count, replace=False).tolist())

    def _text(self, pair: Pair) -> str:
        instruction, ids = pair
        shown = self.objective.demonstrations(ids) if ids else []
        return self._separator.join([instruction, *shown, *([""] if shown else [])])

    def _generation(self) -> list[Pair]:
        """The first generation, or children."""
        found: dict[Pair, None] = {}
        if not self.members:
            for place in range(self._size):
                instruction = self.instructions[place % len(self.instructions)]
                # The first instruction is scored alone, as another run may have left it.
                sets = (self._draw() if found or self._values else () for _ in range(_TRIES))
                self._enter(found, ((instruction, ids) for ids in sets))
            return list(found)
        couples = [self._couple() for _ in range(self._batch)]
        written = self._cross(couples) if self._proposals else {}
        for place, (mother, father) in enumerate(couples):
            known = (mother[0], father[0], self._any())[int(self._rng.integers(3))]
            instruction = written.get(place, known)
            own = ((instruction, self.inherited(mother, father)) for _ in range(_TRIES))
            if not self._enter(found, own):
                self._enter(found, ((self._any(), self._draw()) for _ in range(_TRIES)))
        return list(found)

    def _enter(self, found: dict[Pair, None], pairs: Iterable[Pair]) -> bool:
        """Enter the first of some pairs that is new in any order, else in its own, if one is."""
        met = {*map(_unordered, chain(self._values, found))}
        other: Pair | None = None
        for pair in pairs:
            if _unordered(pair) not in met:
                found[pair] = None
                return True
            other = other or (None if pair in self._values or pair in found else pair)
        if other:
            found[other] = None
        return other is not None

    def _any(self) -> str:
        """Any instruction that was given or written."""
        return self.instructions[int(self._rng.integers(len(self.instructions)))]

    def _couple(self) -> tuple[Pair, Pair]:
        """The winners of two tournaments of two; the second one is the better one, or the same."""
        first, second = self._rng.integers(len(self.members), size=(2, 2)).min(1).tolist()
        return self.members[max(first, second)], self.members[min(first, second)]

    def _cross(self, couples: Sequence[tuple[Pair, Pair]]) -> dict[int, str]:
        """New instructions of couples, by the place of the couple; there may be none."""
        try:
            written = self._again.propose(
                lambda: [CROSSING.format(mother[0], father[0]) for mother, father in couples],
                self._request,
            ).texts
        except (BudgetExhausted, NothingUsable):
            return {}
        self.instructions += written.values()
        return written

    def inherited(self, mother: Pair, father: Pair) -> tuple[int, ...]:
        """Examples of both parents, as many as they have on average, with one change or none."""
        shared = [i for i in mother[1] if i in father[1]]
        others = self._rng.permutation([i for i in (*mother[1], *father[1]) if i not in shared])
        count = (len(mother[1]) + len(father[1])) // 2
        kept = self._rng.permutation([*shared, *others][:count]).astype(int).tolist()
        change = int(self._rng.integers(3))  # CAPO, algorithm 3: add, remove or keep
        if change == 0 and len(strange := np.setdiff1d(self.objective.training, kept)):
            kept = [*kept[: self._shots - 1], int(self._rng.choice(strange))]
        elif change == 1 and kept:
            kept.pop()
        return tuple(int(i) for i in self._rng.permutation(kept))

    def _chosen(self) -> list[Pair]:
        """What MIPROv2 chooses, among more sets each time that all pairs are scored."""
        if self.choice is None or len(self.choice.pairs) == len(self._values):
            known = [] if self.choice is None else self.choice.sets
            more = (self._draw(least=1) for _ in range(_TRIES * self._sets))
            sets = list(dict.fromkeys([(), *known, *more]))[: len(known) + self._sets]
            self.choice = Choice(self.instructions, sets, self._rng)
        return self.choice.ask(self._values, self._batch)


class Choice:
    """Tree-structured Parzen estimators over an instruction and a set of examples.

    Args:
        instructions: The instructions.
        sets: The sets of examples.
        rng: Seeds the sampler, and draws where the sampler repeats itself.
    """

    def __init__(
        self, instructions: Sequence[str], sets: Sequence[tuple[int, ...]], rng: np.random.Generator
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # no line for each study and trial
        self._rng, self.sets, self.pairs = rng, sets, list(product(instructions, sets))
        self._domains: dict[str, BaseDistribution] = {
            "instruction": CategoricalDistribution(range(len(instructions))),
            "examples": CategoricalDistribution(range(len(sets))),
        }
        # Drawn jointly, and away from pairs of the same ask, which have no loss yet.
        tpe = optuna.samplers.TPESampler(
            seed=int(rng.integers(2**32)), multivariate=True, constant_liar=True
        )
        self._study = optuna.create_study(sampler=tpe)
        self._waiting: list[Trial] = []

    def ask(self, values: Mapping[Pair, float], count: int) -> list[Pair]:
        """Pairs that have no value yet, at most `count`.

        Args:
            values: What is known, in nats.
            count: How many pairs are wanted.
        """
        if not self._study.trials:  # since categories cannot grow, a new study learns what is known
            for pair in [pair for pair in values if math.isfinite(values[pair])]:
                had: dict[str, Any] = {"params": self._params(pair), "distributions": self._domains}
                self._study.add_trial(create_trial(value=values[pair], **had))
        while self._waiting:
            self._tell(self._waiting.pop(0), values)
        for _ in range(min(count, len(self.pairs) - len(values))):
            self._waiting.append(self._fresh(values))
        return [self._pair(trial) for trial in self._waiting]

    def _fresh(self, values: Mapping[Pair, float]) -> Trial:
        """A trial of a pair without a value, which the sampler proposes, or a random one."""
        met = {*values, *map(self._pair, self._waiting)}
        for _ in range(_TRIES):
            trial = self._study.ask(self._domains)
            if self._pair(trial) not in met:
                return trial
            self._tell(trial, values)
        left = [pair for pair in self.pairs if pair not in met]
        self._study.enqueue_trial(self._params(left[int(self._rng.integers(len(left)))]))
        return self._study.ask(self._domains)

    def _tell(self, trial: Trial, values: Mapping[Pair, float]) -> None:
        if math.isfinite(value := values.get(self._pair(trial), math.inf)):
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _pair(self, trial: Trial) -> Pair:
        instruction, examples = (int(trial.params[name]) for name in self._domains)
        return self.pairs[instruction * len(self.sets) + examples]

    def _params(self, pair: Pair) -> dict[str, Any]:
        return dict(zip(self._domains, divmod(self.pairs.index(pair), len(self.sets)), strict=True))


def _unordered(pair: Pair) -> tuple[str, frozenset[int]]:
    return pair[0], frozenset(pair[1])
