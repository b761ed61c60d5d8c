"""A study of several models: a study of each, one after the other, in folders named by the models.

Nothing is ranked across models, whose tokens and losses are not the same: each has a whole study,
with its own settings, signature and report. A model is let go before the next one is loaded.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from promptsearch.errors import FileError, PromptSearchError, StudyError
from promptsearch.plain.names import as_name
from promptsearch.printable import printable
from promptsearch.records.models import (
    MODELS,
    MemberRecord,
    ModelsRecord,
    is_of_models,
    load_members,
)
from promptsearch.records.sealed import write_record
from promptsearch.study.draws import check_draw
from promptsearch.study.entries import entries_of
from promptsearch.study.events import Progress
from promptsearch.study.execution.lease import owned
from promptsearch.study.settings.model import EndpointConfig
from promptsearch.study.settings.study import StudyConfig
from promptsearch.study.tasks import load_tasks
from promptsearch.tasks.task import Task

log = logging.getLogger(__name__)

#: The seconds for which to wait for another shard's note: longer than a dead one seems to live.
_PATIENCE = 300.0


@dataclass(frozen=True)
class Member:
    """One of a study's models, with its study.

    Args:
        name: The name of its study's folder.
        config: Its study.
    """

    name: str
    config: StudyConfig


def members(config: StudyConfig) -> list[Member]:
    """The models of a study in their order, each with its study.

    Args:
        config: A study of one or several models.

    Raises:
        StudyError: Two of the models would have one folder.
    """
    short = [_name(model, whole=False) for model in config.models]
    names = [
        _name(model, whole=True) if short.count(name) > 1 else name
        for model, name in zip(config.models, short, strict=True)
    ]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise StudyError(
            f"{config.at('model')}: two of the models are called '{twice}': name each once"
        )
    return [
        Member(name, config.on(model)) for model, name in zip(config.models, names, strict=True)
    ]


def _name(model: str | EndpointConfig, *, whole: bool) -> str:
    """The folder of a model's study: its name, without its owner or folder unless it is `whole`."""
    named = str(model) if whole or isinstance(model, str) else model.model
    if not whole:
        named = named.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return as_name(named, "model")


def checked_members(config: StudyConfig, task: Task | None) -> list[Member]:
    """The models of a study, all else than the models being checked, and nothing written.

    Args:
        config: A study of several models.
        task: A task that is made already.

    Raises:
        PromptSearchError: What is wrong with the study whatever the model.
    """
    found, entries = members(config), entries_of(config)
    if task is None:
        load_tasks(config, entries)
    check_draw(config)
    return found


def run_members(
    config: StudyConfig,
    found: Sequence[Member],
    folder: Path,
    run: Callable[[Member, Path, Callable[[Progress], None]], None],
    progress: Callable[[Progress], None],
) -> None:
    """Run the study of each model; one that cannot be run is named, and the others go on.

    Args:
        config: A study of several models.
        found: Its models, from `checked_members`.
        folder: The study's folder.
        run: Runs the study of a model in a folder.
        progress: Called at each step.

    Raises:
        PromptSearchError: None of the models can be run, or the disk is full.
    """
    _note(folder, config, found, {})
    places, errors = {member.name: i for i, member in enumerate(found)}, list[PromptSearchError]()

    def work(member: Member) -> None:
        listener = _listener(progress, member.name, places[member.name], len(found))
        run(member, folder / member.name, listener)
        _note(folder, config, found, {member.name: ""})

    def failed(member: Member, error: PromptSearchError) -> None:
        errors.append(error)
        _note(folder, config, found, {member.name: printable(str(error))})
        log.warning("model '%s': %s", member.name, error)
        progress(Progress("", 0, 0, "note", message=f"no runs on {member.name}: {error}"))

    if not on_each(found, work, failed):
        raise errors[0]


def on_each(
    found: Sequence[Member],
    work: Callable[[Member], None],
    failed: Callable[[Member, PromptSearchError], None],
) -> int:
    """Do something for each model of a study; one for which it fails does not stop the others.

    Args:
        found: The models.
        work: What is done.
        failed: Called with a model and what went wrong there.

    Returns:
        The number of models for which it was done.

    Raises:
        FileError: The disk is full.
    """
    done = 0
    for member in found:
        try:
            work(member)
        except PromptSearchError as error:
            if isinstance(error, FileError) and error.everywhere:
                raise
            failed(member, error)
        else:
            done += 1
        let_go()
    return done


def _listener(
    progress: Callable[[Progress], None], name: str, place: int, models: int
) -> Callable[[Progress], None]:
    """What the study of one model tells, as steps of the whole study: all have as many runs."""

    def told(step: Progress) -> None:
        if step.run:
            number, total = place * step.total + step.number, models * step.total
            step = replace(step, run=f"{name}/{step.run}", number=number, total=total)
        progress(step)

    return told


def let_go() -> None:
    """Free a model that nobody needs any more, before another one is loaded.

    It refers to itself by way of its parts, which only the collector sees; and twice, since what is
    finalised in the first pass holds it until the second.
    """
    gc.collect()
    gc.collect()


def _note(
    folder: Path, config: StudyConfig, found: Sequence[Member], errors: Mapping[str, str]
) -> None:
    """Write the study with its models, and why some cannot be run.

    What an earlier call or another shard wrote of other models stays.

    Args:
        folder: The study's folder.
        config: A study of several models.
        found: Its models.
        errors: Model -> why it cannot be run; empty where it was.
    """
    with owned(folder, "members", _PATIENCE):
        before = load_members(folder).models if is_of_models(folder) else ()
        told = {each.name: each for each in before}
        for member, model in zip(found, config.models, strict=True):
            if member.name not in told or told[member.name].source != str(model):
                told[member.name] = MemberRecord(member.name, str(model))
        told |= {name: replace(told[name], error=error) for name, error in errors.items()}
        record = ModelsRecord(config.name, config.model_dump(mode="json"), tuple(told.values()))
        write_record(folder / MODELS, "models", asdict(record))
