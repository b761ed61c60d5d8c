"""The metrics that a task asks for: that of the verdict, and those that are reported beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from promptsearch.errors import TaskError
from promptsearch.printable import brief
from promptsearch.tasks.metrics.registry import named

#: A metric as study files give it: `bleu`, or `{bleu: {lowercase: true}}`.
Given: TypeAlias = str | Mapping[str, Mapping[str, Any] | None]


def asked_metrics(
    metric: Given, metrics: Sequence[Given]
) -> tuple[str, dict[str, Mapping[str, Any]]]:
    """The name of the main metric, and the options of all that have any or are no main one.

    Args:
        metric: The main metric.
        metrics: The others.

    Raises:
        TaskError: A name stands there twice, or a metric has neither form.
    """
    if isinstance(metrics, (str, Mapping)):
        raise TaskError(f"metrics are {brief(metrics)}: expected a list of them, such as ['bleu']")
    main, options = named(metric)
    found: dict[str, Mapping[str, Any]] = {main: options} if options else {}
    for name, given in map(named, metrics):
        if name == main or name in found:
            raise TaskError(f"the metric '{name}' is asked for twice: expected each name once")
        found[name] = given
    return main, found


def with_metric(keys: Mapping[str, Any], metric: Given | None) -> dict[str, Any]:
    """The keys of a task under another main metric, which is no further one any more.

    Args:
        keys: The task's own keys, as a study file gives them.
        metric: The metric that comes from elsewhere; None where none does.

    Raises:
        TaskError: A metric has neither form.
    """
    if not metric:
        return dict(keys)
    main, _ = named(metric)
    further = [each for each in keys.get("metrics", ()) if named(each)[0] != main]
    return {**keys, "metric": metric, **({"metrics": further} if "metrics" in keys else {})}
