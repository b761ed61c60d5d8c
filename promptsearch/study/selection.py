"""What follows a search: the best prompts are scored again, one is selected, and tested once.

The strategy has no say here. Everything is in float32. Text answers are generated on the test split
for all metrics, and before that only where the search or the selection follows a metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.prompts.prompt import Prompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.measured import ExamplesRecord
from promptsearch.records.run import SearchRecord
from promptsearch.records.scores import Floats, rows_of
from promptsearch.search.books import Books
from promptsearch.search.ranking import SELECTED
from promptsearch.study.anytime import select_curve
from promptsearch.study.arena import Arena
from promptsearch.study.ending import halves
from promptsearch.study.log_summary import mean_losses
from promptsearch.study.measuring import Answers, choices_of, examples_record, texts_of
from promptsearch.tasks.metrics.metric import Metric


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
        curve: Tokens spent, and the loss in nats on the select split of the best prompt by then.
    """

    winner: Prompt
    search: SearchRecord
    select: ExamplesRecord
    test: ExamplesRecord
    empty: float | None
    curve: tuple[tuple[int, float], ...]


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
    end, finalists = _End(arena, books), list(books.ranking)
    prompts = [each.prompt for each in finalists]
    listener("select", books)
    again = end.scored("rescore", prompts)
    selected, at = end.selected(prompts, again)
    winner = selected.prompts[at]
    anytime = select_curve(arena, books)
    empty = _empty(arena, books) if with_empty else None
    listener("test", books)
    tested = end.scored("test", [winner])
    place = prompts.index(winner)
    return Selection(
        winner=winner,
        search=SearchRecord(finalists[place].value, again.losses[place]),
        test=tested.record(0, name),
        select=selected.record(at, name),
        empty=empty,
        curve=anytime,
    )


class Scored:
    """Prompts with their losses on a split, and their answers where these are known.

    Args:
        arena: The run's arena.
        split: The split's name.
        prompts: The prompts.
        line: The line of the log with the losses.
        texts: The line with the answers that were generated; None where none were.
    """

    def __init__(
        self,
        arena: Arena,
        split: str,
        prompts: Sequence[Prompt],
        line: dict[str, Any],
        texts: dict[str, Any] | None,
    ) -> None:
        self.prompts = prompts
        self._arena, self._split, self._line, self._texts = arena, split, line, texts
        self._examples = arena.examples(split)
        #: The mean loss of each prompt in nats; +inf where it was not scored on all examples.
        self.losses = mean_losses(line)

    def table(self) -> Floats:
        """The losses in nats, shape `(prompts, examples)`; NaN where one was not scored."""
        return np.stack([row.losses for row in rows_of(self._line, len(self._examples))])

    def answers(self, i: int) -> Answers:
        """The answers of a prompt."""
        if self._arena.task.kind == "choices":
            return choices_of(self._arena.task, self._examples, self._line, i)
        return Answers() if self._texts is None else texts_of(self._examples, self._texts, i)

    def values(self, metric: Metric | None) -> list[tuple[float, float]]:
        """What to rank prompts by, lower is better: minus the metric, where there is one.

        The loss in nats breaks ties. A prompt without losses comes last, whatever its answers.
        """
        losses = self.losses
        if metric is None:
            return [(loss, loss) for loss in losses]
        known = [i for i, loss in enumerate(losses) if math.isfinite(loss)]
        values = {i: self.answers(i).loss_by(metric) for i in known}
        return [(values.get(i, math.inf), loss) for i, loss in enumerate(losses)]

    def record(self, i: int, name: str) -> ExamplesRecord:
        """The scores of a prompt, and those of each example.

        Args:
            i: The prompt's place.
            name: The run's name in warnings.
        """
        return examples_record(self._arena, self._line, i, self.answers(i), self._split, name)


class _End:
    """The stages after a search.

    Args:
        arena: The run's arena.
        books: The run's books.
    """

    def __init__(self, arena: Arena, books: Books) -> None:
        self._arena, self._calls = arena, books.calls

    def scored(self, stage: str, prompts: list[Prompt]) -> Scored:
        """Score prompts in a stage, and generate their answers where the stage wants them.

        Args:
            stage: `rescore`, `select` or `test`; only the last one is not charged.
            prompts: The best prompts so far, best first.
        """
        arena, charged = self._arena, stage != "test"
        split = "search" if stage == "rescore" else stage
        scorer, ids = arena.exact[split], arena.ids(split)
        line = self._calls.stage(stage, split, scorer, prompts, ids, charged=charged)
        texts = None
        if arena.writes(split):
            texts = self._calls.answers(
                f"{stage}_answers",
                split,
                scorer,
                prompts,
                ids,
                arena.task.decoding,
                charged=charged,
            )
        return Scored(arena, split, prompts, line, texts)

    def selected(self, prompts: list[Prompt], again: Scored) -> tuple[Scored, int]:
        """Select among the best prompts, and return their scores and the place of the winner.

        Where a metric decides, the few that are best in the search see the select split. Else all
        of them meet it in rounds, and of those that saw all of it the one with the lowest mean loss
        over both splits wins.

        Args:
            prompts: The best prompts so far, best first.
            again: Their scores on the search split.
        """
        arena = self._arena
        if not halves(arena):
            best = _best(prompts, again.values(arena.follows), SELECTED)
            selected = self.scored("select", best)
            winner = _best(best, selected.values(arena.selects_by), 1)[0]
            return selected, best.index(winner)
        known, ids = again.table(), arena.ids("select")
        whole = [i for i, row in enumerate(known) if np.isfinite(row).all()]
        best, known = [prompts[i] for i in whole], known[whole]
        line = self._calls.halving(arena.exact["select"], best, ids, known)
        selected = Scored(arena, "select", best, line, None)
        means = np.hstack([known, selected.table()]).mean(1)
        return selected, int(np.nanargmin(means))


def _best(
    prompts: Sequence[Prompt], values: Sequence[tuple[float, float]], count: int
) -> list[Prompt]:
    """The prompts of lowest value, best first; the earlier one wins a tie."""
    order = sorted(range(len(prompts)), key=lambda i: (values[i], i))
    return [prompts[i] for i in order[:count] if math.isfinite(values[i][1])]


def _empty(arena: Arena, books: Books) -> float | None:
    """The empty prompt's loss on the select split; None if nothing stands before the answer.

    It tells whether training was worth anything, and changes nothing that is chosen: so it is
    shown, not charged.
    """
    ids, scorer = arena.ids("select"), arena.bare
    line = books.calls.stage("empty", "select", scorer, [TextPrompt("")], ids, charged=False)
    return None if line["failures"] else mean_losses(line)[0]
