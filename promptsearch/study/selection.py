"""What follows a search: the best prompts are scored again, one is selected, and tested once.

The strategy has no say here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.errors import TaskError
from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.run import ExamplesRecord, SearchRecord
from promptsearch.search.books import Books
from promptsearch.search.ranking import SELECTED
from promptsearch.study.arena import Arena
from promptsearch.study.log_summary import mean_losses
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import choice_rows, measured
from promptsearch.tasks.metrics.metric import Answered

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """The winner of a run, and what was measured of it.

    Args:
        winner: The prompt.
        search: Its losses on the search examples of an evaluation.
        select: What it does on the select split.
        test: What it does on the test split.
        empty: The empty prompt's loss in nats on the select split; None where that was not asked
            for, or nothing stands before the answer.
    """

    winner: Prompt
    search: SearchRecord
    select: ExamplesRecord
    test: ExamplesRecord
    empty: float | None


def select_winner(
    arena: Arena,
    books: Books,
    listener: Callable[[str, Books], None],
    *,
    name: str,
    with_empty: bool,
) -> Selection:
    """Select among a search's best prompts, in float32, and look at the test split once.

    Args:
        arena: The run's arena.
        books: The run's books, which have a finalist.
        listener: Called with the stage and the books at each new stage.
        name: The run's name in warnings.
        with_empty: Whether the empty prompt is scored, too.
    """
    stage, finalists = books.calls.stage, list(books.ranking)
    prompts = [each.prompt for each in finalists]
    scored, select, test = arena.scored, arena.everything("select"), arena.everything("test")
    listener("select", books)
    exact = arena.exact
    again = mean_losses(stage("rescore", "search", exact["search"], prompts, scored, charged=True))
    best = _best(prompts, again, SELECTED)
    selected = stage("select", "select", exact["select"], best, select, charged=True)
    winner = _best(best, mean_losses(selected), 1)[0]
    empty = _empty(arena, books) if with_empty else None
    listener("test", books)
    tested = stage("test", "test", exact["test"], [winner], test, charged=False)
    place = prompts.index(winner)
    return Selection(
        winner=winner,
        search=SearchRecord(finalists[place].value, again[place]),
        test=_measures(arena, tested, 0, "test", name),
        select=_measures(arena, selected, best.index(winner), "select", name),
        empty=empty,
    )


def _best(prompts: Sequence[Prompt], losses: Sequence[float], count: int) -> list[Prompt]:
    """The prompts of lowest loss, best first; the earlier one wins a tie."""
    order = sorted(range(len(prompts)), key=lambda i: (losses[i], i))
    return [prompts[i] for i in order[:count] if losses[i] < float("inf")]


def _empty(arena: Arena, books: Books) -> float | None:
    """The empty prompt's loss on the select split; None if nothing stands before the answer.

    It tells whether training was worth anything, and changes nothing that is chosen: so it is
    shown, not charged.
    """
    ids, scorer = arena.everything("select"), arena.bare
    line = books.calls.stage("empty", "select", scorer, [TextPrompt("")], ids, charged=False)
    return None if line["failures"] else mean_losses(line)[0]


def _measures(
    arena: Arena, line: dict[str, Any], place: int, split: str, name: str
) -> ExamplesRecord:
    """Loss and metric of one prompt on a split, and per example."""
    task = arena.task
    losses, correct = line["losses"][place], line["metric"][place]
    predictions = labels = own = None
    metric: float | None = float(np.mean(correct))
    failed = ""
    if line["choices"] is not None:
        predictions = tuple(np.argmax(line["choices"][place], axis=1).tolist())
        labels = tuple(e.choice for e in task.splits[split].examples if e.choice is not None)
        if task.metric != "accuracy":
            rows = choice_rows(labels, predictions, np.exp(line["choices"][place]).tolist())
            metric, own, failed = _own_metric(task.metric, rows, split, name)
    return ExamplesRecord(
        loss=float(np.mean(losses)),
        metric=metric,
        losses=tuple(losses),
        correct=tuple(int(c) for c in correct),
        predictions=predictions,
        labels=labels,
        shares=own,
        metric_failed=failed,
    )


def _own_metric(
    metric: str, rows: Sequence[Answered], split: str, name: str
) -> tuple[float | None, tuple[float, ...] | None, str]:
    """A metric that is no mean, and what reports need where its function is the study's own.

    A function that fails does not make the run fail.

    Returns:
        The metric, what each example adds to it, and why one of these is missing.
    """
    value: float | None = None
    try:
        found = measured(find_metric(metric), rows)
        value = found.score
        if ":" in metric and split == "test":
            # Whoever reads the results need not have, or trust, the function.
            return value, found.shares, ""
    except TaskError as error:
        _log.warning("%s, %s split: %s", name, split, error)
        return value, None, str(error)
    return value, None, ""
