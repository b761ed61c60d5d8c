"""How many steps a budget pays for, and the learning rate at each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from promptsearch.prompts.numbers import Numbers, length_of
from promptsearch.prompts.prompt import Prompt
from promptsearch.search.objective import Objective
from promptsearch.search.training_options import TrainingOptions
from promptsearch.search.views import OtherTask


def warmup_and_decay(step: int, steps: int) -> float:
    """The rate at a step, as a share of the peak rate.

    It rises linearly over the first tenth of the steps, then falls linearly to zero.

    Args:
        step: The number of steps before this one.
        steps: The number of all steps.
    """
    warmup = max(1, steps // 10)
    up = (step + 1) / warmup
    down = (steps - step) / max(1, steps - warmup)
    return max(0.0, min(up, down, 1.0))


@dataclass(frozen=True)
class StepPrices:
    """What training costs, in LM tokens: the same for all prompts of a run, which are of one form.

    Args:
        length: The length in tokens of what is trained.
        scoring: A prompt on all of `score_on`, besides what stands before it.
        step: A step, with its gradient, on average over the training examples of some tasks.
    """

    length: int
    scoring: int
    step: float

    @staticmethod
    def of(
        objective: Objective,
        tasks: Sequence[Objective | OtherTask],
        made: Numbers,
        prompt: Prompt,
        batch: int,
        beside: int = 0,
    ) -> StepPrices:
        """The prices of what is trained now.

        Args:
            objective: The objective of the run.
            tasks: As in `affordable_steps`.
            made: The numbers that are trained.
            prompt: The prompt that they make.
            batch: The examples of a step.
            beside: What the forward pass of a step costs besides its examples.
        """
        count = sum(len(task.training) for task in tasks)
        once = batch * sum(task.training_price(prompt) for task in tasks) / count + beside
        scoring = objective.price([prompt]) - objective.price([])
        return StepPrices(length_of(made), scoring, once * (1 + objective.backward(made)))


def affordable_steps(
    objective: Objective,
    tasks: Sequence[Objective | OtherTask],
    prices: StepPrices,
    options: TrainingOptions,
    finalists: int,
    *,
    ranked: int = 0,
    fresh: float = 1.0,
    share: float = 1.0,
    meeting: int = 0,
) -> int:
    """The number of steps that the budget pays; at least 1 before anything was scored.

    The budget also pays the scorings among the steps, and the selection among what was scored.

    Args:
        objective: The objective of the run, of whose budget some may be spent.
        tasks: What the minibatches are drawn from, each as often as it has training examples: the
            objective, other tasks, or both.
        prices: What these steps and a scoring cost.
        options: The numbers of examples of a step, and of steps between two scorings.
        finalists: The most prompts to select among.
        ranked: The prompts that were scored on all of `score_on` so far.
        fresh: The share of the scorings among the steps that will be so: a race stops short of
            all, and words that were scored before are no further prompt.
        share: What a scoring among the steps will cost, as a share of its price on all of
            `score_on`.
        meeting: What is still to be paid once for all training examples, besides their leads.
    """
    # What stands before the prompt is paid once an example, and all else each time. The prices
    # are those of average training examples.
    first, count = objective.price([]), sum(len(task.training) for task in tasks)
    lead = meeting + sum(task.price([], task.training) for task in tasks)
    scoring, each = prices.scoring, prices.step + share * prices.scoring / options.interval
    begin = not ranked  # one scoring comes before the first step
    steps = 0
    for scored in range(min(max(1, ranked), finalists), finalists + 1):
        # Set aside are that scoring, one that an uneven last interval adds, and a step in case the
        # examples are longer.
        aside = first + (1 + begin) * scoring + each
        left = min(objective.left(prices.length, scored), 2**62) - aside
        # The share of the training examples that these steps meet, at most.
        met = 1 - (1 - min(1, options.batch / count)) ** max(0.0, left / each)
        steps = max(int(begin), int((left - met * lead) / each))
        if ranked + begin + math.ceil(fresh * steps / options.interval) <= scored:
            break
    return steps
