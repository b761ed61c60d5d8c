"""From vectors to words: what a soft prompt loses, in all forms of the report."""

from promptsearch.report import load_results
from promptsearch.report.frame import run_table
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.projection import projected
from promptsearch.report.summary import summarise

START = {
    **{
        "run": "prompt_tuning",
        "seed": 0,
        "kind": "soft",
        "key": "a" * 20,
        "text": " a| b",
        "spent": 40_000,
    },
    **{"select": {"loss": 0.25, "metric": 0.91}, "test": {"loss": 0.28, "metric": 0.89}},
}


def made(make_study, **start):
    study = make_study(strategies=("prompt_tuning", "random"), seeds=(0,)).fill()
    words = {"kind": "hard", "key": "b" * 20, "text": " a|<i>`c`"}
    changes = {
        "start": {**START, **start},
        "winner": words,
        "select": {"loss": 0.66, "metric": 0.6},
        "reference": True,
    }
    found = study.result("reviews", "random", 0, **changes)
    study.write({**found, "spent": 75_000, "ledger": {**found["ledger"], "brought": 40_000}})
    return load_results(study.folder)


def test_vectors_stand_beside_their_words(make_study):
    found = made(make_study)
    (task,) = summarise(found)
    assert [(run.label, start.run) for run, start in projected(task)] == [
        ("random", "prompt_tuning")
    ]
    for text in (to_markdown(found), to_html(found)):
        assert "From vectors to words" in text
        for pair in ("0.250 → 0.660", "0.910 → 0.600", "0.280 → "):
            assert pair in text
        assert "<i>" not in text and "| a|" not in text


def test_what_was_brought_is_told_apart_from_what_the_budget_allowed(make_study):
    found = made(make_study)
    assert "75,000 (35 % of its own, 40,000 brought)" in to_markdown(found)
    assert "35 % of its own,<br>40,000 brought" in to_html(found)
    row = run_table(found).set_index("label").loc["random"]
    assert (row["start_run"], row["start_seed"], row["ledger_brought"]) == (
        "prompt_tuning",
        0,
        40_000,
    )


def test_what_started_from_words_loses_nothing_on_the_way_to_them(make_study):
    found = made(make_study, kind="hard")
    assert "From vectors to words" not in to_markdown(found) + to_html(found)
