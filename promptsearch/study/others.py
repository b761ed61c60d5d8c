"""The other tasks of a study on which a strategy trains while it searches on one of them."""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.errors import StudyError, UnknownName
from promptsearch.study.entries import Entry
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.task import Task


def others_of(task: Task, tasks: Sequence[Task], entry: Entry) -> list[Task]:
    """The tasks on which an entry trains besides its own, in the order in which it names them.

    Args:
        task: Its own.
        tasks: All tasks of the study.
        entry: The entry.
    """
    by_name = {each.name: each for each in tasks}
    return [by_name[name] for name in _names(entry) if name != task.name]


def check_others(config: StudyConfig, tasks: Sequence[Task], entries: Sequence[Entry]) -> None:
    """Refuse entries that train on a task which the study lacks, or where prompts do not fit.

    Args:
        config: The study.
        tasks: Its tasks.
        entries: Its entries.

    Raises:
        UnknownName: The study has no task of this name.
        StudyError: Prompts have another length there.
    """
    by_name = {task.name: task for task in tasks}
    for entry in entries:
        label, length = entry.given.label, entry.given.length or config.lengths[0]
        names = _names(entry)
        for name in names:
            if name not in by_name:
                what = f"task of the study, on which '{label}' could train"
                raise UnknownName(what, name, list(by_name))
        lengths = {task.name: task.template.bind(length).length for task in tasks} if names else {}
        for one, other in zip(lengths, [*lengths][1:], strict=False):
            if lengths[one] != lengths[other]:
                raise StudyError(
                    f"'{label}' trains one prompt on several tasks, but the template of task "
                    f"'{one}' takes {lengths[one]} tokens and that of task '{other}' "
                    f"{lengths[other]}: leave the numbers out of the slots of both"
                )


def _names(entry: Entry) -> list[str]:
    """The names of tasks on which an entry trains, each once."""
    return list(dict.fromkeys(map(str, entry.told("trains_on"))))
