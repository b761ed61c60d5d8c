"""What a strategy asks to be scored: a stranger's choice, checked before it is charged."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from promptsearch.errors import StrategyError
from promptsearch.prompts.prompt import (
    HardPrompt,
    NamedPrompt,
    Prompt,
    RowsPrompt,
    TunedPrompt,
    kind_of,
    shapes_for,
)
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.scores import Ids
from promptsearch.scoring.protocol import Scorer, inside


def check_prompt(prompt: Prompt, space: PromptSpace, scorer: Scorer) -> None:
    """Refuse a prompt that does not fit the run.

    Args:
        prompt: The prompt.
        space: The pool and the length of hard prompts.
        scorer: The scorer of the search split.

    Raises:
        StrategyError: A hard prompt is not in the space, or a trained one has another shape.
        PromptError: Changed weights do not fit the LM.
    """
    if isinstance(prompt, HardPrompt):
        space.check(prompt)
    elif isinstance(prompt, NamedPrompt):
        inside(scorer, "weights").weights.check(prompt.weights)
    # Without a white box, the scorer refuses all that is no text.
    white_box = scorer.white_box
    if isinstance(prompt, RowsPrompt | TunedPrompt) and white_box is not None:
        found = tuple(tuple(prompt.tensors[name].shape) for name in prompt.shapes)
        expected = shapes_for(kind_of(type(prompt)), found, space.length, white_box)
        if found != expected:
            shapes = [" and ".join(map(str, some)) for some in (expected, found)]
            raise StrategyError(
                f"a {prompt.kind} prompt here has shape {shapes[0]}, got {shapes[1]}"
            )


def checked_ids(examples: ArrayLike, known: int) -> Ids:
    """The ids of search examples as an array, shape `(examples,)`.

    Args:
        examples: The ids.
        known: The number of examples in the search split.

    Raises:
        StrategyError: There are none, or they are no ids of examples.
    """
    ids = np.asarray(examples)
    if (
        ids.ndim != 1
        or not ids.size
        or ids.dtype.kind not in "iu"
        or ids.min() < 0
        or ids.max() >= known
    ):
        raise StrategyError(
            f"expected ids of search examples, whole numbers from 0 to {known - 1}, "
            f"got {str(ids)[:80]}"
        )
    return ids.astype(np.int64)
