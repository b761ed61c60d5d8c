"""One call from a study file to its results: the runs are made or continued, and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from promptsearch.errors import StudyError
from promptsearch.models.protocol import TextModel
from promptsearch.records.load import load_results
from promptsearch.records.models import ModelsResults, is_of_models, load_models
from promptsearch.records.results import Results
from promptsearch.report.across_pages import write_models_report
from promptsearch.report.write import write_report
from promptsearch.study.config import load_config, parse_config
from promptsearch.study.events import Progress
from promptsearch.study.execution.lease import owned
from promptsearch.study.execution.spread import Spread
from promptsearch.study.members import Member, checked_members, run_members
from promptsearch.study.settings.execution import RayConfig
from promptsearch.study.settings.study import StudyConfig
from promptsearch.study.study import Study
from promptsearch.study.transfer import carry_over
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
    ray: str | None = None,
) -> Results | ModelsResults:
    """Run a study, or go on with it, and write its report.

    Args:
        config: A study file, or its keys and values; `model` and `task` may be left out of these
            where they are given as objects.
        out: The study's folder; left out: `results/NAME`.
        model: An LM that is loaded already; a study of several models loads its own.
        task: A task that is made already.
        progress: A function that is called at each step.
        workers: How many processes make the runs; 0: this one makes them. No number depends on it.
        shard: The place of this call among several that share the folder, from 1, and their number.
            It makes its share of the runs; a call without a shard makes what is left, and reports.
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
    cluster = config.execution.ray
    if ray is not None:
        known = {} if cluster is None else cluster.model_dump()
        cluster = RayConfig.model_validate({**known, "address": ray})
    progress, spread = progress or (lambda _: None), Spread(workers, shard, cluster)
    if not isinstance(config.model, tuple):
        Study(config, folder, progress, write_report).run(model, task, spread)
        return load_results(folder)
    if model is not None:
        raise StudyError(
            "a study of several models loads them one after the other: name them under 'model', or "
            "give one model as an object"
        )

    def run(member: Member, at: Path, listener: Callable[[Progress], None]) -> None:
        Study(member.config, at, listener, write_report).run(None, task, spread)

    found = checked_members(config, task)
    if shard is not None:
        run_members(config, found, folder, run, progress)
        return load_models(folder)
    with owned(folder, "models"):
        try:
            run_members(config, found, folder, run, progress)
            if config.transfer:
                carry_over(config, folder, task, progress)
        finally:  # whoever stops a study sees what there is
            if is_of_models(folder):
                write_models_report(folder)
    return load_models(folder)
