"""The metric that the searches of a study follow, and what cannot follow one."""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.errors import StudyError
from promptsearch.search.strategy import Access
from promptsearch.study.entries import Entry
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.metrics import find_metric, named
from promptsearch.tasks.metrics.measured import check_metric
from promptsearch.tasks.metrics.metric import Metric
from promptsearch.tasks.task import Task


def followed(config: StudyConfig, entries: Sequence[Entry], tasks: Sequence[Task]) -> Metric | None:
    """The metric that searches follow; None for the loss.

    Args:
        config: The study.
        entries: Its entries.
        tasks: Its tasks.

    Raises:
        UnknownName: There is no such metric.
        TaskError: It cannot be loaded, or does not fit a task.
        StudyError: A strategy or a race cannot follow it.
    """
    if config.objective is None:
        return None
    name, options = named(config.objective)
    metric = find_metric(name, options)
    for task in tasks:
        check_metric(metric, task.most_choices)
    where = config.at("objective")
    for entry in entries:
        if entry.strategy.access is not Access.SCORES:
            raise StudyError(
                f"{where}: '{entry.given.label}' is trained by gradients, which the loss has and "
                f"the metric '{name}' has not: leave out the objective, or this strategy"
            )
    if config.race and not metric.mean:
        raise StudyError(
            f"{where}: the metric '{name}' is no mean over examples, so that a race, which "
            "compares prompts on some of them, tells nothing: leave out race, or take another "
            "metric as objective"
        )
    return metric
