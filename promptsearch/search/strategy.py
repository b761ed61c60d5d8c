"""What a strategy is: the contract of ask and tell.

A strategy proposes prompts (`ask`) and learns from their losses (`tell`). The core keeps the books:
best so far, budget, log, resume, selection. Random search is five lines:

    class Random(Strategy):
        def __init__(self, objective, *, seed):
            super().__init__(objective, seed=seed)
            self._rng = np.random.default_rng(seed)

        def ask(self):
            return self.objective.space.sample(self._rng, 16)
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from promptsearch.errors import StrategyError
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.run import Paper
from promptsearch.records.scores import Evaluation
from promptsearch.search.diagnosis import Training
from promptsearch.search.objective import FINALISTS, Objective

log = logging.getLogger(__name__)

#: How a strategy's constructor begins.
BEGIN = "let its __init__ begin with `super().__init__(objective, seed=seed)`"
#: Why an option and the winner of another run cannot both be where a search begins.
TWO_STARTS = "it cannot begin at '{}' and at the run that 'start' names: give one of them"
#: Why no search begins at the option `text`, or at the winner of another run.
NO_WORDS = "'text' is empty: give words to start from, or leave it out"
EMPTY_START = (
    "the run that 'start' names was won by the empty prompt: no word is left to start from"
)


class Access(StrEnum):
    """What a strategy needs of the LM."""

    SCORES = "scores"
    LOGITS = "logits"
    GRADIENTS = "gradients"
    WEIGHTS = "weights"

    @property
    def trains(self) -> bool:
        """Whether it takes backward passes."""
        return self in (Access.GRADIENTS, Access.WEIGHTS)


@dataclass(frozen=True)
class Ask:
    """Prompts to be scored on a minibatch instead of all of `score_on`.

    Args:
        prompts: What to score.
        examples: Ids of search examples, shape `(examples,)`.
    """

    prompts: Sequence[Prompt]
    examples: ArrayLike


@dataclass(frozen=True)
class State:
    """What a strategy needs to go on after a kill.

    Args:
        tensors: Tensors by name, which are kept as safetensors.
        data: JSON values.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


class Strategy(ABC):
    """Proposes prompts and learns from their losses.

    The core calls `ask`, scores what it returns, and calls `tell` with the scores, until the budget
    is spent or `ask` returns nothing. All randomness comes from `seed`: the same seed and the same
    scores give the same proposals.

    Args:
        objective: Scores prompts on the search split; the strategy's only way to the LM.
        seed: Seeds this object's own generators.
        options: Keyword arguments with annotations and defaults: the study file's options, which
            are checked by their types and ranges when the study is read, see
            `promptsearch.search.options`. Document each under `Args:` in the class docstring;
            `promptsearch strategies NAME` shows it.
    """

    #: What the strategy needs of the LM.
    access: ClassVar[Access] = Access.SCORES
    #: The kinds of prompt that it proposes.
    proposes: ClassVar[frozenset[type]] = frozenset({HardPrompt})
    #: Whether the seed makes no difference: such a strategy runs once in a study.
    deterministic: ClassVar[bool] = False
    #: Whether it searches; references such as given prompts do not.
    searches: ClassVar[bool] = True
    #: Whether it is a control: what a search must beat to be worth its price.
    control: ClassVar[bool] = False
    #: Whether it is a reference line with a budget of its own, never ranked.
    reference: ClassVar[bool] = False
    #: How many of its best prompts are kept, and scored again in float32 at the end.
    finalists: ClassVar[int] = FINALISTS
    #: Options that name what it writes outside its run's folder; a rehearsal for
    #: `promptsearch plan` leaves them out.
    writes: ClassVar[frozenset[str]] = frozenset()
    #: The kinds of another run's winner that it can start from; where the study file names a run,
    #: the winner is `objective.start`.
    starts_from: ClassVar[frozenset[type]] = frozenset()

    #: What a run takes in its paper, which the report shows beside what it took here; a strategy
    #: of several papers sets it in its constructor, by its options.
    paper: Paper | None = None

    def __init__(self, objective: Objective, *, seed: int) -> None:
        self.objective = objective
        self.seed = seed

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Refuse a name that a strategy lacks, with a hint where this class would set it."""
            hint = f": {BEGIN}" if name in ("objective", "seed") else ""
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'{hint}")

    @classmethod  # noqa: B027 - annotations say all about most strategies
    def check(cls, options: Mapping[str, Any]) -> None:
        """Refuse options that do not fit together.

        It is called when a study is read, before there is a model.

        Args:
            options: All options, each of its type and within its range, with defaults filled in.

        Raises:
            StrategyError: The options do not fit together.
        """

    @classmethod
    def asks_proposer(cls, options: Mapping[str, Any]) -> bool:
        """Whether it asks the proposer for texts, so that a study needs a model that writes.

        Args:
            options: All options, as for `check`.
        """
        return False

    @classmethod
    def takes_words(cls, options: Mapping[str, Any]) -> bool:
        """Whether it takes words of the pool, and so pays for finding them.

        Args:
            options: As for `shows_examples`.
        """
        return HardPrompt in cls.proposes

    @classmethod
    def shows_examples(cls, options: Mapping[str, Any]) -> bool:
        """Whether its prompts are made of solved examples, which stand before the input.

        Where the template has its slots behind the input, there is one more before it, which is
        the first one then; trained prompts of them are refused there. Text that is found from such
        a winner of another run stands there, too, whatever this says.

        Args:
            options: All options, as for `check`, and `start`: whether the winner that a run starts
                from is made of them; None where it starts from none.
        """
        return False

    @classmethod
    def trains_on(cls, options: Mapping[str, Any]) -> Sequence[str]:
        """The names of tasks of the study on which it trains, whichever of them is the run's own.

        The others are `objective.others`.

        Args:
            options: All options, as for `check`.
        """
        return ()

    @abstractmethod
    def ask(self) -> Sequence[Prompt] | Ask:
        """The next prompts to score; empty when there is nothing left to propose.

        Raises:
            BudgetExhausted: `objective.loss` raises it; let it pass, since it ends the run in good
                order.
        """

    # It is not abstract: random search learns nothing.
    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:  # noqa: B027
        """Learn from the scores of the prompts of the last `ask`, in their order.

        Raises:
            BudgetExhausted: As in `ask`.
        """

    def state(self) -> State | None:
        """Everything that `ask` and `tell` depend on; None where a killed run is to be replayed.

        A replay needs nothing but the run's log. Training steps are not in the log: without a
        state, a strategy that calls `objective.loss` trains again from its seed.
        """
        return None

    def restore(self, state: State) -> None:
        """Go on from what `state` returned, on a freshly made object with the same arguments."""
        raise NotImplementedError(
            f"{type(self).__name__}.state() returns a state, so restore() must take it back"
        )

    @property
    def trainable(self) -> int:
        """The number of parameters tuned in training; 0 for strategies that train nothing."""
        return 0

    def tokens_of(self, text: str | TextPrompt) -> list[int]:
        """The token ids that a text has in the slots; soft prompts may start there.

        Those of each slot are repeated to its length. A slot without a text goes on with those of
        the slot before it.

        Args:
            text: The text for the first slot, or a prompt.

        Raises:
            StrategyError: The text has no tokens.
        """
        prompt = TextPrompt(text) if isinstance(text, str) else text
        return self._repeated(self.objective.space.slot_texts(prompt))

    def _repeated(self, texts: Sequence[str]) -> list[int]:
        """The token ids of what stands in the slots; what is beyond them goes on in the last."""
        found: list[tuple[list[int], int]] = []  # tokens, and the places that they fill
        for text, slot in zip_longest(texts, self.objective.space.slots):
            tokens = self.objective.encode(text) if text else []
            places = (slot.length or 0) if slot else 0
            if found and not (tokens and slot and found[-1][0]):
                before, filled = found.pop()
                tokens, places = before + tokens, filled + places
            found.append((tokens, places))
        if not found[0][0]:
            raise StrategyError(NO_WORDS if self.objective.start is None else EMPTY_START)
        return [tokens[i % len(tokens)] for tokens, places in found for i in range(places)]

    def first_words(self, text: str | None, rng: np.random.Generator) -> HardPrompt:
        """The prompt at which a search for words begins.

        It is made from a text, or is the winner of another run, or is drawn from the pool.

        Args:
            text: Words, repeated to the prompt's length; a space before the first one is added.
                None for the winner of the run that `start` names, whose texts are taken as these
                words are, each in its slot, or else for words of the pool. In place of a winner's
                words that are not in the pool, as that of another task may be, stand those nearest
                to them.
            rng: The generator that draws words.

        Raises:
            StrategyError: The text has no tokens, has tokens outside the pool, or is given together
                with the winner of another run; or the model shows no words near this one's.
        """
        space, start = self.objective.space, self.objective.start
        if start is not None and text is not None:
            raise StrategyError(TWO_STARTS.format("text"))
        given = [] if start is None else [start]
        if hard := HardPrompt.among(given):
            return self._within_pool(hard[0])
        texts = [each.texts for each in TextPrompt.among(given)] if text is None else [(text,)]
        if not texts:
            return space.sample(rng, 1)[0]
        # A word of the pool brings its space, also where the slot has none.
        spaced = [f" {each.removeprefix(' ')}" if each.strip() else "" for each in texts[0]]
        ids = self._repeated(spaced)
        pool = set(space.pool.tolist())
        if strangers := list(dict.fromkeys(space.decode([i]) for i in ids if i not in pool)):
            raise StrategyError(
                f"the text {' | '.join(filter(None, texts[0]))!r} has tokens that are not in the "
                f"pool of {len(pool)}: {', '.join(map(repr, strangers))}. Leave them out, or give "
                "a pool that holds them"
            )
        return HardPrompt(ids)

    def _within_pool(self, start: HardPrompt) -> HardPrompt:
        """A winner with the nearest word of the pool in place of each that is not in it."""
        space = self.objective.space
        strangers = sorted({*start.ids}.difference(space.pool.tolist()))
        if not strangers:
            return start
        told = (
            f"the run that 'start' names was won by words that are not in the pool of "
            f"{len(space.pool)} here: {', '.join(repr(space.decode([i])) for i in strangers)}"
        )
        try:
            found = space.neighbours(strangers, 1)  # nothing in a pool of one word
        except StrategyError as error:
            advice = "the model shows no words near them: give a pool that holds them"
            raise StrategyError(f"{told}; {advice}") from error
        nearest = found[:, 0] if found.size else space.pool[[0] * len(strangers)]
        others = dict(zip(strangers, nearest.tolist(), strict=True))
        log.warning(
            f"{told}; it starts with {', '.join(repr(space.decode([i])) for i in others.values())}"
        )
        return HardPrompt(others.get(i, i) for i in start.ids)

    def first_texts(self, prompts: Sequence[str]) -> list[str]:
        """The texts for the first slot at which a search for texts begins.

        Args:
            prompts: Those that the study file gives; there may be none. The winner of the run that
                `start` names takes their place.

        Raises:
            StrategyError: Both are given, or the winner is empty or fills other slots as well.
        """
        start = TextPrompt.among([] if self.objective.start is None else [self.objective.start])
        if not start:
            return list(prompts)
        if prompts:
            raise StrategyError(TWO_STARTS.format("prompts"))
        first, *others = start[0].texts
        if not first.strip() or any(others):
            raise StrategyError(
                f"expected a text for the first slot to start from, and the run that 'start' names "
                f"was won by {list(start[0].texts)}"
            )
        return [first]

    @property
    def training(self) -> Training | None:
        """How training went so far; None for strategies that train nothing."""
        return None
