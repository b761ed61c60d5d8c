"""What a metric is: statistics of each row, and a function from their sum to the score.

A metric that is no mean over rows, such as BLEU, is a function of sums over rows all the same. So
one form serves all: rows are drawn again for an interval, left out with their group, or spread over
machines, and their sums give the same score as the whole would. The signature says what a score
depends on (Post 2018, arXiv:1804.08771, section 4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answered:
    """A row with the answer that the model gave, as a metric sees it.

    Args:
        output: The answer: the generated text up to its end, or the chosen one, without whitespace
            around it.
        references: All texts that count as right, at least one, without whitespace around them.
        fields: The row's fields.
        label: The place of the right answer among those to choose from; None for text answers.
        prediction: The place of the chosen answer; None for text answers.
        probabilities: The probability of each answer to choose from; empty for text answers.
    """

    output: str
    references: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    label: int | None = None
    prediction: int | None = None
    probabilities: tuple[float, ...] = ()


def signed(name: str, **parts: object) -> str:
    """A signature in sacrebleu's form: `name|key:value|...`.

    Args:
        name: The metric's name.
        parts: What else the score depends on.
    """
    return "|".join([name, *(f"{key}:{value}" for key, value in parts.items())])


class Metric(ABC):
    """A measure of answers.

    A metric of one's own is a subclass, named `module:Class` in a study file or by an entry point
    of the group `promptsearch.metrics`. Its options are the keyword arguments of its `__init__`,
    with defaults.

    Attributes:
        name: The name in study files and reports.
        answers: The answers that it is for: `choices`, `text`, or `any`.
        higher_is_better: Whether a higher score is a better one.
        bounds: The least and the greatest score that there can be.
        mean: Whether the score is the mean over rows of their only statistic.
        alone: Whether it needs no model, program or data that may be missing, so that it can be
            tried beforehand on a few rows of a test split.
    """

    name: str
    answers: ClassVar[Literal["choices", "text", "any"]] = "text"
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    mean: ClassVar[bool] = False
    alone: ClassVar[bool] = True

    @property
    def signature(self) -> str:
        """All that the score depends on besides the rows: name, version, options, in one line."""
        return self.name

    def check(self, rows: Sequence[Answered]) -> None:
        """Refuse rows that cannot be measured whatever is answered, before anything is scored.

        Args:
            rows: All rows of a split; what stands for their answers says nothing.

        Raises:
            PromptSearchError: A row lacks what this metric reads in it.
        """
        return

    @abstractmethod
    def statistics(self, rows: Sequence[Answered]) -> Floats:
        """The statistics of each row, shape `(rows, statistics)`.

        Args:
            rows: All rows of a split. What depends on all of them, such as the weights of words in
                CIDEr, depends on their references and never on their outputs.
        """

    def score(self, sums: Floats, rows: int) -> float:
        """The score.

        Args:
            sums: The sums of the rows' statistics, shape `(statistics,)`.
            rows: The number of rows.
        """
        return float(sums[0] / rows)

    def feedback(self, row: Answered) -> str:
        """What a reader of this row's answer would be told, in a line; empty where nothing is."""
        return ""

    def of(self, rows: Sequence[Answered]) -> float:
        """The score of rows."""
        return self.score(self.statistics(rows).sum(0), len(rows))
