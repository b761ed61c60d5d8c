"""The tasks of a study, as its file names them."""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.errors import StudyError
from promptsearch.study.entries import Entry
from promptsearch.study.settings.study import RUNS, StudyConfig
from promptsearch.tasks.task import Task


def load_tasks(config: StudyConfig, entries: Sequence[Entry]) -> list[Task]:
    """All tasks in order; with the key `each`, those of every value of a field.

    Args:
        config: The study.
        entries: Its entries, for the number of its runs.

    Raises:
        PromptSearchError: Data cannot be read, two tasks have one name, or there are too many runs.
    """
    tasks = []
    for given in config.tasks:
        source = given if isinstance(given, str) else given.model_dump(exclude_none=True)
        tasks += Task.load_each(source, config.folder, metric=config.metric)
    names = [task.name for task in tasks]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise StudyError(f"two of the tasks are called '{twice}'; tell them apart with name: NAME")
    runs = len(tasks) * len(entries) * len(config.seeds) * len(config.models)
    if runs > RUNS:
        raise StudyError(
            f"this is a study of {runs:,} runs ({len(tasks):,} tasks x strategies x lengths x "
            f"seeds); expected at most {RUNS:,}. Keep fewer values with 'where'"
        )
    return tasks
