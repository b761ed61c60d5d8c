"""The runs of a study in an order in which each comes after the one that it starts from.

A row may start from the winner of another row (`start: {run: LABEL}`), on the same task or, with
`task: NAME`, on one task for all. This is prompt transfer: Vu et al. 2021, "SPoT: Better Frozen
Model Adaptation through Soft Prompt Transfer", arXiv:2110.07904, train a prompt on a source task
and begin with it on a target task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from promptsearch.errors import StudyError, UnknownName
from promptsearch.prompts.prompt import Prompt
from promptsearch.study.entries import Entry, sources_first
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.task import Task


def source_of(task: Task, entry: Entry) -> tuple[str, str] | None:
    """The task and the label of the run that an entry starts from on a task; None for none."""
    if entry.source is None or entry.given.start is None:
        return None
    return entry.given.start.task or task.name, entry.source


def in_order(tasks: Sequence[Task], entries: Sequence[Entry]) -> list[tuple[Task, Entry]]:
    """All tasks with all entries, task by task, but each after the one that it starts from.

    Args:
        tasks: The tasks of a study.
        entries: Its entries.
    """
    every = {
        (task.name, entry.given.label): (task, entry)
        for task in tasks
        for entry in sources_first(entries)
    }
    ordered: dict[tuple[str, str], tuple[Task, Entry]] = {}
    for place in every:
        chain = [place]
        while (source := source_of(*every[chain[-1]])) is not None and source not in ordered:
            chain.append(source)  # it ends, since no entries start from each other in a circle
        ordered |= {each: every[each] for each in reversed(chain) if each not in ordered}
    return list(ordered.values())


def check_starts(config: StudyConfig, tasks: Sequence[Task], entries: Sequence[Entry]) -> None:
    """Refuse entries that start from a task on which prompts are of another length.

    Args:
        config: The study.
        tasks: Its tasks.
        entries: Its entries.

    Raises:
        UnknownName: The study has no task of this name.
        StudyError: The winner there would not fit the templates of other tasks.
    """
    by_name = {task.name: task for task in tasks}
    for entry in entries:
        given = entry.given.start
        if given is None or given.task is None:
            continue
        if given.task not in by_name:
            raise UnknownName(
                f"task under 'start' of '{entry.given.label}':",
                given.task,
                list(by_name),
            )
        source = next(other for other in entries if other.given.label == entry.source)
        found: Iterable[type[Prompt]] = source.strategy.proposes
        if not any(kind.sized for kind in found):
            continue
        length = entry.given.length or config.lengths[0]
        there = by_name[given.task].template.bind(length).length
        for task in tasks:
            if (here := task.template.bind(length).length) != there:
                raise StudyError(
                    f"'{entry.given.label}' starts from a prompt of {there} tokens, found on task "
                    f"'{given.task}', but the template of task '{task.name}' takes {here}: leave "
                    "the numbers out of the slots of both, or take other tasks"
                )
