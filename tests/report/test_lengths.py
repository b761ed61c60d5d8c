"""A sweep over prompt lengths: which length stands for a strategy, the table and the figure."""

from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from promptsearch.cli import app
from promptsearch.report import load_results
from promptsearch.report.drawing import colour
from promptsearch.report.figures import by_length, curves
from promptsearch.report.html import to_html
from promptsearch.report.lengths import cells, lengths
from promptsearch.report.markdown import to_markdown
from promptsearch.report.summary import summarise

SVG = "{http://www.w3.org/2000/svg}"
#: Prompt tokens -> select loss, test accuracy: the test split likes 10, the select split 5.
FOUND = {1: (0.6, 0.55), 5: (0.3, 0.80), 10: (0.4, 0.90)}


@pytest.fixture
def results(make_study):
    labels = [f"{name}-{length}" for name in ("prompt_tuning", "random") for length in FOUND]
    study = make_study(strategies=("manual", *labels), seeds=(0, 1))
    study.study["families"] = {label: label.rpartition("-")[0] for label in labels}
    study.write_study()
    study.write(study.result("reviews", "manual", 0))
    for label in labels:
        name, _, length = label.rpartition("-")
        for seed in study.seeds:
            run = study.result("reviews", name, seed, length=int(length)) | {"label": label}
            loss, metric = FOUND[int(length)]
            run["select"]["loss"] = loss
            right = round(metric * study.examples)
            run["test"] |= {
                "metric": metric,
                "correct": [1] * right + [0] * (study.examples - right),
            }
            study.write(run)
    return load_results(study.folder)


@pytest.fixture
def task(results):
    return summarise(results)[0]


def test_the_length_with_the_least_select_loss_stands_for_its_strategy(task):
    assert {row.label for row in task.rows if row.chosen} == {
        "manual",
        "prompt_tuning-5",
        "random-5",
    }
    compared = {name for test in task.comparisons for name in (test.first, test.second)}
    assert compared == {"manual", "prompt_tuning-5", "random-5"}
    assert len(task.rows) == 7, "all lengths stand in the table"
    assert "prompt_tuning-10" not in task.verdict


def test_the_families_have_a_colour_each(task):
    places = {row.label: row.place for row in task.rows}
    assert (
        places["manual"] == 0
        and places["prompt_tuning-1"] == places["prompt_tuning-10"] == 1
        and places["random-5"] == 2
    )


def test_sweeps_are_in_the_order_of_study_and_lengths(task):
    assert [[row.label for row in rows] for rows in task.sweeps] == [
        [f"{name}-{length}" for length in FOUND] for name in ("prompt_tuning", "random")
    ]
    assert lengths(task) == [1, 5, 10]
    assert cells(task.sweeps[0], [1, 5, 10, 20]) == [
        "prompt_tuning",
        "0.550",
        "0.800*",
        "0.900",
        "",
    ]


def test_a_length_is_the_one_asked_for_also_where_the_winner_is_shorter(make_study):
    labels = ["random-5", "random-10"]
    study = make_study(strategies=labels, seeds=(0,))
    study.study["families"] = dict.fromkeys(labels, "random")
    study.write_study()
    for label in labels:
        study.write(study.result("reviews", "random", 0, length=2) | {"label": label})
    (task,) = summarise(load_results(study.folder))
    assert lengths(task) == [5, 10]
    assert [row.label for row in task.sweeps[0]] == labels
    assert all(cells(task.sweeps[0], [5, 10]))


def test_the_figure_has_a_line_a_strategy_and_a_mark_a_length(task):
    root = ElementTree.fromstring(by_length(task, "t0"))
    groups = {
        group.get("id"): ElementTree.tostring(group, "unicode") for group in root.iter(f"{SVG}g")
    }
    assert f"stroke: {colour(1)}" in groups["t0-1-length-line"] and "t0-1-length-band" in groups
    assert "stroke-dasharray" in groups["t0-0-length-line"] and "t0-0-length-band" not in groups, (
        "manual was run once"
    )
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {
        "1",
        "5",
        "10",
        "prompt tokens",
        "accuracy",
        "prompt_tuning",
        "random",
        "manual",
    } <= texts


def test_curves_show_the_chosen_lengths_only(task):
    root = ElementTree.fromstring(curves(task, "t0"))
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"manual", "prompt_tuning-5", "random-5"} <= texts and "prompt_tuning-10" not in texts


def test_the_reports_show_table_and_figure(results):
    page, text = to_html(results), to_markdown(results)
    assert page.count("<figure>") == 3 and "t0-2-length-line" in page and "<td>0.800*</td>" in page
    assert "| strategy | 1 | 5 | 10 |" in text
    assert "| `prompt_tuning` | 0.550 | 0.800\\* | 0.900 |" in text


def test_without_a_sweep_nothing_of_it_is_shown(make_study):
    results = load_results(make_study().fill().folder)
    (task,) = summarise(results)
    assert task.sweeps == () and all(row.chosen for row in task.rows)
    assert "against prompt length" not in to_html(results) + to_markdown(results)


def test_metrics_against_length_are_refused_where_nothing_is_drawn(make_study):
    folder = str(make_study().fill().folder)
    told = CliRunner().invoke(app, ["report", folder, "--lengths", "accuracy,loss"])
    assert told.exit_code == 2 and "no row of this study ran at several lengths" in told.output
    told = CliRunner().invoke(app, ["report", folder, "--lengths", "accuracy"])
    assert told.exit_code == 2 and "expected two metrics" in told.output
