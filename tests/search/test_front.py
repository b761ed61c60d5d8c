"""The Pareto front over examples, against a brute-force one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.search.front import front

LOSSES = st.sampled_from([0.0, 1.0, 2.0, np.nan])
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(LOSSES, min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(TABLES)
def test_it_is_the_front_that_a_look_at_all_pairs_finds(losses):
    known = [[np.inf if np.isnan(loss) else loss for loss in row] for row in losses]

    def dominates(one, other):
        pairs = list(zip(one, other, strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    wanted = [
        0
        if any(dominates(other, row) for other in known)
        else sum(loss < np.inf and loss == min(column)
                 for loss, column in zip(row, zip(*known, strict=True), strict=True))
        for row in known
    ]  # fmt: skip
    assert front(np.array(losses)).tolist() == wanted


def test_nobody_is_in_an_empty_front():
    assert front(np.array([])).tolist() == []
    assert front(np.full((2, 3), np.nan)).tolist() == [0, 0]


def test_the_best_of_all_stays_though_it_shares_each_of_its_wins():
    """Pull request 432 of gepa-ai/gepa: it left, since two others are best where it is."""
    right = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]])
    assert front(1.0 - right).tolist() == [4, 3, 3]
