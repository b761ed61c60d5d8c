"""Metrics over choices equal scikit-learn's, to the last bit, and add up over rows."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import choice_rows, measured

ORACLES = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "f1": lambda labels, predictions: f1_score(labels, predictions, average="macro"),
}
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS)
def test_they_are_scikit_learns(name, pairs):
    labels, predictions = zip(*pairs, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without examples
        wanted = ORACLES[name](labels, predictions)
    assert measured(find_metric(name), choice_rows(labels, predictions)).score == wanted


@pytest.mark.parametrize("name", ORACLES)
def test_sums_of_drawn_rows_give_the_score_of_the_drawn_rows(name):
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(4, size=(2, 50))
    known = np.full((50, 4), 0.25)
    metric = find_metric(name)
    found = measured(metric, choice_rows(labels, predictions, known))
    for take in rng.integers(50, size=(20, 50)):
        again = metric.of(choice_rows(labels[take], predictions[take], known))
        assert found.score_of(found.statistics[take].sum(0), 50) == again


def test_feedback_says_what_was_expected():
    right, wrong = choice_rows([0, 0], [0, 1])
    metric = find_metric("f1")
    assert metric.feedback(right) == "" and metric.feedback(wrong) == "expected '0', got '1'"
