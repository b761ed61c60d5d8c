"""What the searches of a study aim at: the metric that they follow, and those that are measured.

Metrics that look at texts through a model, such as BERTScore, are handed theirs here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from promptsearch.errors import StudyError
from promptsearch.models.encoder import TextEncoder
from promptsearch.models.protocol import TextModel
from promptsearch.search.proposer import Proposing
from promptsearch.study.entries import Entry
from promptsearch.study.judging import Asking
from promptsearch.study.settings.model import EndpointConfig
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.metrics import find_metric, named
from promptsearch.tasks.metrics.encoder import OverEncoder
from promptsearch.tasks.metrics.judge import Judge
from promptsearch.tasks.metrics.metric import Metric
from promptsearch.tasks.task import Task


@dataclass(frozen=True)
class Aims:
    """What searches follow, winners are selected by, and answers are measured by.

    Args:
        measures: Name of a task -> its metrics by name, that of the verdict first.
        follows: The metric that searches follow; None for the loss.
        by_metric: Whether winners are selected by each task's metric, not by its loss.
    """

    measures: Mapping[str, Mapping[str, Metric]]
    follows: Metric | None = None
    by_metric: bool = False


def aims_of(config: StudyConfig, entries: Sequence[Entry], tasks: Sequence[Task]) -> Aims:
    """What a study aims at, checked, with the models that its metrics look through.

    Args:
        config: The study.
        entries: Its entries.
        tasks: Its tasks.

    Raises:
        UnknownName: There is no such metric.
        TaskError: It cannot be loaded, or does not fit a task.
        ModelError: The model that a metric looks through cannot be loaded.
        StudyError: A strategy cannot follow the metric, or a judge is to decide alone.
    """

    @cache
    def encoder(name: str, layer: int) -> TextEncoder:
        return TextEncoder.load(config.source(name), layer=layer, device=config.device)

    def seeing(metric: Metric) -> Metric:
        if isinstance(metric, OverEncoder):
            metric.over(encoder(metric.encoder, metric.layer))
        return metric

    for task in tasks:
        if isinstance(task.measures[task.metric], Judge):
            raise StudyError(
                f"task '{task.name}': a judge alone tells nothing reliable, so no verdict is about "
                "it: take another metric, and the judge under metrics"
            )
    measures = {
        task.name: {name: seeing(metric) for name, metric in task.measures.items()}
        for task in tasks
    }
    follows = _followed(config, entries, tasks)
    return Aims(measures, follows and seeing(follows), config.selects_by_metric)


def hand_judges(aims: Aims, config: StudyConfig, proposing: Proposing, lm: TextModel) -> None:
    """Hand the study's proposer to all judges among the metrics.

    Args:
        aims: What the study aims at.
        config: The study.
        proposing: The model that proposes.
        lm: The study's own model, which proposes where no other is named.
    """
    given = config.proposer
    other = given.endpoint if isinstance(given, EndpointConfig) else given.model
    asking = Asking(proposing, str(other) if other else f"{lm.name}@{lm.hash[:8]}")
    for measures in aims.measures.values():
        for metric in measures.values():
            if isinstance(metric, Judge):
                metric.over(asking)


def _followed(
    config: StudyConfig, entries: Sequence[Entry], tasks: Sequence[Task]
) -> Metric | None:
    """The metric that searches follow; None for the loss."""
    if config.objective is None:
        return None
    name, options = named(config.objective)
    metric, where = find_metric(name, options), config.at("objective")
    if isinstance(metric, Judge):
        raise StudyError(f"{where}: no search follows a judge: take another metric, or none")
    for task in tasks:
        task.check_metric(name, metric)
    for entry in entries:
        if entry.strategy.access.trains:
            raise StudyError(
                f"{where}: '{entry.given.label}' is trained by gradients, which the loss has and "
                f"the metric '{name}' has not: leave out the objective, or this strategy"
            )
    return metric
