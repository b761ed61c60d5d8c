"""Draws: whether all seeds of a study have the same search and select examples, or each its own.

With `draw: seed` the seeds of a row differ by the luck of the draw, too, as seeds of few-shot
studies do. The test split is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptsearch.errors import StudyError, TaskError
from promptsearch.study.settings.pool import PoolSource
from promptsearch.study.settings.study import StudyConfig
from promptsearch.tasks.task import SPLITS, Split, Task

#: What the report says of a task whose examples each seed draws.
DRAWN = (
    "each seed draws its own search and select examples, from all that the test split leaves: "
    "what differs between seeds holds the luck of the draw"
)


def draws_of(config: StudyConfig) -> Sequence[int | None]:
    """The seeds that draw examples; None alone where all seeds have the same ones."""
    return config.seeds if config.draw == "seed" else (None,)


def drawn_by(task: Task, draw: int | None) -> Task:
    """A task with the examples that a seed draws.

    Args:
        task: The task.
        draw: The seed; None where all seeds have the same examples.

    Raises:
        StudyError: The seed cannot draw examples, or draws fewer than the task has, since groups
            stay whole.
    """
    if draw is None:
        return task
    try:
        drawn = task.drawn(draw)
    except TaskError as error:
        raise StudyError(
            f"seed {draw} cannot draw its examples: {error}; or leave out 'draw', so that all "
            "seeds have the same ones"
        ) from error
    for name in SPLITS:
        found, wanted = len(drawn.splits[name]), len(task.splits[name])
        if found != wanted:
            raise StudyError(
                f"task '{task.name}': seed {draw} draws {found} {name} examples, and not {wanted}, "
                "since groups stay whole: leave out 'draw', or choose other sizes of splits"
            )
    return drawn


def drawable(task: Task, config: StudyConfig) -> Task:
    """A task with all search and select examples that a seed of the study may draw."""
    if config.draw == "once":
        return task
    if task.drawing is None:
        raise TaskError(f"task '{task.name}' was not made from rows: nothing can be drawn")
    whole = {
        name: Split(name, tuple(each.example for each in task.drawing.drawable(name)))
        for name in ("search", "select")
    }
    return replace(task, splits={**task.splits, **whole})


def hash_of_split(task: Task, name: str, config: StudyConfig) -> str:
    """What tells a split from others: its hash, or the hash of what seeds draw it from."""
    if config.draw == "once" or name == "test" or task.drawing is None:
        return task.splits[name].hash
    return task.drawing.hash(name)


def check_draw(config: StudyConfig) -> None:
    """See that nothing but the examples follows from what a seed draws.

    Raises:
        StudyError: The pool's words do.
    """
    pool = config.pool
    if config.draw == "once" or not isinstance(pool, PoolSource):
        return
    if pool.task is not None or pool.influence is not None:
        raise StudyError(
            "with 'draw: seed' every seed has other examples, but one pool of words: 'pool' cannot "
            "follow from them by 'task' or 'influence'; give words, a number or a file"
        )
