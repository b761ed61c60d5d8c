"""The signature travels with the score: in the record, the terminal, tables and reports."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from promptsearch.records.signature import run_signature, short_signature, signature
from promptsearch.report import load_results, print_report
from promptsearch.report.frame import run_table
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.summary import summarise

SHORT = (
    "task:76c58800|model:1234abcd+feedbeef|budget:100000|on:64|race:false|dtype:bfloat16|"
    "version:0.1.0"
)


@pytest.fixture
def study(make_study):
    return load_results(make_study().folder).study


def printed(results, width=100):
    console = Console(file=io.StringIO(), width=width)
    print_report(results, console)
    return console.file.getvalue()


def test_both_forms_are_one_line_in_a_stable_order(study):
    assert short_signature(study, "reviews", 100_000) == SHORT and len(SHORT) < 100
    assert signature(study) == (
        "name:movie-reviews|model:smollm2-135m-instruct@1234abcd|tokenizer:feedbeef|"
        "tasks:reviews@76c58800|score_on:64|budget:100000|seeds:0,1,2|dtype:bfloat16|device:cpu|"
        "race:false|threads:1|torch:2.13.0|version:0.1.0"
    )


def of(study, budget=100_000, **changes):
    return short_signature(replace(study, **changes), "reviews", budget)


def test_whatever_numbers_may_not_be_compared_across_changes_the_short_form(study):
    task = study.tasks["reviews"]
    splits = {**task.splits, "test": replace(task.splits["test"], hash="d" * 64)}
    others = [
        of(study, budget=50_000),
        of(study, budget=None),
        of(study, tasks={"reviews": replace(task, score_on=32)}),
        of(study, race=True),
        of(study, dtype="float32"),
        of(study, version="0.2.0"),
        of(study, prices=2),
        of(study, max_seconds=60.0),
        of(study, max_seconds=60.0, machine={**study.machine, "cpu": "A faster one"}),
        of(study, model=replace(study.model, hash="0" * 64)),
        of(study, model=replace(study.model, tokenizer_hash="0" * 64)),
        of(study, tasks={"reviews": replace(task, splits=splits)}),
        of(study, tasks={"reviews": replace(task, template="{text} {prompt}{answer}")}),
        of(study, tasks={"reviews": replace(task, metric="f1")}),
        of(study, tasks={"reviews": replace(task, choices=[" good", " bad"])}),
    ]
    assert len({of(study), *others}) == 1 + len(others)


def test_what_is_compared_is_no_part_of_the_short_form(study):
    machine = {**study.machine, "threads": 2}
    assert of(study, name="another", seeds=[7], strategies=["a"], machine=machine) == SHORT


def test_a_time_limit_is_part_of_the_long_form(study):
    limited = signature(replace(study, max_seconds=60.0))
    assert limited != signature(study) and "|seconds:60@" in limited


def test_a_run_has_the_budget_that_its_winner_could_cost(make_study):
    study = make_study(strategies=("random", "optuna"), seeds=(0,)).fill()
    found = study.result("reviews", "optuna", 0, reference=True, budget=60_000)
    ledger = {**found["ledger"], "brought": 40_000}
    study.write({**found, "spent": 75_000, "ledger": ledger})
    other = study.result("reviews", "random", 0)
    study.write({**other, "reference": True, "budget": 20_000, "spent": 19_000})
    results = load_results(study.folder)
    lines = {run.label: run_signature(results.study, run) for run in results.runs}
    assert "|budget:100000|" in lines["optuna"] and "|budget:20000|" in lines["random"]


def test_what_a_run_recorded_is_shown_as_it_is(make_study):
    study = make_study(strategies=("random",), seeds=(0, 1)).fill()
    older = SHORT.replace("0.1.0", "0.0.9")
    study.write(study.result("reviews", "random", 1, signature=older))
    results = load_results(study.folder)
    assert run_table(results)["signature"].tolist() == [SHORT, older]
    (task,) = summarise(results)
    assert task.signatures == (SHORT, older)
    assert SHORT in printed(results) and older in printed(results)


def test_it_stands_once_below_each_table_and_is_never_broken(make_study):
    results = load_results(make_study(tasks=("reviews", "films")).fill().folder)
    for width in (60, 100, 200):
        assert printed(results, width).splitlines().count(SHORT) == 2
    assert to_html(results).count(SHORT) == 2
    assert signature(results.study) in to_html(results)
    assert to_markdown(results).count(signature(results.study)) == 1


def test_a_hostile_line_is_shown_as_text(make_study):
    study = make_study(strategies=("random",), seeds=(0,))
    study.write(study.result("reviews", "random", 0, signature="<b>[red]\x1b[2J"))
    results = load_results(study.folder)
    assert "<b>[red]\\x1b[2J" in printed(results)
    assert "<b>[red]" not in to_html(results) and "\x1b" not in to_html(results)
