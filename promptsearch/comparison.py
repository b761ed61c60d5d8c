"""One call from a study file to its results: the runs are made or continued, and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.errors import StudyError
from promptsearch.files import exists, shown
from promptsearch.records.load import STUDY, load_results
from promptsearch.records.models import ModelsResults, is_of_models, load_models
from promptsearch.records.results import Results
from promptsearch.study.config import load_config, parse_config
from promptsearch.study.events import Listener, Progress, told_to
from promptsearch.study.execution.spread import Spread
from promptsearch.study.finished import is_finished, made_of, note_finished
from promptsearch.study.settings.execution import at_address
from promptsearch.study.settings.study import StudyConfig
from promptsearch.trackers.tracking import Tracking

if TYPE_CHECKING:  # a study that is finished is shown without torch
    from promptsearch.models.protocol import TextModel
    from promptsearch.study.members import Member
    from promptsearch.tasks.task import Task


def compare(
    config: StudyConfig | Mapping[str, Any] | Path | str,
    *,
    out: Path | str | None = None,
    model: TextModel | None = None,
    task: Task | None = None,
    progress: Callable[[Progress], None] | None = None,
    workers: int = 0,
    shard: tuple[int, int] | None = None,
    mixed: bool = False,
    ray: str | None = None,
) -> Results | ModelsResults:
    """Run a study, or go on with it, and write its report.

    Args:
        config: A study file, or its keys and values; `model` and `task` may be left out of these
            where they are given as objects.
        out: The study's folder; left out: `results/NAME`.
        model: An LM that is loaded already; a study of several models loads its own.
        task: A task that is made already.
        progress: A listener to the events of the study.
        workers: How many processes make the runs; 0: this one makes them. No number depends on it.
        shard: The place of this call among several that share the folder, from 1, and their number.
            It makes its share of the runs; a call without a shard makes what is left, and reports.
        mixed: Whether workers and shards with other code or libraries than the study was begun with
            may take part; which they were is recorded.
        ray: The address of a Ray cluster whose machines make the runs: `auto`, `local` or
            `HOST:PORT`; left out: as the study says under `execution`.

    Returns:
        The results of the study, or of each of its models; `report.html` lies in the folder.

    Raises:
        PromptSearchError: Something is wrong with the input. It is raised before any LM token is
            spent; runs that fail later are named in the results instead.
    """
    if isinstance(config, (str, Path)):
        config = load_config(Path(config))
    elif not isinstance(config, StudyConfig):
        given = dict(config)
        if model is not None:
            given.setdefault("model", model.name)
        if task is not None:
            given.setdefault("task", task.name)
        config = parse_config(given)
    folder = Path(out) if out else Path("results") / config.name
    _check_folder(folder, several=isinstance(config.model, tuple))
    cluster = config.execution.ray
    if ray is not None:
        cluster = at_address(cluster, ray)
    progress, spread = progress or (lambda _: None), Spread(workers, shard, mixed, cluster)
    if not isinstance(config.model, tuple):
        with Tracking(config.track, config.name, folder) as tracking:
            return _run(config, folder, told_to(progress, tracking), spread, model, task)
    if model is not None:
        raise StudyError(
            "a study of several models loads them one after the other: name them under 'model', or "
            "give one model as an object"
        )
    return _run_each(config, folder, progress, spread, task)


def _check_folder(folder: Path, *, several: bool) -> None:
    """Refuse a folder with results of the other form of study, which would hide the new ones."""
    if exists(folder / STUDY) if several else is_of_models(folder):
        held, given = ("one model", "several") if several else ("several models", "one")
        raise StudyError(
            f"{shown(folder)} holds a study of {held}, and {given} would be run here: name another "
            "folder with --out"
        )


def _run(
    config: StudyConfig,
    folder: Path,
    listener: Listener,
    spread: Spread,
    model: TextModel | None,
    task: Task | None,
) -> Results:
    """Run a study of one model, unless an earlier call has finished it."""
    told = model is None and task is None and spread.shard is None
    if told and is_finished(folder, config):
        listener(Progress("", 0, 0, "note", message="all runs were made in an earlier call"))
        return load_results(folder)
    from promptsearch.report.write import write_report
    from promptsearch.study.study import Study

    listener = told_to(listener, *_live(config, folder, spread))
    made = made_of(config) if told else None
    Study(config, folder, listener, write_report).run(model, task, spread)
    results = load_results(folder)
    if told:
        note_finished(results, config, made)
    return results


def _run_each(
    config: StudyConfig, folder: Path, progress: Listener, spread: Spread, task: Task | None
) -> ModelsResults:
    """Run a study of several models, and report it."""
    from promptsearch.report.across_pages import write_models_report
    from promptsearch.study.execution.lease import owned
    from promptsearch.study.members import checked_members, run_members
    from promptsearch.study.transfer import carry_over

    def run(member: Member, at: Path, listener: Listener) -> None:
        _run(member.config, at, listener, spread, None, task)

    found = checked_members(config, task)
    with Tracking(config.track, config.name, folder) as tracking:
        told = told_to(progress, tracking)
        if spread.shard is not None:
            run_members(config, found, folder, run, told)
            return load_models(folder)
        with owned(folder, "models"):
            try:
                run_members(config, found, folder, run, told)
                if config.transfer:
                    carry_over(config, folder, task, told)
            finally:  # whoever stops a study sees what there is
                if is_of_models(folder):
                    write_models_report(folder)
    return load_models(folder)


def _live(config: StudyConfig, folder: Path, spread: Spread) -> list[Listener]:
    """What writes the report while the study runs; a shard leaves that to a call without one."""
    from promptsearch.report.live import LiveReport

    return [] if spread.shard is not None else [LiveReport(folder, config.name)]
