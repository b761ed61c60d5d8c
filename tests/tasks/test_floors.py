"""Floors: what a task is worth without a language model."""

from __future__ import annotations

import pytest

from promptsearch.tasks.floors import CLASSIFIER, COPY, FREQUENT, GUESS, floors, majority
from promptsearch.tasks.task import Task

SPLITS = {"search": 60, "select": 10, "test": 30}


def task(rows, **given):
    given = {"template": "{prompt} {text} It is {answer}", "label": "label", **given}
    return Task.from_rows(rows, **{"splits": SPLITS, **given})


def told(word, other):
    """Rows whose one word says the label, in three of four rows the same one."""
    return [
        {"text": f"{other if i % 4 == 0 else word} {i}", "label": "no" if i % 4 == 0 else "yes"}
        for i in range(100)
    ]


def test_a_classifier_of_words_learns_what_words_say():
    plain = task(told("sun", "rain"), answers={"yes": "yes", "no": "no"})
    assert floors(plain) == {CLASSIFIER: 1.0}
    # Words that say nothing leave the most frequent answer.
    silent = task(told("sun", "sun"), answers={"yes": "yes", "no": "no"})
    assert floors(silent)[CLASSIFIER] == majority(silent)


def test_the_classifier_learns_from_the_search_split_alone():
    rows = told("sun", "rain")
    known = task(rows, answers={"yes": "yes", "no": "no"})
    searched = {example.fields["text"] for example in known.splits["search"].examples}
    # Every label outside the search split is turned round.
    other = {"yes": "no", "no": "yes"}
    turned = [r if r["text"] in searched else {**r, "label": other[r["label"]]} for r in rows]
    assert floors(task(turned, answers={"yes": "yes", "no": "no"})) == {CLASSIFIER: 0.0}


def test_a_search_split_of_one_answer_has_no_classifier():
    rows = [{"text": f"a {i}", "label": "yes"} for i in range(100)]
    assert floors(task(rows, answers={"yes": "yes", "no": "no"})) == {}


def test_texts_without_words_have_no_classifier():
    rows = [{"text": "?" * (i + 1), "label": i % 2} for i in range(100)]
    assert floors(task(rows, answers={0: "yes", 1: "no"})) == {}


def test_a_metric_that_is_no_mean_has_the_most_frequent_answer_beside_it():
    found = floors(task(told("sun", "rain"), answers={"yes": "yes", "no": "no"}, metric="f1"))
    assert found[CLASSIFIER] == 1.0
    assert 0.3 < found[FREQUENT] < 0.5  # one class of two is never given


def test_the_most_frequent_answer_may_be_any_of_several_right_ones():
    rows = [{"text": f"a {i}", "label": [f"own {i}", "common"]} for i in range(100)]
    assert majority(task(rows)) == 1.0
    assert floors(task(rows, metric="chrf"))[FREQUENT] == 100.0


def test_a_copy_of_the_input_is_right_where_the_answer_is_the_input():
    rows = [{"text": f"word {i}", "label": f"word {i}" if i % 2 else "other"} for i in range(100)]
    copied = task(rows)
    right = [e.fields["text"] == e.answer.strip() for e in copied.splits["test"].examples]
    assert floors(copied) == {COPY: pytest.approx(sum(right) / len(right))}
    assert majority(copied) == pytest.approx(1 - sum(right) / len(right))


def test_options_by_row_have_a_guess():
    rows = [
        {"text": f"a {i}", "options": ["x", "y", "z", "w"][: 2 + i % 3], "label": 0}
        for i in range(100)
    ]
    found = task(rows, answers={"field": "options"})
    sizes = [len(example.options) for example in found.splits["test"].examples]
    assert floors(found) == {GUESS: pytest.approx(sum(1 / n for n in sizes) / len(sizes))}


def test_a_metric_of_the_study_s_own_code_is_not_run(monkeypatch):
    plain = task(told("sun", "rain"), answers={"yes": "yes", "no": "no"})
    object.__setattr__(plain, "metric", "nowhere:Metric")
    assert floors(plain) == {}
