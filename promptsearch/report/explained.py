"""The part "What makes winners win", the same in all forms of the report.

It shows what the loss of a hard winner becomes without each of its pieces, shuffled, and with words
near its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.records.explained import ChangeRecord, ExplanationRecord, Way
from promptsearch.records.results import Results
from promptsearch.report.notation import number, signed, visible

#: How many standard errors from 0 a difference lies that is marked, and the mark.
_CLEAR, MARK = 2.0, "*"
#: Column -> what it shows, in one line; the first two name the run.
COLUMNS = {
    "select loss": "mean nats of the winner itself on the select split, in float32",
    "most needed": "the piece without which the loss rises most, and by how much",
    "least needed": "the piece without which it rises least, or falls",
    "shuffled": "the rise in other orders of the same pieces: mean, least to most",
    "near words": "the same where one word gives way to one of the pool whose embedding is near",
}
#: What stands above the table.
TOLD = (
    "Changes of the loss in nats where the winner of a search loses a piece, or all are shuffled, "
    "or a word gives way to a near one; + is worse, "
    f"{MARK} lies more than {_CLEAR:.0f} standard errors from 0. The winner was selected on these "
    "examples, its changed forms were not, which flatters it a little"
)


def explained(results: Results, task: str) -> list[ExplanationRecord]:
    """The winners of a task that were explained and still are the winners of finished runs."""
    if results.explained is None:
        return []
    runs = {(run.task, run.label, run.seed, run.winner.key) for run in results.runs}
    order = {label: place for place, label in enumerate(results.study.strategies)}
    found = [each for each in results.explained.winners if each.task == task and each.name in runs]
    return sorted(found, key=lambda each: (order.get(each.label, len(order)), each.seed))


def cells(winner: ExplanationRecord) -> list[str]:
    """The cells of a winner: its label and seed, then those of `COLUMNS`."""
    needed = sorted(_of(winner, "without"), key=lambda change: change.loss or 0.0, reverse=True)
    ends = [f"{_piece(winner, change)} {_rise(change)}" for change in needed]
    return [
        winner.label,
        str(winner.seed),
        number(winner.loss),
        ends[0] if ends else "",
        ends[-1] if ends else "",
        _range(_of(winner, "shuffled")),
        _range(_of(winner, "near")),
    ]


def line(winner: ExplanationRecord) -> list[tuple[str, str]]:
    """The pieces of a winner in their order, each with the rise where it is left out."""
    without = {change.place: change for change in _of(winner, "without")}
    return [
        (visible(piece, 80), _rise(without[place]) if place in without else "–")
        for place, piece in enumerate(winner.pieces)
    ]


def tokens(winners: Sequence[ExplanationRecord]) -> int:
    """What all of it took in LM tokens, which no run was charged."""
    return sum(winner.tokens for winner in winners)


def _of(winner: ExplanationRecord, way: Way) -> list[ChangeRecord]:
    return [change for change in winner.changes if change.way == way and change.loss is not None]


def _piece(winner: ExplanationRecord, change: ChangeRecord) -> str:
    return visible(winner.pieces[change.place or 0], 40)


def _rise(change: ChangeRecord) -> str:
    loss, error = change.loss or 0.0, change.error
    return signed(loss) + (MARK if error is not None and abs(loss) > _CLEAR * error else "")


def _range(changes: Sequence[ChangeRecord]) -> str:
    losses = [change.loss or 0.0 for change in changes]
    if not losses:
        return "–"
    mean = sum(losses) / len(losses)
    return f"{signed(mean)} ({signed(min(losses))} to {signed(max(losses))})"
