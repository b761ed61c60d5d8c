"""The examples that a strategy asks for: a stranger's choice, checked before it is charged."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike

from promptsearch.errors import StrategyError
from promptsearch.records.scores import ExampleIds
from promptsearch.search.calling import strangers_code


def checked_ids(examples: ArrayLike, known: int) -> ExampleIds:
    """The ids of search examples as an array, shape `(examples,)`.

    Args:
        examples: The ids.
        known: The number of examples in the search split.

    Raises:
        StrategyError: There are none, or they are no ids of examples.
    """
    expected = f"expected ids of search examples, whole numbers from 0 to {known - 1}"
    with strangers_code(expected):  # of rows that differ in length no array is made
        ids = np.asarray(examples)
        if (
            ids.ndim != 1
            or not ids.size
            or ids.dtype.kind not in "iu"
            or ids.min() < 0
            or ids.max() >= known
        ):
            raise StrategyError(f"{expected}, got {str(ids)[:80]}")
        return ids.astype(np.int64)


def group_of(ids: ExampleIds | None) -> str:
    """The name of an evaluation's examples, given by their ids; None is all of `score_on`."""
    return "score_on" if ids is None else hashlib.sha256(ids.tobytes()).hexdigest()[:20]


def in_one_order(ids: ExampleIds, among: ExampleIds) -> ExampleIds:
    """Ids of a minibatch, sorted where it is all examples there are.

    A prompt is paid once on the same examples in the same order; a minibatch of all of them that
    came in another order each time would be paid each time.

    Args:
        ids: The minibatch, none of them twice, shape `(minibatch,)`.
        among: Ids of the examples of which it was drawn.
    """
    return np.sort(ids) if len(ids) == len(among) else ids
