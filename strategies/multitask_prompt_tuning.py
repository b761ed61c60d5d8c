"""Multitask prompt tuning: one prompt that tasks share, and a rank-one matrix of each task's own.

Wang et al. 2023, "Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning" (MPT),
arXiv:2303.02861. Section 3.2: the prompt of task k is P_k = P* o W_k, W_k = u_k v_k^T, where P* has
the shape (length, width), u_k (length,) and v_k (width,), and o multiplies element by element. In
source training all tasks are learned at once; then P*, u and v are adapted to the target task, with
a learning rate for what is shared and one for what is the task's own.

A run spends a share of its own budget on source training, and adapts with the rest, so that it is
as dear as any other run, and needs no artefact of one. It is ranked on its own task alone; of the
other tasks it sees the search examples that are not scored on, and it pays for them. Its own task
is among the source tasks, and adaptation goes on from its u and v. Each step of source training
sees one task, drawn in proportion to the number of its training examples: the paper mixes tasks so,
up to a number of examples that no study here reaches.

Differs from the paper: the loss is the tasks' own. There, in source training, each task is also
distilled from a prompt that was trained on it alone, by its output distribution and by hidden
states. Such a teacher for each task would cost as much as the run, and what is left of an equal
budget would train nothing. u and v start at 1, so that each task's prompt starts as words; and
AdamW has warm-up and linear decay, anew in adaptation.

Beats random on the planted objective `separable`, where other tasks have the same planted prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from promptsearch import Objective, Prompt, State, TrainedStrategy
from promptsearch.errors import StrategyError
from promptsearch.prompts.numbers import Numbers
from promptsearch.records.scores import Evaluation, ExampleIds
from promptsearch.search.options import Positive
from promptsearch.search.schedule import warmup_and_decay
from promptsearch.search.training_options import Rate
from promptsearch.search.views import OtherTask

#: The place of the run's own task among those that are learned.
_OWN = 0


class MultitaskPromptTuning(TrainedStrategy):
    """Train one prompt on several tasks of the study, then adapt it to the run's own.

    The prompt of a task is the shared one, multiplied element by element by a matrix of rank one.

    Args:
        objective: Scores prompts on the search split.
        seed: Seeds initialisation, the draws of tasks and minibatches.
        tasks: The names of tasks of the study to learn together; a run's own is always among them.
        share: The share of the budget for source training, in whole intervals, at least one.
        task_rate: The rate of what is a task's own, as a multiple of `rate`.
        rate: Peak learning rate of AdamW, of what is shared; `auto` tries rates in a short test,
            which the budget pays.
        **training: The options of all trained strategies, see `TrainingOptions`.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        tasks: Annotated[list[str], Field(min_length=2, max_length=1_000)],
        share: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        task_rate: Positive = 1.0,
        rate: Rate = 0.03,
        **training: Any,
    ) -> None:
        if not objective.others:
            raise StrategyError(
                "it learns several tasks together, but there is none besides the run's own: name "
                "two tasks of the study at least under 'tasks'"
            )
        self._share, self._task_rate = share, task_rate
        self._tasks: list[Objective | OtherTask] = [objective, *objective.others.values()]
        #: The steps of source training, a multiple of `interval`.
        self.source = 0
        super().__init__(objective, seed=seed, rate=rate, **training)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Refuse to name a task twice, and steps that source training would take alone."""
        super().check(options)
        names = options["tasks"]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise StrategyError(f"'tasks' names '{twice}' twice")
        if options["steps"] is not None and options["steps"] <= options["interval"]:
            raise StrategyError(
                f"'steps' is {options['steps']}: source training alone takes an 'interval', which "
                f"is {options['interval']}; give more steps, or a shorter interval"
            )

    @classmethod
    def trains_on(cls, options: Mapping[str, Any]) -> list[str]:
        """The tasks that `tasks` names."""
        return list(options["tasks"])

    def encoder(self, generator: torch.Generator) -> nn.Module:
        """The shared prompt, which starts as words of the pool, and ones for each task."""
        ids = torch.tensor(self.words(None, generator))
        self.prompts = SharedPrompt(self.objective.embeddings[ids].float().cpu(), len(self._tasks))
        return self.prompts

    def shares(self) -> Mapping[nn.Module, float]:
        """The rates of what is shared, and of what is a task's own."""
        prompts, own = self.prompts, self._task_rate
        return {prompts.shared: 1.0, prompts.rows: own, prompts.columns: own}

    def plan(self) -> int:
        """The steps of source training, which take their share, and those that the rest pays."""
        made, all_own = self.training.steps, super().plan()
        if made >= self.source > 0:
            return all_own
        mixed, interval = self.affordable(self._tasks), self.options.interval
        if not made:
            most = max(1, (mixed - 1) // interval)  # a step at least is left for the own task
            self.source = min(max(1, round(self._share * mixed / interval)), most) * interval
        more = min(self.source - made, mixed)
        # What these leave of the budget, as a share, pays steps on the run's own task.
        return made + more + int((1 - more / max(1, mixed)) * (all_own - made))

    def schedule(self, step: int) -> float:
        """The rate at a step, as a share of the peak rate: it rises and falls in both stages."""
        if step < self.source:
            return warmup_and_decay(step, self.source)
        return warmup_and_decay(step - self.source, self.planned - self.source)

    def ask(self) -> Sequence[Prompt]:
        """Train on, and begin anew where adaptation begins: with all that is left of the budget."""
        if self.training.steps == self.source:
            self._descent.forget()
            self.planned = self.plan()
        return super().ask()

    def tell(self, prompts: Sequence[Prompt], evaluation: Evaluation) -> None:
        """Count the scorings without a lower loss, but not while other tasks are learned."""
        super().tell(prompts, evaluation)
        if self.training.steps < self.source:
            self._worse = 0

    def train(self) -> None:
        """Make one step on one task: on a drawn one in source training, then on the run's own."""
        if self.training.steps < self.source:
            sizes = np.array([len(task.training) for task in self._tasks])
            self.prompts.task = int(self._rng.choice(len(sizes), p=sizes / sizes.sum()))
        try:
            super().train()
        finally:
            self.prompts.task = _OWN

    def minibatch(self) -> ExampleIds:
        """Ids of examples of the task of this step, shape `(batch,)`."""
        return self._tasks[self.prompts.task].minibatch(self._rng, self.options.batch)

    def loss(self, numbers: Numbers, examples: ExampleIds, visit: int) -> Tensor:
        """The loss of the task of this step, in nats, shape `()`."""
        return self._tasks[self.prompts.task].loss(numbers, examples, visit)

    def state(self) -> State:
        """That of training, and where source training ends."""
        state = super().state()
        assert state is not None
        return State(state.tensors, {**state.data, "source": self.source})

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        super().restore(state)
        self.source = state.data["source"]


class SharedPrompt(nn.Module):
    """The prompts of several tasks: P_k = P* o (u_k v_k^T).

    Args:
        start: What P* starts from, shape `(length, width)`.
        tasks: The number of tasks.

    Attributes:
        task: The place of the task whose prompt is made.
    """

    def __init__(self, start: Tensor, tasks: int) -> None:
        super().__init__()
        self.task = _OWN
        length, width = start.shape
        self.shared = nn.ParameterList([start.clone()])
        # u_k, shape `(length,)`, and v_k, shape `(width,)`, of each task. They are parameters of
        # their own, so that a step on one task leaves the moments of the others alone.
        self.rows, self.columns = (
            nn.ParameterList(torch.ones(size) for _ in range(tasks)) for size in (length, width)
        )

    def forward(self) -> Tensor:
        """The prompt of the present task, shape `(length, width)`."""
        rows, columns = self.rows[self.task], self.columns[self.task]
        made: Tensor = self.shared[0] * torch.outer(rows, columns)
        return made
