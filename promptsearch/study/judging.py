"""A judge at work: the study's proposer answers its questions, and its tokens are counted.

A judge looks at answers to the test split, after all is chosen. Like that look, it is not charged
to the budget; what it read and wrote is recorded beside its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promptsearch.records.measured import JudgeRecord, MetricRecord
from promptsearch.search.proposer import Proposing
from promptsearch.tasks.metrics.exact_match import ExactMatch
from promptsearch.tasks.metrics.judge import agreement
from promptsearch.tasks.metrics.measured import Measured
from promptsearch.tasks.metrics.metric import Answered

#: The most tokens of a judge's answer, of which the first word counts.
_TOKENS = 8


class Asking:
    """A proposing model that is asked by judges, see `promptsearch.tasks.metrics.judge.Asked`.

    Args:
        proposing: The model.
        name: Names the model in signatures.

    Attributes:
        tokens: The tokens that it has read and written.
    """

    def __init__(self, proposing: Proposing, name: str) -> None:
        self._proposing = proposing
        self.signature = name
        self.tokens = 0

    def answers(self, requests: Sequence[str]) -> list[str]:
        """The model's most probable answer to each request."""
        found = self._proposing.complete(
            requests,
            max_tokens=_TOKENS,
            temperature=0.0,
            seeds=[0] * len(requests),
            stop=["\n"],
        )
        self.tokens += sum(each.tokens_in + each.tokens_out for each in found)
        return [each.text for each in found]


def judged(
    record: MetricRecord, found: Measured, drawn: Sequence[Sequence[Answered]], tokens: int
) -> MetricRecord:
    """The record of a judge, with its agreement with what is known of all answers.

    Args:
        record: The record so far.
        found: What it said of each row.
        drawn: The rows, once for each answer that was drawn.
        tokens: What it read and wrote.
    """
    said = np.concatenate(found.draws or (found.statistics,))[:, 0]
    told = agreement(said.tolist(), [right for rows in drawn for right in _right(rows)])
    kappa = None if np.isnan(told.kappa) else told.kappa
    return replace(record, judge=JudgeRecord(tokens, told.share, kappa))


def _right(rows: Sequence[Answered]) -> list[float]:
    """1 for an answer that is the right choice, or matches a reference; else 0."""
    if rows[0].label is None:
        return [float(right) for right in ExactMatch().statistics(rows)[:, 0]]
    return [float(row.label == row.prediction) for row in rows]
