"""What all studies together say of a strategy is what each of them says of its best control."""

from dataclasses import replace

import pytest

from promptsearch.report import load_results
from promptsearch.report.evidence import cases, evidence


@pytest.fixture
def studies(make_study, tmp_path):
    """Two studies: one with a control, in which trained prompts are far ahead, and one without."""
    labels = ("manual", "random", "evolution", "prompt_tuning", "p_tuning")
    made = make_study(strategies=labels, seeds=(0, 1, 2, 3, 4)).fill()
    return made, load_results(made.folder)


def test_rows_are_counted_against_the_best_control(studies):
    _, results = studies
    found = {case.strategy: case for case in cases([results])}
    assert set(found) == {"random", "evolution", "prompt_tuning", "p_tuning"}  # no control
    for case in found.values():
        assert (case.control, case.task, case.kind) == ("manual", "reviews", "choices")
        assert case.gain == pytest.approx(case.score - case.level)
    assert [found[name].sought for name in ("random", "p_tuning")] == ["words", "vectors"]
    assert found["p_tuning"].beats and found["p_tuning"].gain > 0.15
    assert sum(case.best for case in found.values()) == 2  # of words, and of vectors


def test_the_page_counts_them_and_says_where_to_look_first(studies, make_study):
    _, results = studies
    found = cases([results, results])
    page = "\n".join(evidence(found))
    beat = sum(case.beats for case in found if case.sought == "vectors")
    assert f"begin with `p_tuning`. Of 4 rows, {beat} beat the best control" in page
    assert "| `p_tuning` | 2 | 100 % |" in page and "## Changed weights" not in page
    words = [case for case in found if case.sought == "words"]
    few = 2 * sum(case.beats for case in words) < len(words)
    assert ("`promptsearch plan STUDY.yaml --headroom`" in page) == few
    alone = [case for case in found if case.strategy == "random"]
    told = "look first whether there is room" in "\n".join(evidence(alone))
    assert told == (not alone[0].beats)


def test_a_gain_without_a_measure_is_blank(studies):
    _, results = studies
    found = [replace(case, gain=None) for case in cases([results])]
    page = "\n".join(evidence(found))
    assert "nan" not in page and "| `p_tuning` | 1 | 100 % |  |" in page


def test_a_study_without_a_control_tells_nothing(make_study):
    made = make_study(strategies=("random", "p_tuning"), seeds=(0, 1)).fill()
    assert cases([load_results(made.folder)]) == []
