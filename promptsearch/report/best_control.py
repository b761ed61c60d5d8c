"""What searches reach beside the best control: whether it pays to search at all.

Controls are what a search must beat to be worth its price, such as prompts written by hand. The
best one is chosen on the select split, and so is the best search of each kind: the test split
judges rows that were named before it was read, in one test for each kind, corrected together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptsearch.report.notation import could_show, number, p_value, probability, signed
from promptsearch.statistics import Comparison, Sample, compare_with

#: What may be searched for, in the order in which it is told.
SOUGHT = ("words", "vectors", "weights")

#: The columns of the table of all rows against the control.
COLUMNS = ("strategy", "ahead by", "p", "p corrected", "would have shown")


@dataclass(frozen=True)
class Candidate:
    """A ranked row, as it is compared here.

    Args:
        label: Its name.
        sought: What it looked for, of `SOUGHT`.
        control: Whether it is a control.
        searches: Whether it looked for its prompt.
        selected: What rows are chosen by on the select split, lower is better.
        place: Its place in the study file: of rows that are level there, the first one is chosen.
        scores: Its test scores, turned so that a higher one is better.
    """

    label: str
    sought: str
    control: bool
    searches: bool
    selected: float
    place: int
    scores: Sample

    @property
    def order(self) -> tuple[float, int]:
        """What rows are chosen by, the least one first; the test split has no say."""
        return self.selected, self.place


@dataclass(frozen=True)
class Against:
    """The rows of a task against its best control.

    Args:
        control: The best control.
        by: What it was chosen by, such as `select loss`.
        search: The best search of all, chosen like the control; None where nothing searched.
        best: What was searched for -> the test of the best search for it, corrected for the others
            (Holm): the sentence that they make is wrong as seldom as each of them would be alone.
        tests: Each row that is no control against it, corrected for their number.
    """

    control: str
    by: str
    search: str | None
    best: Mapping[str, Comparison]
    tests: tuple[Comparison, ...]

    @property
    def told(self) -> str:
        """The line above a table of the tests."""
        return (
            f"Against the best control, {self.control} (by {self.by}; paired test over examples "
            "and seeds, Holm's correction)"
        )

    @property
    def sentence(self) -> str:
        """What the best searches make of the control, in words; empty where nothing searched."""
        control = f"the best control, {self.control},"
        told: list[str] = []
        for sought, test in self.best.items():
            gain, half, p = self.gain(test), number(test.half), p_value(test.adjusted)
            if not test.differing:
                apart = f"has the same scores as {control.rstrip(',')}"
            elif not test.significant:
                apart = f"cannot be told from {control.rstrip(',')} ({signed(gain)} ± {half}; {p})"
            else:
                found = f"{number(test.difference)} ± {half} ({p})"
                apart = f"{'beats' if gain > 0 else 'is behind'} {control} by {found}"
            of = f"of {'those' if told else 'the searches'} for {sought}"
            told.append(f"{of}, {self.row(test)} {apart}")
            control = "it"
        if not told:
            return ""
        line = "; ".join(told)
        corrected = ", and tested together (Holm)" if len(told) > 1 else ""
        return f"{line[0].upper()}{line[1:]}; all chosen by {self.by}{corrected}. "

    def row(self, test: Comparison) -> str:
        """The label of the row that a test holds against the control."""
        return test.second if test.first == self.control else test.first

    def gain(self, test: Comparison) -> float:
        """How far that row is ahead of the control; below 0 where it is behind."""
        return test.difference if test.second == self.control else -test.difference

    def beaten(self, test: Comparison) -> bool:
        """Whether the control is: that row is better, by the corrected test."""
        return test.significant and self.gain(test) > 0

    def won(self) -> list[str]:
        """The best searches that are ahead of the control."""
        return [test.first for test in self.best.values() if self.beaten(test)]


def against(rows: Sequence[Candidate], by: str, widest: float) -> Against | None:
    """Test what was searched and trained against the best control.

    Args:
        rows: The ranked rows of a task.
        by: What `selected` is, in words.
        widest: The largest difference of the metric that there can be.

    Returns:
        None where no control has finished, or nothing beside controls.
    """
    ordered = sorted(rows, key=lambda row: row.order)
    controls = [row for row in ordered if row.control]
    others = [row for row in rows if not row.control]
    if not controls or not others:
        return None
    control, samples = controls[0].label, {row.label: row.scores for row in rows}
    tests = compare_with(control, [row.label for row in others], samples, widest)
    best: dict[str, Candidate] = {}
    searches = [row for row in ordered if row.searches and not row.control]
    for row in searches:
        best.setdefault(row.sought, row)
    kinds = [sought for sought in SOUGHT if sought in best]
    first = compare_with(control, [best[sought].label for sought in kinds], samples, widest)
    search = searches[0].label if searches else None
    return Against(control, by, search, dict(zip(kinds, first, strict=True)), tuple(tests))


def cells(found: Against) -> list[list[str]]:
    """The rows of a table, each beginning with the strategy's name."""
    return [
        [
            found.row(test),
            f"{signed(found.gain(test))} ± {number(test.half)}",
            probability(test.p),
            probability(test.adjusted),
            could_show(test.detectable),
        ]
        for test in found.tests
    ]
