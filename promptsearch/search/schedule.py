"""How many steps a budget pays for, and the learning rate at each of them."""

from __future__ import annotations

import math

from promptsearch.prompts.numbers import Numbers, length_of
from promptsearch.prompts.prompt import Prompt
from promptsearch.search.objective import Objective
from promptsearch.search.training_options import TrainingOptions


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


def affordable_steps(
    objective: Objective, made: Numbers, prompt: Prompt, options: TrainingOptions, finalists: int
) -> int:
    """The number of steps that the budget pays, at least 1.

    The budget also pays the scorings among the steps, and the selection among what was scored.

    Args:
        objective: The objective of the run, of whose budget some may be spent.
        made: The numbers that are trained.
        prompt: The prompt that they make.
        options: The numbers of examples of a step, and of steps between two scorings.
        finalists: The most prompts to select among.
    """
    # What stands before the prompt is paid once an example, and all else each time. The prices
    # are those of average training examples.
    first, lead = objective.price([]), objective.price([], objective.training)
    scoring, count = objective.price([prompt]) - first, len(objective.training)
    once = options.batch * objective.training_price(prompt) / count
    each = once * (1 + objective.backward(made)) + scoring / options.interval
    steps = 1
    for scored in range(1, finalists + 1):
        # Set aside are one scoring before the first step, one that an uneven last interval
        # adds, and a step in case the examples are longer.
        left = min(objective.left(length_of(made), scored), 2**62) - first - 2 * scoring - each
        # The share of the training examples that these steps meet, at most.
        met = 1 - (1 - min(1, options.batch / count)) ** max(0.0, left / each)
        steps = max(1, int((left - met * lead) / each))
        if 1 + math.ceil(steps / options.interval) <= scored:
            break
    return steps
