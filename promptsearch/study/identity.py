"""What a study is, as `study.json` says it, and whether a folder holds the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from promptsearch.errors import RecordError, StudyError
from promptsearch.files import exists, shown
from promptsearch.records.ledger import PRICES
from promptsearch.records.load import RUN, STUDY, load_study
from promptsearch.records.provenance import commit, machine, own_version, versions
from promptsearch.records.signature import signature
from promptsearch.records.study import (
    ModelRecord,
    RowRecord,
    SplitRecord,
    StudyRecord,
    TaskRecord,
)
from promptsearch.study.calibration import measure_noise
from promptsearch.study.draws import hash_of_split
from promptsearch.study.execution.fleet import check_alike, differing
from promptsearch.study.execution.spread import Spread
from promptsearch.study.families import asks_proposer
from promptsearch.study.prepare import Prepared
from promptsearch.tasks.floors import floors, majority
from promptsearch.tasks.metrics import named
from promptsearch.tasks.task import Example, Task

#: How many rows of a test split are recorded for readers, and the most characters of a text there.
SHOWN, LONGEST = 5, 2_000


def settle(folder: Path, prepared: Prepared, spread: Spread) -> tuple[StudyRecord, dict[str, str]]:
    """Compare a study with what the folder holds.

    New strategies, seeds and tasks extend a study. Nothing is written: its runs may be refused yet.

    Args:
        folder: The study's folder.
        prepared: The study as it is now.
        spread: Which processes make the cells; where there are several, all have the same code.

    Returns:
        What `study.json` is to hold, and what this process has otherwise than the one that began
        the study, see `beside`.

    Raises:
        StudyError: The folder holds runs made with other settings, or with other code.
        RecordError: `study.json` is damaged or missing.
    """
    about, others = _about(prepared), dict[str, str]()
    path = folder / STUDY
    known: Collection[str] = ()
    if not exists(path) and (lost := next(folder.glob(f"*/*/seed*/{RUN}"), None)):
        raise RecordError(
            f"{shown(path)} is missing, and {shown(lost)} tells of a run of an earlier call: "
            "restore it from a copy, or name another folder with --out"
        )
    if exists(path):
        before = load_study(folder)
        try:
            differing = list(_differences(before, about))
        except (KeyError, TypeError, AttributeError) as error:
            raise RecordError(
                f"{shown(path)} lacks what it should hold ({error!r}): restore it, or name "
                "another folder with --out"
            ) from error
        if differing:
            key, old, new = differing[0]
            raise StudyError(
                f"{folder} holds runs made with other settings: {key} was {old}, now it "
                f"is {new}. Name another folder with --out. New strategies, seeds, tasks and "
                "lengths of a sweep may "
                "be added."
            )
        # Who makes all cells by itself may have updated a library on the way.
        may = spread.alone or spread.mixed
        others = check_alike(before.versions, about.versions, str(spread), may)
        others |= _elsewhere(before, about)
        about, known = _extended(before, about), before.tasks
    measured = {
        task.name: replace(about.tasks[task.name], noise=measure_noise(prepared.arena(task)))
        for task in prepared.tasks
        if task.name not in known
    }
    about = replace(about, tasks=about.tasks | measured)
    return replace(about, signature=signature(about)), others


def beside(study: StudyRecord, others: Mapping[str, str]) -> StudyRecord:
    """The record of a study that a process takes part in which has something otherwise.

    Args:
        study: The study.
        others: What the process has otherwise, by name.
    """
    if not others or others in study.mixed:
        return study
    return replace(study, mixed=(*study.mixed, dict(others)))


def _about(prepared: Prepared) -> StudyRecord:
    """What `study.json` holds, noise and signature left open."""
    config, lm = prepared.config, prepared.lm
    labels, tasks = [e.given.label for e in prepared.entries], [t.name for t in prepared.tasks]
    return StudyRecord(
        name=config.name,
        version=own_version(),
        commit=commit(),
        settings=config.model_dump(mode="json"),
        model=ModelRecord(
            name=lm.name,
            hash=prepared.exact.hash,
            tokenizer_hash=lm.tokenizer_hash,
            parameters=lm.parameters,
            source=str(lm.device if lm.served else config.model),
            served=lm.served,
        ),
        dtype=str(prepared.dtype).removeprefix("torch."),
        device=str(lm.device),
        memory=prepared.memory,
        race=config.race and prepared.arena(prepared.tasks[0]).races,
        machine=machine(),
        versions=versions(),
        budget=config.budget,
        seeds=list(config.seeds),
        score_on=config.score_on,
        max_seconds=config.max_seconds,
        strategies=labels,
        once=[e.given.label for e in prepared.entries if e.runs_once(config.draw)],
        families={
            entry.given.label: entry.family
            for entry in prepared.entries
            if entry.family != entry.given.label
        },
        tasks={task.name: _about_task(task, prepared) for task in prepared.tasks},
        signature="",
        objective="" if config.objective is None else named(config.objective)[0],
        select_by="metric" if config.selects_by_metric else "loss",
        prices=PRICES,
        fare=prepared.fare if any(map(asks_proposer, prepared.entries)) else None,
        latest={"strategies": labels, "tasks": tasks, "seeds": list(config.seeds)},
    )


def _about_task(task: Task, prepared: Prepared) -> TaskRecord:
    arena = prepared.arena(task)
    tested = task.splits["test"].examples
    options = [e.options for split in task.splits.values() for e in split.examples if e.options]
    places = {group: i for i, group in enumerate(dict.fromkeys(e.group for e in tested))}
    writes = task.kind == "text"
    return TaskRecord(
        kind=task.kind,
        template=task.template.shown,
        metric=task.metric,
        splits={
            name: SplitRecord(len(split), hash_of_split(task, name, prepared.config))
            for name, split in arena.task.splits.items()
        },
        choices=None if task.choices is None else list(task.choices),
        majority=majority(task),
        pool=len(arena.space.pool),
        pool_hash=hashlib.sha256(arena.space.pool.tobytes()).hexdigest()[:20],
        pool_made=arena.pool.made,
        pool_price=arena.pool.price,
        score_on=arena.score_on,
        notes=tuple(task.notes),
        noise=None,
        floors=floors(task),
        decoding=task.decoding.signature if writes else "",
        measured=tuple(metric.signature for metric in arena.measures.values()),
        groups=tuple(places[e.group] for e in tested) if places.keys() != {""} else None,
        shown=tuple(_row(e) for e in tested[:SHOWN]) if writes else (),
        end=(task.template.end or task.template.end_token) if writes else None,
        options=max(map(len, options)) if task.options_by_row else None,
        normalise=task.normalise,
        family=task.family,
    )


def _row(example: Example) -> RowRecord:
    """A row as a reader sees it, texts cut to what one can look at."""
    return RowRecord(
        {name: text[:LONGEST] for name, text in example.fields.items()},
        tuple(text.strip()[:LONGEST] for text in example.references),
    )


def _extended(before: StudyRecord, now: StudyRecord) -> StudyRecord:
    """A study with the strategies, seeds, tasks and lengths that are new.

    Where it was made, and what was measured then, stays.
    """
    # Rows may run with the first seeds alone, so that those which were first stay first.
    seeds = list(dict.fromkeys([*before.seeds, *now.seeds]))
    grown: dict[str, Any] = {
        "strategies": _merged(before.settings["strategies"], now.settings["strategies"], _label),
        "tasks": _merged(before.settings["tasks"], now.settings["tasks"], _task_name),
        "seeds": seeds,
    }
    if isinstance(length := now.settings["length"], list):
        grown["length"] = sorted({*before.settings["length"], *length})
    known = {
        name: replace(now.tasks.get(name, task), noise=task.noise)
        for name, task in before.tasks.items()
    }
    return replace(
        now,
        strategies=list(dict.fromkeys([*before.strategies, *now.strategies])),
        once=list(dict.fromkeys([*before.once, *now.once])),
        families={**before.families, **now.families},
        seeds=seeds,
        tasks={**known, **{name: task for name, task in now.tasks.items() if name not in known}},
        settings=now.settings | grown,
        commit=before.commit,
        machine=before.machine,
        versions=before.versions,
        device=now.device if now.model.served else before.device,
        memory=before.memory,
        mixed=before.mixed,
        fare=now.fare or before.fare,
        latest=now.latest,
    )


def _elsewhere(before: StudyRecord, now: StudyRecord) -> dict[str, str]:
    """What is otherwise where the study goes on than where it was begun; nothing of a server."""
    return {} if now.model.served else differing(_place(before), _place(now))


def _place(study: StudyRecord) -> dict[str, str]:
    """What times and the last digits of scores depend on; of memory, that of keys and values."""
    place = {**study.machine, "memory_gib": None, "device": study.device}
    if study.memory:
        place["memory"] = f"{study.memory / 2**30:.3g} GiB for keys and values"
    return {name: str(value) for name, value in place.items() if value is not None}


def _differences(before: StudyRecord, now: StudyRecord) -> Iterator[tuple[str, Any, Any]]:
    """Settings that may not change within a folder: key, old, new."""
    for key in ("budget", "score_on", "dtype", "max_seconds", "select_by"):
        if (old := getattr(before, key)) != (new := getattr(now, key)):
            yield key, old, new
    if now.max_seconds:  # they last as long as the machine is fast
        for key, new in _elsewhere(before, now).items():
            if key in before.machine:
                yield f"{key}, on which max_seconds depends,", before.machine[key], new
    if (old := before.prices) != (new := now.prices):
        yield "the version of its prices in tokens", old, new
    for key in ("hash", "tokenizer_hash"):
        if (old := getattr(before.model, key)) != (new := getattr(now.model, key)):
            yield f"the model's {key}", old, new
    for key in ("length", "pool", "race"):
        old, new = before.settings[key], now.settings[key]
        if old != new and not (
            isinstance(old, list) and isinstance(new, list) and key == "length"
        ):  # a sweep may grow
            yield key, old, new
    if (old := before.settings["proposer"]) != (new := now.settings["proposer"]):
        yield "proposer", old, new
    # Older studies, which may cost anything, do not say it.
    if (old := before.settings.get("max_cost")) != (new := now.settings["max_cost"]):
        yield "max_cost", old, new
    # Older studies, whose seeds all have the same examples, do not say it.
    if (old := before.settings.get("draw", "once")) != (new := now.settings["draw"]):
        yield "draw", old, new
    # Their number may change, and whether asks are cut into chunks may not.
    old, new = before.settings.get("replicas"), now.settings.get("replicas")
    if (old is None) != (new is None):
        yield "replicas", old or "not given", new or "not given"
    # Older studies, which all follow the loss, do not say it.
    if (old := before.settings.get("objective")) != (new := now.settings["objective"]):
        yield "objective", old or "the loss", new or "the loss"
    for name, task in now.tasks.items():
        known = before.tasks.get(name, task)
        old, new = asdict(known), asdict(task)
        if task.kind != "choices" and known.end is None:
            yield f"task '{name}', the end of an answer", "not scored", repr(task.end)
        for key in ("template", "metric", "splits", "choices", "end", "normalise"):
            if old[key] != new[key]:
                yield f"task '{name}', {key}", old[key], new[key]
        for key in ("decoding", "measured"):  # older studies of choices do not say them
            if old[key] and old[key] != new[key]:
                yield f"task '{name}', {key}", old[key], new[key]
        if known.pool_hash != task.pool_hash:  # the words of a pool's file may change
            yield (
                f"task '{name}', the pool",
                f"of {known.pool} tokens",
                f"of {task.pool} others",
            )


def _merged(before: list[Any], now: list[Any], name: Callable[[Any], str]) -> list[Any]:
    """Entries of earlier calls and of this one, by name; this one's win."""
    return list({name(each): each for each in (*before, *now)}.values())


def _task_name(task: str | dict[str, Any]) -> str:
    """The name of a task of the study file, as the settings hold it."""
    return task if isinstance(task, str) else str(task["name"])


def _label(row: dict[str, dict[str, Any]]) -> str:
    """The label of a row of the study file, as the settings hold it."""
    return str(next(iter(row.values()))["label"])
