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
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch.errors import BudgetExhausted, Diverged, StrategyError
from promptsearch.models.optimizers import adafactor
from promptsearch.prompts.numbers import Numbers, leaves_of, length_of, tensors_of
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.trained import TrainedPrompt
from promptsearch.records.scores import Evaluation, Ids
from promptsearch.search.diagnosis import Training
from promptsearch.search.learning_rate import find_rate
from promptsearch.search.objective import Objective
from promptsearch.search.options import Count, Positive
from promptsearch.search.strategy import Access, State, Strategy

#: A peak learning rate, or `auto` for the one that a range test finds.
Rate = Positive | Literal["auto"]
#: A number of scorings without a lower loss; 0 for any number of them.
Patience = Annotated[int, Field(ge=0, le=1_000_000)]


class TrainedStrategy(Strategy):
    """Trains a prompt by gradient descent on minibatches of the search split.

    Args:
        objective: As in `Strategy`.
        seed: As in `Strategy`.
        rate: The peak learning rate; `auto` for the one that a range test finds, which the budget
            pays.
        batch: The number of examples per step.
        interval: The number of steps between two scorings.
        patience: The number of scorings in a row without a lower loss that end the run; 0 trains
            until the budget is spent.
        accumulate: The number of parts into which a step's examples are split. The gradients of one
            part after the other are added up, which is the same step in less memory.
        optimizer: `adamw`, whose rate rises linearly over the first tenth of the steps, then falls
            linearly to zero where the budget ends; or `adafactor` at a constant rate, which scales
            its steps itself, without clipping.
        clip: The largest norm of the gradient; a larger gradient is scaled down to it.
    """

    access: ClassVar[Access] = Access.GRADIENTS
    #: The one kind of prompt that the encoder's numbers make.
    proposes: ClassVar[frozenset[type]] = frozenset({SoftPrompt})

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        rate: Rate,
        batch: Count,
        interval: Count,
        patience: Patience,
        accumulate: Count = 1,
        optimizer: Literal["adamw", "adafactor"] = "adamw",
        clip: float = 1.0,
    ) -> None:
        super().__init__(objective, seed=seed)
        self._batch, self._interval, self._patience = batch, interval, patience
        self._accumulate, self._adafactor, self._clip = accumulate, optimizer == "adafactor", clip
        self._rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        self._encoder = self.encoder(generator)
        self._optimizer = self._fresh_optimizer()
        self._steps = self._planned_steps()
        made = self._encoder()
        unit: Literal["tokens", "tensors"] = "tokens" if isinstance(made, Tensor) else "tensors"
        self._training = Training(len(made), None if rate == "auto" else rate, unit)
        # The rows of the first prompt; None where the prompt is several tensors.
        self._first: Tensor | None = None
        self._scored = 0
        self._best, self._worse = float("inf"), 0

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

        Vectors of a soft prompt have the shape `(length, width)`, a prefix
        `(length, *objective.prefix_shape)`. A gated prompt is a tuple of vectors, shape
        `(length, layers, width)`, and gates. Weights come by name, and vectors together with them
        under the name `vectors`.

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
        return {self._encoder: 1.0}

    @property
    def trainable(self) -> int:
        """The number of parameters tuned in training."""
        return sum(p.numel() for p in self._encoder.parameters())

    @property
    def training(self) -> Training:
        """How training went so far."""
        return self._training

    def ask(self) -> Sequence[Prompt]:
        """Train for `interval` steps (none the first time) and return the present prompt.

        The prompt after the very last step is scored, too.

        Raises:
            BudgetExhausted: All steps that the budget pays were made.
        """
        if self._patience and self._worse >= self._patience:
            return []
        if self._scored:
            if self._training.rate is None:
                self._find_rate()
            if self._training.steps >= self._steps:
                raise BudgetExhausted(f"all {self._steps} steps that the budget pays were made")
            for _ in range(min(self._interval, self._steps - self._training.steps)):
                self._train()
        else:
            self.start()
        self._note_move()
        return [self._prompt()]

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Count the scorings without a lower loss."""
        self._scored += 1
        value = float(evaluation.values[0])
        self._worse = 0 if value < self._best else self._worse + 1
        self._best = min(self._best, value)

    def state(self) -> State | None:
        """The encoder's weights, optimizer, generator, counters and notes."""
        tensors = {
            f"encoder.{name}": tensor.clone() for name, tensor in self._encoder.state_dict().items()
        }
        for i, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{i}.{name}": torch.as_tensor(value).clone()
                for name, value in moments.items()
            }
        if self._first is not None:
            tensors["first"] = self._first
        counters = {"steps": self._steps, "scored": self._scored, "worse": self._worse}
        best = None if self._best == float("inf") else self._best
        return State(
            tensors,
            {
                **counters,
                "best": best,
                "rng": self._rng.bit_generator.state,
                "training": asdict(self._training),
            },
        )

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        prefix = "encoder."
        self._encoder.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)}
        )
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                place, _, name = rest.partition(".")
                moments.setdefault(int(place), {})[name] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        self._first = state.tensors.get("first")
        self._training = Training(**state.data["training"])
        self._steps, self._scored, self._worse = (
            state.data[k] for k in ("steps", "scored", "worse")
        )
        self._best = float("inf") if state.data["best"] is None else state.data["best"]
        self._rng.bit_generator.state = state.data["rng"]

    def _prompt(self) -> Prompt:
        with torch.no_grad():
            return self.proposal(self._encoder())

    def _note_move(self) -> None:
        made = self._encoder()
        if not isinstance(made, Tensor):
            return  # a distance between several tensors says nothing
        rows = made.detach().to("cpu", torch.float32, copy=True)
        if self._first is None:
            self._first = rows
        moved = (rows.double() - self._first).norm() / self._first.norm().clamp_min(1e-12)
        if torch.isfinite(moved):
            self._training.moved = float(moved)

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        """A new optimizer, without a rate, since each step sets its own."""
        groups = [
            {"params": list(part.parameters()), "share": share}
            for part, share in self.shares().items()
        ]
        return adafactor(groups) if self._adafactor else torch.optim.AdamW(groups, weight_decay=0.0)

    def _find_rate(self) -> None:
        """Run the range test; afterwards all is as before but for the rate and what it cost."""
        before = copy.deepcopy(self._encoder.state_dict())
        ids = self.objective.minibatch(self._rng, self._batch)
        self._training.rate, self._training.tried = find_rate(
            lambda rate: self._descend(ids, rate)[0]
        )
        self._encoder.load_state_dict(before)
        self._optimizer = self._fresh_optimizer()
        self._steps = self._planned_steps()

    def _train(self) -> None:
        """Make one optimizer step on a minibatch, and note how it went."""
        notes = self._training
        assert notes.rate is not None
        ids = self.objective.minibatch(self._rng, self._batch)
        try:
            _, norms, clipped = self._descend(ids, notes.rate * self._schedule(notes.steps))
        except Diverged as error:
            notes.diverged = str(error)
            raise
        notes.enter(norms, clipped)

    def _descend(self, ids: Ids, rate: float) -> tuple[float, Tensor, bool]:
        """Make one optimizer step.

        Args:
            ids: Ids of the minibatch's examples, shape `(batch,)`.
            rate: The learning rate of this step.

        Returns:
            The mean loss in nats before the step, the norms of the gradient by row or by tensor,
            shape `(training.length,)`, and whether the gradient was clipped.

        Raises:
            Diverged: The loss or the gradient is not finite; the encoder is as before.
        """
        made = self._encoder()
        # The encoder is passed once, whatever the number of parts: their gradients are added up at
        # its output.
        numbers = leaves_of(made)
        mean = 0.0
        for part in np.array_split(ids, self._accumulate):
            loss = self.objective.loss(numbers, part) * (len(part) / len(ids))
            if loss.requires_grad:
                loss.backward()
            mean += float(loss.detach())
        gradients = [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors_of(numbers)]
        rows = isinstance(made, Tensor)
        norms = (
            gradients[0].flatten(1).norm(dim=1)
            if rows
            else torch.stack([gradient.norm() for gradient in gradients])
        )
        if not (np.isfinite(mean) and bool(torch.isfinite(norms).all())):
            raise Diverged("loss or gradient of a training step is not finite: lower the rate")
        self._optimizer.zero_grad()
        torch.autograd.backward(tensors_of(made), gradients)
        clipped = False
        if not self._adafactor:
            clipped = (
                float(nn.utils.clip_grad_norm_(self._encoder.parameters(), self._clip)) > self._clip
            )
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self._optimizer.step()
        return mean, norms, clipped

    def _schedule(self, step: int) -> float:
        """The rate at a step, as a share of the peak rate.

        It rises over the first tenth of the steps, then falls to zero. For Adafactor it is
        constant.
        """
        if self._adafactor:
            return 1.0
        warmup = max(1, self._steps // 10)
        up = (step + 1) / warmup
        down = (self._steps - step) / max(1, self._steps - warmup)
        return max(0.0, min(up, down, 1.0))

    def _planned_steps(self) -> int:
        """The number of steps that the budget pays.

        The budget also pays the scorings among the steps, and the selection among what was scored.
        """
        objective, made, blank = self.objective, self._encoder(), self._prompt()
        # What stands before the prompt is paid once an example, and all else each time. The prices
        # are those of average training examples.
        first, lead = objective.price([]), objective.price([], objective.training)
        scoring, count = objective.price([blank]) - first, len(objective.training)
        once = self._batch * (objective.price([blank], objective.training) - lead) / count
        each = once * (1 + objective.backward(made)) + scoring / self._interval
        steps = 1
        for scored in range(1, self.finalists + 1):
            # Set aside are one scoring before the first step, one that an uneven last interval
            # adds, and a step in case the examples are longer.
            left = min(objective.left(length_of(made), scored), 2**62) - first - 2 * scoring - each
            # The share of the training examples that these steps meet, at most.
            met = 1 - (1 - min(1, self._batch / count)) ** max(0.0, left / each)
            steps = max(1, int((left - met * lead) / each))
            if 1 + math.ceil(steps / self._interval) <= scored:
                break
        return steps


class NamedTensors(nn.Module):
    """An encoder of changed or added weights, which returns its parameters as they are.

    The parameters have the names that the weights have in the LM.

    Args:
        start: The tensors that the parameters start from, by name; they are copied in float32.
    """

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = list(start)
        self.tensors = nn.ParameterList(
            [nn.Parameter(tensor.detach().float().clone()) for tensor in start.values()]
        )

    def forward(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return dict(zip(self._names, self.tensors, strict=True))


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """A context in which layers of torch are initialised from a generator.

    Layers use the global generator, which is seeded from the given one and is as before afterwards.

    Args:
        generator: The generator that seeds the global one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        yield
