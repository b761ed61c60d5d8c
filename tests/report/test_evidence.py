"""What all studies together say of a strategy is what each of them says of its best control."""

from dataclasses import replace

import numpy as np
import pytest

from promptsearch.report import load_results
from promptsearch.report.evidence import cases, evidence
from promptsearch.report.summary import summarise


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
    assert [found[name].sought for name in ("random", "p_tuning")] == ["words", "vectors"]
    assert found["p_tuning"].beats and found["p_tuning"].score - case.level > 0.15
    assert sum(case.best for case in found.values()) == 2  # of words, and of vectors


def renamed(found, name, **changes):
    return [replace(case, study=name, **changes) for case in found]


def test_the_page_counts_them_and_says_where_to_look_first(studies):
    _, results = studies
    found = cases([results])
    both = [*found, *renamed(found, "again")]
    page = "\n".join(evidence(both))
    vectors = [case for case in found if case.sought == "vectors"]
    beat = 2 * sum(case.beats for case in vectors)
    first = max(vectors, key=lambda case: case.score).strategy
    ahead = f"begin with `{first}`: it is ahead in 2 of 2 meetings with other searches for vectors"
    assert f"{ahead}. Of 4 rows, {beat} beat the best control" in page
    assert f"| `{first}` | 2 | 2 of 2 | 100 % |" in page and "## Changed weights" not in page
    words = [case for case in found if case.sought == "words"]
    few = 2 * sum(case.beats for case in words) < len(words)
    assert ("`promptsearch plan STUDY.yaml --headroom`" in page) == few
    alone = [case for case in found if case.strategy == "random"]
    told = "\n".join(evidence(alone))
    assert ("look first whether there is room" in told) == (not alone[0].beats)
    assert "begin with" not in told  # it met no other search


def test_strategies_are_compared_within_tasks_alone(studies):
    """One that ran alone where nothing could be gained, or all, is neither worse nor better."""
    _, results = studies
    one = next(case for case in cases([results]) if case.sought == "vectors")
    shared = [
        replace(one, study=study, strategy=name, score=score)
        for study in ("a", "b")
        for name, score in [("good", 0.7), ("level", 0.7), ("bad", 0.6)]
    ]
    alone = [replace(one, study=study, strategy="bad", score=0.9) for study in "cd"]
    once = replace(one, study="a", strategy="lucky", score=0.8)
    page = "\n".join(evidence([*shared, *alone, once]))
    assert "begin with `good`, of those with two tasks or more: it is ahead in 3 of 5" in page
    page = "\n".join(evidence([*shared, *alone]))
    assert "begin with `good`: it is ahead in 3 of 4 meetings" in page
    assert "| `level` | 2 | 3 of 4 |" in page and "| `bad` | 4 | 0 of 4 |" in page


def test_where_a_lower_score_is_better_the_lowest_is_ahead(studies):
    _, results = studies
    one = next(case for case in cases([results]) if case.sought == "vectors")
    rows = [
        replace(one, strategy=name, score=score, sign=-1) for name, score in (("a", 40), ("b", 60))
    ]
    assert "begin with `a`: it is ahead in 1 of 1 meetings" in "\n".join(evidence(rows))


def test_a_control_is_beaten_as_its_own_report_says_corrected_for_the_other_rows(make_study):
    """Of many rows some are ahead of the control by luck: a test that asks each alone counts it."""
    labels = ("manual", *(f"random-{k}" for k in range(1, 11)))
    made = make_study(strategies=labels, seeds=(0,))
    for k, label in enumerate(labels):
        result = made.result("reviews", label.partition("-")[0], 0, deterministic=True)
        right = np.arange(made.examples) < 100
        right[100 : 100 + 10 * (k == 1)] = True  # of the first one, ten answers more
        right[:2] = k != 1
        result["test"]["correct"] = right.astype(int).tolist()
        made.write(result | {"label": label, "control": k == 0})
    results = load_results(made.folder)
    test = next(t for t in summarise(results)[0].against.tests if t.first == "random-1")
    assert test.p < 0.05 < test.adjusted
    (case,) = (case for case in cases([results]) if case.score > case.level)
    assert not case.beats
    assert "Of 1 rows, none beat the best control; look first" in "\n".join(evidence([case]))
    page = "\n".join(evidence([case, replace(case, study="b", beats=True)]))
    assert "| `random` 0.540 |" in page and "| `random` **0.540** |" in page


def test_a_study_without_a_control_tells_nothing(make_study):
    made = make_study(strategies=("random", "p_tuning"), seeds=(0, 1)).fill()
    assert cases([load_results(made.folder)]) == []
