"""Small versions of what `python -m benchmarks power` simulates: the bars of the verdict."""

import numpy as np
import pytest

from benchmarks.power import (
    OURS,
    Case,
    Row,
    ahead,
    failing,
    held,
    normal,
    procedures,
    report,
    tied,
    winners,
)
from promptsearch.statistics import compare_leader

CASES = {(case.name, case.seeds): case for case in tied()}


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("two tied, one stable, luck .1", 3),
        ("two tied, luck .01 and .1", 5),
        ("two tied, one run in four fails", 3),
        ("two tied, groups of five", 5),
        ("two tied, both stable", 1),
    ],
)
def test_of_tied_rows_none_is_called_the_winner_in_more_than_5_percent_of_studies(name, seeds):
    case, studies = CASES[name, seeds], 300
    wrong = sum(
        all(test.significant for test in compare_leader(study, 1.0))
        for study in case.studies(studies)
    )
    assert wrong / studies <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / studies)


def test_seven_tied_rows_are_less_of_a_danger_than_two():
    found = winners(CASES["all seven tied, stable and lucky", 3], 60)
    assert found.share(found.wrong)[OURS] <= 0.05 and found.share(found.right)[OURS] == 0


def test_five_seeds_name_one_row_at_88_percent_among_six_at_75():
    """Correcting for all pairs, as the table of pairs does, names it less often."""
    case = next(case for case in ahead() if case.name == "luck 0.03" and case.seeds == 5)
    found = winners(case, 40)
    right = found.share(found.right)
    assert right[OURS] >= 0.85 and right["Holm, all pairs"] <= right["Holm, leader's pairs"]
    assert found.share(found.wrong)[OURS] == 0


def test_where_a_failure_was_seen_the_interval_holds_in_90_percent_of_studies():
    found = held(Case("", (Row(0.7, failing(0.25)),), 3), 300, fails=True)
    assert found.seen >= 0.9 and 0.45 < found.share < 0.7
    assert found.whole < 0.8, "where none was seen, an interval cannot know"


def test_a_study_has_the_luck_that_it_is_told():
    case = Case("", (Row(0.75, normal(0.1)), Row(0.75, None)), 400, 400)
    (study,) = case.studies(1)
    lucky, stable = study.values()
    noise = 0.75 * 0.25 * 0.3 / 400  # about: the share of the noise in an answer's variance
    assert lucky.scores.mean(axis=1).var() == pytest.approx(0.1**2 + noise, rel=0.25)
    assert stable.deterministic and stable.scores.shape == (1, 400)
    leader, named = procedures({"0": lucky, "1": stable})
    assert leader in (0, 1) and OURS in named


def test_the_page_has_a_line_for_each_case():
    named = {OURS: 0.04, "Welch": 0.06}
    line = {"case": "luck 0.1", "rows": 2, "seeds": 3, "examples": 400, "studies": 4000}
    whole = {"whole": 0.95, "seen": 0.97, "share": 0.5, "half": 0.1}
    rows = [
        *({**line, "part": part, "named": named} for part in ("tied", "unseen", "ahead")),
        {**line, "part": "normal", **whole},
        {**line, "part": "other", **whole},
        {**line, "part": "other", **whole, "share": 0.0},
    ]
    page = report({"command": "c", "date": "d", "rows": rows})
    assert page.count("| luck 0.1 | 2 | 3 | 400 | 0.040 | 0.060 |") == 3
    assert "the worst of ours is 0.040 (luck 0.1, 3 seeds" in page
    assert "| 3 | 400 | 0.1 | 0.950 | 0.100 |" in page
    assert "| 0.970 | 0.50 | 0.63 |" in page and "| – | – | 0.63 |" in page
