"""The facts of a study: all that one needs to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from shlex import quote
from typing import Any

from promptsearch.models.endpoint.way import losses_of
from promptsearch.models.scheme import scheme_named
from promptsearch.plain.yaml import write_yaml
from promptsearch.records.results import Results
from promptsearch.records.slim import command_of
from promptsearch.records.study import ModelRecord, StudyRecord, TaskRecord
from promptsearch.report.notation import number, visible


def facts(results: Results) -> list[tuple[str, str]]:
    """The name and value of everything that a study's numbers depend on, for a list.

    Args:
        results: The results, from `load_results`.

    Returns:
        Pairs of name and value, in reading order.
    """
    study, model = results.study, results.study.model
    listed = [
        ("Model", _model(model)),
        ("Model hash", model.hash),
        ("Tokenizer hash", model.tokenizer_hash),
    ]
    for name, info in study.tasks.items():
        sizes = "; ".join(
            f"{split} {s.size} examples, hash {s.hash[:16]}" for split, s in info.splits.items()
        )
        template = json.dumps(info.template, ensure_ascii=False)
        listed.append(
            (f"Task {name}", f"template {template}; {info.metric}; {sizes}; {_pool(info)}")
        )
        if info.decoding:
            told = f"{info.decoding}; {'; '.join(info.measured)}"
            by = "written by the server" if model.served else "generated in float32"
            listed.append((f"Answers of {name}", f"{by}, {told}"))
        if info.groups is not None:
            count = max(info.groups) + 1
            told = f"{count:,} in the test split: intervals and tests are clustered by them"
            listed.append((f"Groups of {name}", told))
        if info.noise is not None:
            noise = info.noise
            error = (
                f"{noise.example:.2g} nats on an example and {noise.prompt:.2g} on a prompt's mean "
                "against float32; "
            )
            exact = "" if study.dtype == "float32" else error
            told = (
                f"at most, on a few random prompts and examples: {exact}{noise.beside:.2g} nats "
                "on an example with what is scored beside it"
            )
            listed.append((f"Noise of {study.dtype} on {name}", told))
    limit = f", at most {study.max_seconds:g} seconds" if study.max_seconds else ""
    race = (
        "; prompts that are clearly worse than the best are scored on some of these only"
        if study.race
        else ""
    )
    memory = f"; up to {study.memory / 2**30:.1f} GiB for keys and values" if study.memory else ""
    scheme = scheme_named(study.model.name)
    kept = f" with the weights of the layers in {scheme}, in all three" if scheme else ""
    here = (
        f"searched in {study.dtype} on {study.device}; selected and tested in float32{kept}{memory}"
    )
    arithmetic = f"the server's own; {losses_of(model.served)}" if model.served else here
    return [
        *listed,
        (
            "Budget",
            f"{study.budget:,} LM tokens a run{limit}; "
            f"{_scored_on(study)} search examples an evaluation{race}",
        ),
        *_proposer(study),
        *_aims(study),
        ("Seeds", ", ".join(map(str, study.seeds))),
        ("Arithmetic", arithmetic),
        (
            "Machine",
            ", ".join(
                f"{key} {value}" for key, value in study.machine.items() if value is not None
            ),
        ),
        (
            "Versions",
            ", ".join(
                f"{key} {value}"
                for key, value in {"promptsearch": study.version, **study.versions}.items()
            ),
        ),
        *(
            ("Made beside with", ", ".join(f"{key} {value}" for key, value in other.items()))
            for other in study.mixed
        ),
        (
            "Command",
            command_of(results.folder)
            or f"promptsearch compare study.yaml --out {quote(results.folder.resolve().name)}",
        ),
    ]


def _scored_on(study: StudyRecord) -> str:
    """The examples of an evaluation: a task with few search examples has fewer than asked for."""
    counts = {name: task.score_on for name, task in study.tasks.items()}
    if len(set(counts.values())) == 1:
        return str(next(iter(counts.values())))
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def bars(info: TaskRecord) -> str:
    """What answers without a language model reach, in a sentence; empty where nothing is known."""
    listed = "; ".join(f"{bar}: {number(score)}" for bar, score in info.floors.items())
    return listed and f"Without a language model, by the same metric: {listed}."


def _aims(study: StudyRecord) -> list[tuple[str, str]]:
    """What searches follow and winners are selected by, where it is not the loss."""
    if not study.objective and study.select_by == "loss":
        return []
    followed = f"minus {study.objective}" if study.objective else "the loss"
    return [("Objective", f"searches minimise {followed}; selected by {study.select_by}")]


def _proposer(study: StudyRecord) -> list[tuple[str, str]]:
    """What a token of a proposing model is charged, where it is not the study's own."""
    fare = study.fare
    if fare is None or fare.by == "same":
        return []
    if fare.by == "unknown":
        told = (
            "a token of it is charged as one of the model, although they may differ in size: "
            "'parameters' beside an endpoint tells it"
        )
    elif fare.by == "parameters":
        told = f"a token of it is charged as {fare.read:.3g} of the model, by the sizes of both"
    else:
        told = (
            f"a token that it reads is charged as {fare.read:.3g} of the model, one that it writes "
            f"as {fare.written:.3g}, by the prices of both"
        )
    return [("Proposer", told)]


def _model(model: ModelRecord) -> str:
    if model.served:
        return f"{model.name}, behind the endpoint {model.source}"
    return f"{model.name}, {model.parameters:,} parameters, from {model.source}"


def _pool(info: TaskRecord) -> str:
    made = f": {visible(info.pool_made)}" if info.pool_made else ""
    shown = f"pool of {info.pool:,} tokens{made}" + (
        f", hash {info.pool_hash[:16]}" if info.pool_hash else ""
    )
    return shown + (
        f", found for {info.pool_price:,} LM tokens, charged to each run of hard prompts"
        if info.pool_price
        else ""
    )


def study_file(study: StudyRecord) -> str:
    """The resolved study file as YAML, to be saved and run again."""
    return study_yaml(study.settings)


def study_yaml(settings: Mapping[str, Any]) -> str:
    """Settings as a study file in YAML."""
    return write_yaml(settings, width=120)
