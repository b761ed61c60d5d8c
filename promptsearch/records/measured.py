"""The scores of a prompt on a split, as a record holds them: loss, metrics, what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The significant digits of a statistic in a record.
DIGITS = 9


@dataclass(frozen=True)
class ScoreRecord:
    """Loss in nats and metric on a split; the metric is None where it was not measured."""

    loss: float
    metric: float | None


@dataclass(frozen=True)
class JudgeRecord:
    """How a language model judged answers.

    Args:
        tokens: The tokens that it read and wrote, which are not of the budget.
        agrees: The share of rows where it says of an answer what is known of it.
        kappa: Cohen's kappa of the same: 0 for agreement by chance, 1 for full agreement; None
            where both always say the same one thing.
    """

    tokens: int
    agrees: float
    kappa: float | None


@dataclass(frozen=True)
class MetricRecord:
    """A metric on a split.

    Args:
        name: The metric's name.
        score: Its score; None where it failed.
        signature: All that the score depends on besides the rows.
        higher_is_better: Whether a higher score is a better one.
        bounds: The least and the greatest score that there can be; None for no limit.
        mean: Whether the score is the mean over rows of their only statistic.
        statistics: The statistics of each row, shape `(rows, statistics)`, of nine digits; None
            where right and wrong, or predictions and labels, say the same, on the select split, and
            where it failed.
        failed: Why there is no score.
        options: Its options, as the study file gives them.
        judge: How it judged, where it is a judge.
    """

    name: str
    score: float | None
    signature: str
    higher_is_better: bool = True
    bounds: tuple[float | None, float | None] = (0.0, 1.0)
    mean: bool = False
    statistics: tuple[tuple[float, ...], ...] | None = None
    failed: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    judge: JudgeRecord | None = None


@dataclass(frozen=True)
class ExamplesRecord(ScoreRecord):
    """The scores of a winner on a split, with those of each example.

    Args:
        loss: Mean nats.
        metric: The task's metric; None where it failed, or where it is one of text answers and none
            were generated.
        losses: Nats of each example.
        correct: 1 for a right answer, 0 for a wrong one; for text answers, whether each token of
            the right answer is the most probable one behind those before it.
        predictions: Index of the chosen answer of each example; None for text answers.
        labels: Index of the right answer of each example; None for text answers.
        shares: What each example adds to a metric that is a function of the study's author, see
            `tasks.metrics`; None for other metrics, on the select split, and where it failed.
        metric_failed: Why a number or the shares of such a metric are missing.
        outputs: The generated answer of each example, up to its end; None for choices, and where
            none were generated.
        unended: How many of them met the limit of tokens before their end.
        metrics: The task's metric, and those that are shown beside it.
        probabilities: Those of each choice of each example, of four decimals, where there are more
            than two; None on the select split, and for text answers. Of two, the loss tells both.
    """

    losses: tuple[float, ...]
    correct: tuple[int, ...]
    predictions: tuple[int, ...] | None
    labels: tuple[int, ...] | None
    shares: tuple[float, ...] | None = None
    metric_failed: str = ""
    outputs: tuple[str, ...] | None = None
    unended: int | None = None
    metrics: tuple[MetricRecord, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] | None = None
