"""The front of metric and prompt tokens: held against every pair, in sentence and figure."""

from xml.etree import ElementTree

import numpy as np
import pytest

from promptsearch.report import load_results
from promptsearch.report.front import drawn, front, points, tokens, told
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.summary import summarise

SVG = "{http://www.w3.org/2000/svg}"


def results_of(make_study, rows, weights=()):
    """The results of one run for each label: its prompt tokens, and its share of right answers.

    Those in `weights` changed the weights.
    """
    study = make_study(strategies=tuple(rows), seeds=(0,))
    for label, (length, share) in rows.items():
        run = study.result("reviews", label, 0, length=length)
        right = round(share * study.examples)
        correct = [1] * right + [0] * (study.examples - right)
        run["test"] |= {"metric": right / study.examples, "correct": correct}
        study.write(run | ({"access": "weights"} if label in weights else {}))
    return load_results(study.folder)


@pytest.mark.parametrize("seed", range(4))
def test_a_row_is_on_it_where_no_shorter_prompt_is_as_good(make_study, seed):
    rng = np.random.default_rng(seed)
    rows = {f"row-{k}": (int(rng.integers(0, 6)), rng.integers(1, 9) / 10) for k in range(12)}
    (task,) = summarise(results_of(make_study, rows))
    at = {row.label: (tokens(row), row.metric.mean) for row in points(task)}
    beaten = {
        one
        for one, (length, metric) in at.items()
        for other in at.values()
        if other != (length, metric) and other[0] <= length and other[1] >= metric
    }
    found = front(task)
    assert {at[row.label] for row in found} == {at[label] for label in at.keys() - beaten}
    assert [tokens(row) for row in found] == sorted({tokens(row) for row in found})


def test_it_stands_in_both_forms_of_the_report(make_study):
    rows = {"manual": (3, 0.5), "random": (5, 0.4), "prompt_tuning": (20, 0.9), "grips": (0, 0.5)}
    results = results_of(make_study, rows)
    (task,) = summarise(results)
    sentence = (
        "Best by accuracy for their length in prompt tokens: "
        "'grips' 0.500 with 0, 'prompt_tuning' 0.900 with 20"
    )
    assert told(task) == sentence
    assert f"{sentence}." in to_markdown(results)
    assert "&#39;prompt_tuning&#39; 0.900 with 20" in to_html(results)
    figure = ElementTree.fromstring(drawn(task, "t0"))
    ids = {group.get("id") for group in figure.iter(f"{SVG}g")}
    assert {f"t0-{place}-front-line" for place in range(4)} <= ids
    assert drawn(task, "t0") == drawn(task, "t0"), "the same data give the same bytes"


def test_changed_weights_are_no_prompt(make_study):
    results = results_of(make_study, {"manual": (3, 0.5), "lora": (0, 0.9)}, weights={"lora"})
    (task,) = summarise(results)
    assert [row.label for row in points(task)] == ["manual"] and not told(task)


def test_prompts_of_one_length_have_no_front(make_study):
    results = results_of(make_study, {"manual": (5, 0.5), "random": (5, 0.6)})
    (task,) = summarise(results)
    assert not told(task) and "front-line" not in to_html(results)
