"""Metrics by name: built-in ones, installed ones, or a stranger's `module:Class`.

Nothing that calculates is imported before a metric is made: study files are read without it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError, create_model

from promptsearch.errors import PromptSearchError, TaskError, UnknownName
from promptsearch.importing import load_named, strangers
from promptsearch.plain.expected import expected
from promptsearch.printable import brief

if TYPE_CHECKING:
    from promptsearch.tasks.metrics.metric import Metric

#: The group of entry points in which packages say which metrics they bring.
GROUP = "promptsearch.metrics"
#: Name of a built-in metric -> its file in this folder, and its class there.
METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "BalancedAccuracy"),
    "bertscore": ("bertscore", "BertScore"),
    "bleu": ("bleu", "BLEU"),
    "calibration_error": ("calibration_error", "CalibrationError"),
    "chrf": ("chrf", "CHRF"),
    "cider": ("cider", "Cider"),
    "coco_rouge_l": ("coco_rouge_l", "CocoRougeL"),
    "exact_match": ("exact_match", "ExactMatch"),
    "f1": ("f1", "F1"),
    "judge": ("judge", "Judge"),
    "meteor": ("meteor", "Meteor"),
    "meteor_nltk": ("meteor_nltk", "MeteorNltk"),
    "moverscore": ("moverscore", "MoverScore"),
    "nist": ("nist", "NIST"),
    "prefix_match": ("prefix_match", "PrefixMatch"),
    "rouge1": ("rouge", "Rouge1"),
    "rouge2": ("rouge", "Rouge2"),
    "rougeL": ("rouge", "RougeL"),
    "rougeLsum": ("rouge", "RougeLsum"),
    "slot_error": ("slot_error", "SlotError"),
    "ter": ("ter", "TER"),
    "token_f1": ("token_f1", "TokenF1"),
    "valid_json": ("valid_json", "ValidJson"),
}
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def named(given: str | Mapping[str, Mapping[str, Any] | None]) -> tuple[str, dict[str, Any]]:
    """A metric's name and options, from either form in which study files give them.

    Args:
        given: `bleu`, or `{bleu: {lowercase: true}}`.

    Raises:
        TaskError: It has neither form.
    """
    if isinstance(given, str):
        return given, {}
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, options),) = given.items()
        if isinstance(name, str) and (options is None or isinstance(options, Mapping)):
            return name, dict(options or {})
    raise TaskError(f"a metric is NAME, or {{NAME: {{OPTION: VALUE}}}}; got {brief(given)}")


def known_metrics() -> tuple[str, ...]:
    """The names of the built-in metrics, and of those that installed packages bring."""
    return tuple(dict.fromkeys([*METRICS, *(point.name for point in entry_points(group=GROUP))]))


def find_metric(name: str, options: Mapping[str, Any] = _NO_OPTIONS) -> Metric:
    """The metric of this name, with these options.

    Args:
        name: A built-in metric, an installed one, `module:Class`, or `module:function` for a
            function of labels and predictions, the places of the right and of the given answers.
            For the last two the module is imported, so its code runs: a reader of a stranger's
            results asks the user first, see `importing`.
        options: The options as a study file gives them.

    Raises:
        UnknownName: There is no such metric, or it does not have one of the options.
        TaskError: What the name stands for cannot be loaded or is no metric, an option is wrong, or
            a library is missing.
    """
    from promptsearch.tasks.metrics.metric import Metric

    found = _load(name)
    if inspect.isclass(found) and issubclass(found, Metric):
        if inspect.isabstract(found):
            lacking = ", ".join(sorted(found.__abstractmethods__))
            raise TaskError(f"the metric '{name}' lacks {lacking}")
    elif callable(found) and not inspect.isclass(found) and ":" in name:
        from promptsearch.tasks.metrics.function import FunctionMetric

        if options:
            raise TaskError(f"the metric '{name}' is a function, and has no options: remove them")
        return FunctionMetric(name, found)
    else:
        raise TaskError(
            f"the metric '{name}' is {brief(found)}: expected a subclass of "
            "promptsearch.tasks.metrics.metric.Metric, or a function of labels and predictions"
        )
    with strangers(partial(_fault, name, "cannot be made")):
        made = found(**_checked(name, found, options))
    return made


def _load(name: str) -> Any:
    if ":" in name:
        with strangers(partial(_fault, name, "cannot be loaded")):
            return load_named(name)
    if name in METRICS:
        file, kind = METRICS[name]
        return getattr(import_module(f"promptsearch.tasks.metrics.{file}"), kind)
    points = {point.value: point for point in entry_points(group=GROUP) if point.name == name}
    if len(points) > 1:
        raise TaskError(
            f"the name '{name}' is claimed by several metrics: {', '.join(sorted(points))}. "
            "Uninstall one, or use module:Class"
        )
    for point in points.values():
        with strangers(partial(_fault, name, "cannot be loaded")):
            return point.load()
    raise UnknownName("metric", name, [*known_metrics(), "module:Class", "module:function"])


def _checked(name: str, kind: type[Metric], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the constructor's annotations want them."""
    parameters = {
        p.name: p
        for p in inspect.signature(kind).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    for key in options:
        if key not in parameters:
            raise UnknownName(f"option of metric '{name}'", str(key), parameters)
    hints = typing.get_type_hints(kind.__init__, include_extras=True)
    fields: dict[str, Any] = {
        key: (hints.get(key, Any), ... if p.default is p.empty else p.default)
        for key, p in parameters.items()
    }
    wanted = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        made = create_model("Options", __config__=wanted, **fields)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        got = "" if first["type"] == "missing" else f", got {brief(first['input'])}"
        told = "it must be given" if first["type"] == "missing" else f"expected {expected(first)}"
        raise TaskError(f"the metric '{name}', option '{where}': {told}{got}") from error
    return {key: getattr(made, key) for key in parameters}


def _fault(metric: str, what: str, error: BaseException) -> Exception:
    if isinstance(error, PromptSearchError):  # it says all that there is to say
        return error
    return TaskError(f"the metric '{metric}' {what}: {type(error).__name__}: {error}")
