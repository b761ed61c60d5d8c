"""A judge asks what it is told to, and its agreement with labels is measured."""

import math

import pytest
from sklearn.metrics import cohen_kappa_score

from promptsearch.errors import TaskError, UnknownName
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.judge import agreement
from promptsearch.tasks.metrics.measured import measured
from promptsearch.tasks.metrics.metric import Answered

QUESTION = "Is {output} as good as {reference} for {topic}? {{Yes}} or no."
ROWS = [
    Answered("a cat", ("the cat",), {"topic": "pets"}),
    Answered("{topic}", ("a dog",), {"topic": "dogs"}),
]


class Fake:
    signature = "fake-1"

    def __init__(self, *answers):
        self.asked, self.said = [], list(answers)

    def answers(self, requests):
        self.asked += requests
        return self.said


def test_it_asks_of_each_row_and_counts_yes():
    fake = Fake(" Yes, quite.", "**no**")
    metric = find_metric("judge", {"question": QUESTION}).over(fake)
    assert measured(metric, ROWS).statistics.tolist() == [[1], [0]]
    # What a text brings in is not filled in again.
    assert fake.asked[1] == "Is {topic} as good as a dog for dogs? {{Yes}} or no."
    assert metric.signature.startswith("judge|model:fake-1|question:")


def test_it_asks_about_fields_within_fields_and_refuses_others():
    row = Answered("a cat", ("une chatte",), {"translation.en": "the cat"})
    metric = find_metric("judge", {"question": "Is {output} for {translation.en} {{so.so}}?"})
    assert metric.request(row) == "Is a cat for the cat {{so.so}}?"
    for name in ("translation.eng", "translation", "refernce"):
        metric = find_metric("judge", {"question": f"Is {{output}} as {{{name}}}?"})
        with pytest.raises(UnknownName, match=f"unknown field '{name}'"):
            metric.check([row])


def test_faults_are_named():
    with pytest.raises(TaskError, match="lacks {output}"):
        find_metric("judge", {"question": "Good?"})
    with pytest.raises(TaskError, match="'judge', option 'question': it must be given"):
        find_metric("judge")
    metric = find_metric("judge", {"question": QUESTION})
    with pytest.raises(TaskError, match="has no model to ask"):
        measured(metric, ROWS)
    with pytest.raises(TaskError, match="neither yes nor no of row 2: 'maybe'"):
        measured(metric.over(Fake("yes", "maybe")), ROWS)


def test_agreement_is_cohens():
    judged, labels = [1, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1, 1, 1]
    found = agreement(judged, labels)
    assert found.share == 6 / 8 and found.rows == 8
    assert found.kappa == pytest.approx(cohen_kappa_score(judged, labels))
    assert math.isnan(agreement([1, 1], [1, 1]).kappa)
