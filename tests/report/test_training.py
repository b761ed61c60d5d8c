"""Did it train? The same facts in all forms of the report."""

import io

import pandas as pd
import pytest
from rich.console import Console

from promptsearch.report import load_results, print_report
from promptsearch.report.frame import run_table
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.summary import summarise
from promptsearch.report.training import COLUMNS, cells, findings, trained

HOSTILE = "<b>the rate</b> | looks *too* high"


def terminal(results):
    console = Console(file=io.StringIO(), width=140, color_system=None)
    print_report(results, console)
    return console.file.getvalue()


@pytest.fixture
def results(make_study):
    study = make_study().fill()
    found = study.result("reviews", "p_tuning", 1)
    found["training"] = study.training(
        0.4, rate=None, before=None, empty=None, gradients=[], moved=None, findings=[HOSTILE]
    )
    study.write(found)
    return load_results(study.folder)


def test_every_trained_run_has_its_cells(results):
    (task,) = summarise(results)
    runs = trained(task)
    assert [(run.label, run.seed) for run, _ in runs] == [
        (label, s) for label in ("p_tuning", "prompt_tuning") for s in range(3)
    ]
    row = dict(zip(("strategy", "seed", *COLUMNS), cells(*runs[0]), strict=True))
    training = runs[0][1]
    assert row["after"] == f"{training.after:.3f}"
    assert row["empty prompt"] == f"{training.winner - 0.98:+.3f}"
    assert {
        name: row[name]
        for name in ("before", "steps", "rate", "gradient", "reached", "clipped", "moved")
    } == {
        **{"before": "1.100", "steps": "64", "rate": "0.03", "gradient": "0.51 to 0.2"},
        **{"reached": "100 %", "clipped": "25 %", "moved": "62 %"},
    }
    assert [cell for cell in cells(*runs[1])[2:] if not cell] == [""] * 4 and cells(*runs[1])[
        2
    ] == "∞"
    assert findings(task) == [("p_tuning", 1, HOSTILE)]


def test_findings_stand_in_every_form_as_text(results):
    assert f"check p_tuning, seed 1: {HOSTILE}" in terminal(results)
    page = to_html(results)
    assert (
        "1 finding<" in page
        and "&lt;b&gt;the rate&lt;/b&gt; | looks *too* high" in page
        and "<b>the rate" not in page
    )
    text = to_markdown(results)
    assert "- `p_tuning`, seed 1: \\<b\\>the rate\\</b\\> \\| looks \\*too\\* high" in text
    frame = run_table(results)
    assert frame.set_index(["label", "seed"]).loc[("p_tuning", 1), "training_findings"] == HOSTILE
    assert pd.isna(frame.set_index(["label", "seed"]).loc[("random", 0), "training_steps"])


def test_where_nothing_looks_wrong_that_is_said(make_study):
    results = load_results(make_study().fill().folder)
    assert "Nothing looks wrong" in to_html(results) and "Nothing looks wrong." in to_markdown(
        results
    )
    assert "check" not in terminal(results)


def test_a_study_that_trains_nothing_does_not_ask(make_study):
    results = load_results(make_study(strategies=("manual", "random")).fill().folder)
    assert "Did it train?" not in to_html(results) and "Did it train?" not in to_markdown(results)
