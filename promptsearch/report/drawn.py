"""The leader against the other rows by rows drawn again, as papers test BLEU.

It stands beside the tests that the verdict rests on. Those know the luck of seeds, and this does
not; this one takes the metric as it is, where those take what each example adds to it.
"""

from __future__ import annotations

import numpy as np

from promptsearch.records.metrics import known
from promptsearch.report.notation import probability
from promptsearch.report.summary import Row, TaskSummary
from promptsearch.resampling import paired_bootstrap
from promptsearch.statistics import Floats, Score

#: The line above.
TOLD = (
    "By rows drawn again (paired bootstrap of the metric itself, 1,000 draws, two-sided, not "
    "corrected; the luck of seeds is not in it)"
)


def against(task: TaskSummary, trust_code: bool = False) -> list[str]:
    """One sentence for each row that the leader is tested against.

    Args:
        task: A task of the report.
        trust_code: Whether a metric that is not built in may be imported.

    Returns:
        Plain text; empty for choices, for metrics that are means, and where statistics are missing.
    """
    rows = [row for row in task.rows if row.chosen and not row.reference]
    if task.info.kind != "text" or task.left_out or len(rows) < 2:
        return []
    found = {row.label: _statistics(row, trust_code) for row in rows}
    leader, *others = rows
    if (first := found[leader.label]) is None:
        return []
    score, mine = first
    lines = []
    for row in others:
        if (second := found[row.label]) is not None:
            test = paired_bootstrap(score, mine, second[1], groups=task.info.groups)
            told = f"{leader.label} against {row.label}: {test.difference:+.3f}"
            lines.append(f"{told}, p {_equals(probability(test.p))}")
    return lines


def _statistics(row: Row, trust_code: bool) -> tuple[Score, Floats] | None:
    """The score of sums, and the statistics of a row's runs, shape `(runs, rows, statistics)`."""
    found = []
    for run in row.runs:
        for record in run.test.metrics[:1]:
            one = None if record.mean else known(run.test, record, trust_code=trust_code)
            found.append(one)
    whole = [one for one in found if one is not None]
    if not whole or len(whole) < len(row.runs):
        return None
    return whole[0].metric.score, np.stack([one.statistics for one in whole])


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"
