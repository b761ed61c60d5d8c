"""The page of the study of what a search sees: log-probabilities, or only right and wrong.

It is made from two records of the same rows, tasks and seeds, which differ in what searches follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from promptsearch.records.results import Results
from promptsearch.report.escaped import code, escape, table_lines
from promptsearch.report.notation import number, probability
from promptsearch.report.summary import Row, summarise
from promptsearch.statistics import Comparison, Sample, holm, paired_test

#: The two records in `results/`: searches that see losses, and searches that see a metric.
RECORDS = ("log-probabilities", "right-or-wrong")

INTRODUCTION = """\
Prompt optimisers that talk to a server often see of an answer only whether it is right. The model
says more: how probable the right answer is. What is that worth to a search? The same searches on
the same tasks at the same budget, {seeds} seeds each: once they minimise the loss in nats and the
winner is selected by it, once they maximise {metric} and the winner is selected by that. `random`
draws the same prompts both times, so that its difference is what the choice among them loses.

```sh
OMP_NUM_THREADS=1 promptsearch compare examples/confidence/log-probabilities.yaml \\
    --out results/log-probabilities
OMP_NUM_THREADS=1 promptsearch compare examples/confidence/right-or-wrong.yaml \\
    --out results/right-or-wrong
```
"""

READ = """\
Mean test metric over the seeds that both finished. The difference is that of log-probabilities over
right and wrong, seed by seed, with its 95 % interval over examples and seeds; p is that of a paired
test, after Holm's correction for all lines of the table."""


def page(seeing: Results, blind: Results) -> str:
    """The whole page.

    Args:
        seeing: The study whose searches see losses in nats.
        blind: The study whose searches see a metric, right or wrong.
    """
    pairs = list(_pairs(seeing, blind))
    seeds = " or ".join(sorted({str(row.wanted) for _, row, _ in pairs}))
    lines = [
        "<!-- Written by docs/generate.py from the records in results/: run it again. -->",
        "# Log-probabilities, or right and wrong",
        "",
        INTRODUCTION.format(seeds=seeds, metric=blind.study.objective),
        READ,
        "",
        *_table(pairs),
    ]
    return "\n".join(lines) + "\n"


def _pairs(seeing: Results, blind: Results) -> Iterator[tuple[str, Row, Row]]:
    """Each search on each task in both studies: the task, and its two rows, of the same seeds."""
    seeing, blind = _in_both(seeing, blind), _in_both(blind, seeing)
    others = {(task.name, row.label): row for task in summarise(blind) for row in task.rows}
    for task in summarise(seeing):
        for row in task.rows:
            if row.searches:
                yield task.name, row, others[task.name, row.label]


def _in_both(results: Results, other: Results) -> Results:
    """The results with the runs alone that the other study has, too."""
    there = {(run.task, run.label, run.seed) for run in other.runs}
    runs = [run for run in results.runs if (run.task, run.label, run.seed) in there]
    return replace(results, runs=tuple(runs))


def _test(one: Row, two: Row) -> Comparison:
    """The test of the differences of two rows by seed, against none.

    The two runs of a seed begin alike, and so share its luck: two samples of seeds that have
    nothing to do with one another would count it twice.
    """
    scores = one.scores.scores - two.scores.scores
    apart = replace(one.scores, scores=scores, answers=None)
    none = Sample(np.zeros_like(scores[:1]), deterministic=True, groups=apart.groups)
    return paired_test("nats", apart, "metric", none)


def _table(pairs: list[tuple[str, Row, Row]]) -> list[str]:
    tests = [_test(one, two) for _, one, two in pairs]
    table = []
    for (task, one, two), test, p in zip(pairs, tests, holm([t.p for t in tests]), strict=True):
        gain = one.metric.mean - two.metric.mean
        spreads = [np.std([run.test.metric or 0 for run in row.runs], ddof=1) for row in (one, two)]
        table.append(
            [
                escape(task),
                code(one.label, in_table=True),
                number(one.metric.mean),
                number(two.metric.mean),
                f"{gain:+.3f} ± {number(test.half)}",
                probability(float(p)),
                " and ".join(number(float(spread)) for spread in spreads),
            ]
        )
    heads = ["task", "search", "log-probabilities", "right or wrong", "difference", "p"]
    return table_lines([*heads, "standard deviations over seeds"], table)
