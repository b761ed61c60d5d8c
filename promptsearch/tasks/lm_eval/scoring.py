"""How a task of lm-evaluation-harness is scored: metrics, filters, and where generation ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from promptsearch.errors import TaskError
from promptsearch.printable import brief
from promptsearch.tasks.lm_eval.config import TaskFile

#: The kinds of tasks that are read, and the metrics of each where its file names none.
OUTPUTS = {"multiple_choice": ("acc", "acc_norm"), "generate_until": ("exact_match",)}
#: Accuracy of the harness -> the length by which log-probabilities are divided for it.
_ACCURACIES = {"acc": "none", "acc_norm": "characters", "acc_bytes": "bytes"}
#: Its metrics of generated texts that are ours by the same name.
_TEXTS = ("exact_match", "bleu", "chrf", "ter")
#: Option of the harness's `exact_match` -> option of ours and its value where that is true.
_EXACT = {"ignore_case": ("lowercase", True), "ignore_punctuation": ("punctuation", False)}
#: Keys of a metric that say nothing about how one row is scored.
_ASIDE = ("metric", "aggregation", "higher_is_better", "hf_evaluate")
#: The filters that leave an answer as it is, but for whitespace at its ends.
_FILTERS = ("remove_whitespace", "take_first")
#: Other names of the most tokens to generate, the first one first.
_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
#: The most tokens where a task does not say it.
_MOST = 256
#: The largest number under `generation_kwargs`.
_LARGEST = 10**9
#: A special token of some model's; the model's own ends every answer, whatever a task says.
_SPECIAL = re.compile(r"<[^<>\s]+>")


class Scoring(NamedTuple):
    """How rows are scored.

    Args:
        choice: Whether the answer is chosen, not generated.
        end: The text before which a generated answer ends; empty where only the model ends it.
        keys: The keys of a task in a study file that say it.
        notes: What is done otherwise than the harness does it.
    """

    choice: bool
    end: str
    keys: Mapping[str, Any]
    notes: tuple[str, ...]


def scoring_of(file: TaskFile) -> Scoring:
    """How a task is scored.

    Args:
        file: The task's file.

    Raises:
        TaskError: In a way that is not known here; the message names it.
    """
    kind = file.config.output_type
    if kind not in OUTPUTS:
        raise TaskError(f"{file.path}: output_type is {kind!r}: expected {' or '.join(OUTPUTS)}")
    if file.config.repeats != 1:
        raise TaskError(f"{file.path}: repeats is {file.config.repeats}: expected 1")
    stripped, notes = _filters(file)
    if kind == "multiple_choice":
        name, others = _accuracy(file)
        keys = {"metric": "accuracy", "normalise": _ACCURACIES[name]}
        return Scoring(True, "", keys, (*notes, *_left_out(others)))
    metrics, others = _text_metrics(file)
    end, decoding = _generation(file)
    notes += _left_out(others)
    if not stripped:
        notes.append(
            "whitespace around an answer does not count here; in lm-eval it does, since the task "
            "has no filter remove_whitespace"
        )
    main, *further = metrics
    more = {"metrics": further} if further else {}
    return Scoring(False, end, {"metric": main, **more, "decoding": decoding}, tuple(notes))


def _accuracy(file: TaskFile) -> tuple[str, list[str]]:
    """The first accuracy of a task of choices, and its other metrics."""
    names = [str(each.get("metric")) for each in _listed(file)]
    found = next((name for name in names if name in _ACCURACIES), None)
    if found is None:
        raise _unknown(file, names, _ACCURACIES)
    return found, [name for name in names if name != found]


def _text_metrics(file: TaskFile) -> tuple[list[str | dict[str, Any]], list[str]]:
    """The metrics of a task of text that are ours, and the names of the others."""
    found: list[str | dict[str, Any]] = []
    others = []
    for each in _listed(file):
        name = str(each.get("metric"))
        options = {key: value for key, value in each.items() if key not in _ASIDE}
        if name not in _TEXTS or each.get("hf_evaluate"):
            others.append(name)
        else:
            ours = _options(file, name, options)
            found.append({name: ours} if ours else name)
    if not found:
        raise _unknown(file, others, _TEXTS)
    return found, others


def _listed(file: TaskFile) -> list[dict[str, Any]]:
    listed = file.config.metric_list
    if listed is None:
        return [{"metric": name} for name in OUTPUTS[file.config.output_type]]
    return listed


def _unknown(file: TaskFile, names: Sequence[str], known: Iterable[str]) -> TaskError:
    given = ", ".join(names) or "none"
    return TaskError(f"{file.path}: its metrics are {given}: expected one of {', '.join(known)}")


def _left_out(names: Sequence[str]) -> list[str]:
    listed = ", ".join(names)
    return [f"metrics of lm-eval's that are not computed here: {listed}"] if names else []


def _options(file: TaskFile, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    for key, value in options.items():
        if name == "exact_match" and key in _EXACT and isinstance(value, bool):
            option, wanted = _EXACT[key]
            ours |= {option: wanted} if value else {}
        elif value not in (None, False, []):
            raise TaskError(
                f"{file.path}: the metric {name} has the option '{key}', which is not known here; "
                f"expected {' or '.join(_EXACT)} of exact_match"
            )
    return ours


def _filters(file: TaskFile) -> tuple[bool, list[str]]:
    """Whether whitespace around answers is removed, and a note on filters that are left out."""
    pipelines = file.config.filter_list
    if pipelines is None:
        return False, []
    known: list[Sequence[str]] = []
    other: list[str] = []
    for each in pipelines:
        steps = [str(step.get("function")) for step in each.filter]
        if all(step in _FILTERS for step in steps):
            known.append(steps)
        else:
            other.append(str(each.name))
    if not known:
        raise TaskError(
            f"{file.path}: its answers go through the filter {', '.join(other) or '?'}: expected "
            f"one that is made of {' and '.join(_FILTERS)}"
        )
    notes = [f"filters of lm-eval's that are left out: {', '.join(other)}"] if other else []
    return "remove_whitespace" in known[0], notes


def _generation(file: TaskFile) -> tuple[str, dict[str, Any]]:
    """The text that ends an answer, and the keys of `decoding`."""
    given = dict(file.config.generation_kwargs or {})
    until = given.pop("until", file.config.fewshot_delimiter)
    tokens = [
        int(_number(file, name, value))
        for name in _TOKENS
        if (value := given.pop(name, None)) is not None
    ]
    sample = given.pop("do_sample", None)
    temperature = _number(file, "temperature", given.pop("temperature", 0.0))
    decoding: dict[str, Any] = {"tokens": tokens[0] if tokens else _MOST}
    if sample is not False and temperature > 0:
        decoding["temperature"] = float(temperature)
    for theirs, ours, plain in (
        ("num_beams", "beams", 1),
        ("length_penalty", "length_penalty", 1.0),
        ("top_p", "top_p", 1.0),
    ):
        if (value := given.pop(theirs, plain)) != plain:
            number = _number(file, theirs, value)
            decoding[ours] = int(number) if ours == "beams" else number
    # Where nothing is drawn, or no beams are compared, these do nothing in the harness either.
    for ours, needed in (("top_p", "temperature"), ("length_penalty", "beams")):
        if needed not in decoding:
            decoding.pop(ours, None)
    for theirs, plain in (("repetition_penalty", 1.0), ("top_k", 0)):
        if given.get(theirs) == plain:
            del given[theirs]
    if given:
        raise TaskError(
            f"{file.path}: generation_kwargs has the key '{next(iter(given))}', which is not "
            f"known here; expected until, {', '.join(_TOKENS)}, do_sample, temperature, top_p, "
            "num_beams or length_penalty"
        )
    return _end(file, [until] if isinstance(until, str) else list(until or ())), decoding


def _number(file: TaskFile, key: str, value: Any) -> int | float:
    """A number under `generation_kwargs`."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (known and abs(value) <= _LARGEST):
        raise TaskError(
            f"{file.path}: generation_kwargs.{key} is {brief(value)}: expected a number, at most "
            f"{_LARGEST:,}"
        )
    return value  # type: ignore[no-any-return]


def _end(file: TaskFile, until: list[Any]) -> str:
    """The one text that ends an answer; what a model's own end token does is left to it."""
    texts = [text for text in until if not _SPECIAL.fullmatch(str(text))]
    first = [t for t in texts if not any(t != other and t.startswith(other) for other in texts)]
    if len(dict.fromkeys(first)) > 1:
        raise TaskError(
            f"{file.path}: generation ends at several texts, {brief(first)}: expected one, since "
            "the end belongs to the answer that is trained and scored. Copy the file, and leave "
            "one under generation_kwargs.until"
        )
    return str(first[0]) if first else ""
