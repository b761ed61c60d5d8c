import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from promptsearch.report import load_results
from promptsearch.report.drawing import STYLE, colour, spread, svg
from promptsearch.report.figures import curves, on_one_grid
from promptsearch.report.summary import summarise

SVG = "{http://www.w3.org/2000/svg}"


def figure(study):
    return curves(summarise(load_results(study.folder))[0], "t0")


def test_every_strategy_has_a_line_in_its_colour_with_its_name(make_study):
    root = ElementTree.fromstring(figure(make_study().fill()))
    groups = {
        group.get("id"): ElementTree.tostring(group, "unicode") for group in root.iter(f"{SVG}g")
    }
    for place in range(6):
        assert f"stroke: {colour(place)}" in groups[f"t0-{place}-line"]
        assert (f"t0-{place}-band" in groups) == (place > 0), "manual has one run, so no band"
    assert "stroke-dasharray" in groups["t0-0-line"], "manual was not searched: dashed"
    assert "stroke-dasharray" not in groups["t0-1-line"]
    assert "stroke-dasharray" in groups["t0-1-select-line"] and "t0-0-select-line" not in groups
    names = {text.text for text in root.iter(f"{SVG}text")}
    assert names >= {
        "manual",
        "random",
        "evolution",
        "optuna",
        "prompt_tuning",
        "p_tuning",
        "LM tokens spent",
    }


def test_the_same_data_give_the_same_bytes_without_a_date(make_study):
    study = make_study().fill()
    assert figure(study) == figure(study)
    assert not re.search(r"<dc:date|<metadata>.*\d{4}-\d\d-\d\d", figure(study), re.DOTALL)


def test_hostile_labels_are_text(make_study):
    label = '<script>alert("$x$")\n'
    root = ElementTree.fromstring(figure(make_study(strategies=(label,)).fill()))
    assert '<script>alert("$x$")⏎' in {text.text for text in root.iter(f"{SVG}text")}
    assert not list(root.iter(f"{SVG}script"))


def test_a_run_with_a_single_step_still_has_a_line(make_study):
    study = make_study(strategies=("random",), seeds=(0,))
    study.write(study.result("reviews", "random", 0, curve=[[1000, 0.7]]))
    line = figure(study).split('id="t0-0-line"')[1].split("/>")[0]
    assert " L " in line.replace("\n", " ")


def test_curves_are_read_as_steps_from_where_all_have_begun():
    a, b = np.array([[10, 3.0], [20, 2.0]]), np.array([[15, 5.0], [40, 1.0]])
    tokens, losses = on_one_grid([a, b])
    assert tokens.tolist() == [15, 20, 40]
    assert losses.tolist() == [[3, 2, 2], [5, 5, 1]], "a keeps its best loss after its end"


def test_long_curves_are_thinned_and_keep_both_ends():
    rng = np.random.default_rng(0)
    long = np.stack([np.arange(100, 50_100), np.sort(rng.random(50_000))[::-1]], axis=1)
    tokens, losses = on_one_grid([long], points=50)
    assert len(tokens) == 50
    assert (tokens[0], tokens[-1]) == pytest.approx((100, 50_099))
    assert losses[0, [0, -1]] == pytest.approx(long[[0, -1], 1])


def test_labels_are_pushed_apart_but_not_reordered():
    heights = np.array([0.5, 0.1, 0.5, 0.52, 0.9])
    apart = spread(heights, 0.05)
    assert np.diff(np.sort(apart)).min() >= 0.05 - 1e-12
    assert apart[[1, 4]] == pytest.approx([0.1, 0.9]), "those with room stay"
    assert apart[0] < apart[2] < apart[3]


def test_a_figure_of_many_curves_grows_so_that_all_names_fit(make_study):
    labels = tuple(f"s{k:02}" for k in range(30))
    root = ElementTree.fromstring(figure(make_study(strategies=labels).fill()))
    height = float(root.get("height").removesuffix("pt"))
    at = sorted(float(text.get("y")) for text in root.iter(f"{SVG}text") if text.text in labels)
    assert len(at) == 30 and at[0] > 0 and at[-1] < height and min(np.diff(at)) > 8


def test_numbers_on_an_axis_keep_their_digits():
    with rc_context(STYLE):
        drawn_on = Figure()
        axes = drawn_on.subplots()
        axes.plot([0, 1], [0.589, 0.604])
        axes.set_yticks([0.5925, 0.5975])
        drawn = svg(drawn_on)
    assert ">0.5925</text>" in drawn and ">0.5975</text>" in drawn
    paths = re.findall(r'<path d="([^"]*)"', drawn)
    assert paths and not re.search(r"\d\.\d{3}", "".join(paths))
