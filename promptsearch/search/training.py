"""The training loop that all trained strategies share.

A trained strategy brings an encoder: an `nn.Module` that yields the prompt's numbers. These are the
vectors of a soft prompt or the keys and values of a prefix, one row a token; the vectors and gates
of a gated prompt; or changed weights by name, with or without vectors.

Its `ask` does some optimizer steps and returns the present prompt for scoring on `score_on`, which
the strategy does not train on. The best prompt that was scored wins, so that early stopping and the
anytime curve come for free.
"""

from __future__ import annotations

import copy
import inspect
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from promptsearch.errors import BudgetExhausted, Diverged, NothingUsable, StrategyError
from promptsearch.prompts.numbers import Numbers, tensors_of
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.trained import TrainedPrompt
from promptsearch.records.scores import Evaluation, ExampleIds
from promptsearch.search.descent import Descent, Optimizer, Step
from promptsearch.search.diagnosis import Training
from promptsearch.search.learning_rate import find_rate
from promptsearch.search.objective import Objective
from promptsearch.search.schedule import StepPrices, affordable_steps, warmup_and_decay
from promptsearch.search.strategy import Access, State, Strategy
from promptsearch.search.training_options import TrainingOptions, full_docstring, full_signature
from promptsearch.search.views import OtherTask


class TrainedStrategy(Strategy):
    """Trains a prompt by gradient descent on minibatches of the search split.

    Args:
        objective: As in `Strategy`.
        seed: As in `Strategy`.
        optimizer: `adamw`, whose rate rises linearly over the first tenth of the steps, then falls
            linearly to zero where the budget ends; or `adafactor` at a constant rate, which scales
            its steps itself, without clipping.
        **training: The fields of `TrainingOptions`. A strategy that hands them on as `**training`
            has them as options of its own.
    """

    #: The constructor's parameters, with those behind `**training`.
    __signature__: ClassVar[inspect.Signature]

    access: ClassVar[Access] = Access.GRADIENTS
    #: The one kind of prompt that the encoder's numbers make.
    proposes: ClassVar[frozenset[type]] = frozenset({SoftPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        optimizer: Optimizer = "adamw",
        **training: Any,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._options = TrainingOptions(**training)
        self._adafactor = optimizer == "adafactor"
        self._rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        #: What is trained: the strategy's encoder.
        self.module = self.encoder(generator)
        self._descent = Descent(self.module, self.shares(), optimizer, self._options.clip)
        self._scored = self._ranked = 0
        # Paid for scorings, in prices of one in full: races and texts may stop short of that.
        self._full = 0.0
        self._prices: dict[tuple[int, ...], StepPrices] = {}  # by the ids of tasks
        made, rate = self.module(), self._options.rate
        unit: Literal["tokens", "tensors"] = "tokens" if isinstance(made, Tensor) else "tensors"
        self._training = Training(len(made), None if rate == "auto" else rate, unit)
        #: The steps that the budget pays, or that were asked for.
        self.planned = self.plan()
        # The rows of the first prompt; None where the prompt is several tensors.
        self._first: Tensor | None = None
        self._best, self._worse = float("inf"), 0

    def __init_subclass__(cls, **named: Any) -> None:
        """Let signature and docstring of a strategy show the options that it hands on."""
        super().__init_subclass__(**named)
        cls.__signature__ = full_signature(cls.__init__)
        if cls.__doc__:
            cls.__doc__ = full_docstring(cls.__doc__)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Refuse to split a batch into more parts than it has examples."""
        parts, batch = options.get("accumulate", 1), options.get("batch", math.inf)
        if parts > batch:
            raise StrategyError(
                f"'accumulate' splits a batch of {batch} examples: it must be at most that, "
                f"got {parts}"
            )

    @abstractmethod
    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The module that is trained: called without arguments, it returns the prompt's numbers.

        Vectors of a soft prompt have the shape `(length, width)`, a prefix `(length,
        *objective.prefix_shape)`. A gated prompt is a tuple of vectors, shape `(length, layers,
        width)`, and gates. Weights have names, vectors beside them the name `vectors`.

        Args:
            generator: The source of all randomness of the initialisation.
        """

    def start(self) -> None:  # noqa: B027 - an encoder may start from its random numbers
        """Move the encoder to where training starts.

        It is called once, before the first prompt, and what it asks of the LM is charged.
        """

    def words(
        self, text: str | None, generator: torch.Generator, among: int | None = None
    ) -> list[int]:
        """Token ids to start from, one for each token of the prompt.

        Args:
            text: A text whose tokens are repeated to the prompt's length; None for words of the
                pool, drawn at random.
            generator: The generator that draws words.
            among: The number of the pool's most frequent words to draw from; None for all words.

        Raises:
            StrategyError: The text has no tokens.
        """
        if text is not None:
            return self.tokens_of(text)
        space = self.objective.space
        pool = space.pool[:among]  # sorted, and byte-pair encoding numbers its tokens by frequency
        places = torch.randint(len(pool), (space.length,), generator=generator)
        return [int(i) for i in pool[places.numpy()]]

    def proposal(self, made: Numbers) -> Prompt:
        """The prompt that is proposed.

        Unless a strategy overrides this, it is the numbers themselves, as the kind of prompt that
        the class names.

        Args:
            made: The numbers that the encoder returned.
        """
        (kind,) = self.proposes
        prompt: TrainedPrompt = kind(made) if isinstance(made, Mapping) else kind(*tensors_of(made))
        return prompt

    def shares(self) -> Mapping[nn.Module, float]:
        """The parts of the encoder, each with the factor by which its rate is multiplied.

        Unless a strategy overrides this, the encoder is one part with the factor 1.
        """
        return {self.module: 1.0}

    @property
    def trainable(self) -> int:
        """The number of parameters tuned in training."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def options(self) -> TrainingOptions:
        """How the prompt is trained."""
        return self._options

    @property
    def training(self) -> Training:
        """How training went so far."""
        return self._training

    def ask(self) -> Sequence[Prompt]:
        """Train for `interval` steps (none the first time) and return the present prompt.

        The prompt after the very last step is scored, too.

        Raises:
            BudgetExhausted: All steps that the budget pays were made.
            NothingUsable: `patience` ends the run.
        """
        if 0 < self._options.patience <= self._worse:
            raise NothingUsable(f"no lower loss in {self._worse} scorings in a row")
        if self._scored:
            if self._training.rate is None:
                self.find_rate()
            if self._training.steps >= self.planned:
                told = " that the budget pays" if self.planned != self._options.steps else ""
                raise BudgetExhausted(f"all {self.planned} steps{told} were made")
            for _ in range(min(self._options.interval, self.planned - self._training.steps)):
                self.train()
        else:
            self.start()
        self._note_move()
        return [self.prompt()]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Count the scorings without a lower loss; what a cheap one leaves pays further steps."""
        self._scored += 1
        self._ranked += evaluation.price > 0 and bool(np.isfinite(evaluation.losses).all())
        full = self.objective.price(prompts) - self.objective.price([])
        self._full += min(1.0, evaluation.price / max(1, full))
        self.planned = self.plan()
        value = float(evaluation.values[0])
        self._worse = 0 if value < self._best else self._worse + 1
        self._best = min(self._best, value)

    def state(self) -> State | None:
        """The encoder's weights, optimizer, generator, counters and notes."""
        tensors = self._descent.tensors()
        if self._first is not None:
            tensors["first"] = self._first
        data = {
            "steps": self.planned,
            "scored": self._scored,
            "ranked": self._ranked,
            "full": self._full,
            "worse": self._worse,
            "best": None if self._best == float("inf") else self._best,
            "rng": self._rng.bit_generator.state,
            "training": asdict(self._training),
        }
        return State(tensors, data)

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        self._descent.restore(state.tensors)
        self._first = state.tensors.get("first")
        self._training = Training(**state.data["training"])
        self.planned, self._scored, self._ranked, self._full, self._worse = (
            state.data[k] for k in ("steps", "scored", "ranked", "full", "worse")
        )
        self._best = float("inf") if state.data["best"] is None else state.data["best"]
        self._rng.bit_generator.state = state.data["rng"]

    def prompt(self) -> Prompt:
        """The present prompt."""
        with torch.no_grad():
            return self.proposal(self.module())

    def train(self) -> None:
        """Make one optimizer step on a minibatch, and note how it went."""
        notes = self._training
        assert notes.rate is not None
        ids = self.minibatch()
        try:
            step = self._step(ids, notes.rate * self.schedule(notes.steps))
        except Diverged as error:
            notes.diverged = str(error)
            raise
        notes.enter(step.norms, step.clipped)

    def schedule(self, step: int) -> float:
        """The rate at a step, as a share of the peak rate; for Adafactor it is constant."""
        return 1.0 if self._adafactor else warmup_and_decay(step, self.planned)

    def find_rate(self) -> None:
        """Run the range test; afterwards all is as before but for the rate and what it cost."""
        before = copy.deepcopy(self.module.state_dict())
        ids = self.minibatch()
        self._training.rate, self._training.tried = find_rate(
            lambda rate: self._step(ids, rate, visit=0).loss  # on the same answers each time
        )
        self.module.load_state_dict(before)
        self._descent.forget()
        self.planned = self.plan()

    def _note_move(self) -> None:
        made = self.module()
        if not isinstance(made, Tensor):
            return  # a distance between several tensors says nothing
        rows = made.detach().to("cpu", torch.float32, copy=True)
        if self._first is None:
            self._first = rows
        moved = (rows.double() - self._first).norm() / self._first.norm().clamp_min(1e-12)
        if torch.isfinite(moved):
            self._training.moved = float(moved)

    def minibatch(self) -> ExampleIds:
        """Ids of the examples of the next step, shape `(batch,)`."""
        return self.objective.minibatch(self._rng, self._options.batch)

    def loss(self, numbers: Numbers, examples: ExampleIds, visit: int) -> Tensor:
        """What a step descends, in nats, shape `()`: unless overridden, the loss of the task.

        Args:
            numbers: As `Objective.loss` takes them, like the others.
            examples: Ids, shape `(examples,)`.
            visit: The number by which right answers are drawn.
        """
        return self.objective.loss(numbers, examples, visit)

    def meeting_price(self) -> int:
        """What it costs to meet all training examples for the first time, besides their leads."""
        return 0

    def step_price(self) -> int:
        """What the forward pass of a step costs besides its examples."""
        return 0

    def _step(self, ids: ExampleIds, rate: float, visit: int | None = None) -> Step:
        parts = np.array_split(ids, self._options.accumulate)
        # All parts draw what the whole would: it is the same step, however it is split.
        drawn = self.objective.ledger.forward if visit is None else visit
        return self._descent.step(partial(self.loss, visit=drawn), parts, rate)

    def affordable(self, tasks: Sequence[Objective | OtherTask]) -> int:
        """The steps that the budget still pays on minibatches of some tasks, at most those wanted.

        Scorings are taken to cost what they did so far, on average with one more in full.

        Args:
            tasks: As in `affordable_steps`.
        """
        wanted, key = self._options.steps, tuple(map(id, tasks))
        if key not in self._prices:  # a prompt of weights takes a while to make
            step = self.module(), self.prompt(), self._options.batch, self.step_price()
            self._prices[key] = StepPrices.of(self.objective, tasks, *step)
        steps = affordable_steps(
            *(self.objective, tasks, self._prices[key], self._options, self.finalists),
            ranked=self._ranked,
            fresh=(self._ranked + 1) / (self._scored + 1),
            share=(self._full + 1) / (self._scored + 1),
            meeting=self.meeting_price(),
        )
        return steps if wanted is None else min(steps, wanted - self._training.steps)

    def plan(self) -> int:
        """All steps of the run, those made included: unless overridden, what the budget pays."""
        return self._training.steps + self.affordable([self.objective])
