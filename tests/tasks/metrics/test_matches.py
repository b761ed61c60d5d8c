"""Metrics that compare an answer with right texts."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.metric import Answered

SQUAD = {"lowercase": True, "punctuation": False, "articles": False}


def score(name, output, *references, **options):
    return find_metric(name, options).of([Answered(output, references)])


@pytest.mark.parametrize(
    ("output", "references", "options", "exact", "prefix"),
    [
        ("Paris", ["Paris"], {}, 1, 1),
        (" Paris \n", ["Paris"], {}, 1, 1),
        ("New   York", ["New York"], {}, 1, 1),
        ("Paris.", ["Paris"], {}, 0, 1),
        ("paris", ["Paris"], {}, 0, 0),
        ("paris", ["Paris"], {"lowercase": True}, 1, 1),
        ("Paris.", ["Paris"], {"punctuation": False}, 1, 1),
        ("The Seine", ["Seine"], {"articles": False}, 1, 1),
        ("Zagreb. The capital", ["Zagreb"], {}, 0, 1),
        ("Lyon", ["Paris", "Lyon"], {}, 1, 1),
        ("", ["Paris"], {}, 0, 0),
        ("Lyon", ["The"], {"articles": False}, 0, 0),
        ("the", ["The"], {"articles": False}, 1, 1),
    ],
)
def test_matches(output, references, options, exact, prefix):
    assert score("exact_match", output, *references, **options) == exact
    assert score("prefix_match", output, *references, **options) == prefix


def test_each_right_answer_counts():
    assert score("exact_match", "Kiev", "Kyiv", "Kiev") == 1
    assert score("prefix_match", "Kiev!", "Kyiv", "Kiev") == 1


def squad(text):
    """The published normalisation, written anew."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


TEXTS = st.text(st.sampled_from("aAnNtThHeE .,!\n-"), max_size=14)


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_with_squads_options_exact_match_is_squads(output, reference):
    assert score("exact_match", output, reference, **SQUAD) == (squad(output) == squad(reference))


def test_the_signature_says_what_counts():
    assert find_metric("exact_match", SQUAD).signature == "exact_match|case:lc|punct:no|articles:no"


def test_feedback_says_what_was_expected():
    metric = find_metric("exact_match")
    assert metric.feedback(Answered("Paris", ("Paris",))) == ""
    assert metric.feedback(Answered("Lyon", ("Paris",))) == "expected 'Paris', got 'Lyon'"
