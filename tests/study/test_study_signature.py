"""Every score that a study leaves has its signature beside it, wherever it goes."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from promptsearch import compare, load_prompt
from promptsearch.export import export_run, verify
from promptsearch.records.signature import run_signature, signature
from promptsearch.report import load_results
from promptsearch.report.frame import run_table
from promptsearch.report.slim import write_slim_record

HALF = {"budget": 4_500}
STRATEGIES = [
    {"manual": {"prompts": ["It was"]}},
    {"evolution": {"batch": 4, **HALF}},
    {"coordinate": {**HALF, "start": {"run": "evolution"}}},
]
SETTINGS = {"name": "s", "budget": 9_000, "length": 2, "score_on": 8, "seeds": 1}


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny, films):
    folder = tmp_path_factory.mktemp("study")
    return compare({**SETTINGS, "strategies": STRATEGIES}, out=folder, model=tiny, task=films)


def test_a_run_has_one_line_in_its_record_its_table_and_its_export(study):
    column = run_table(study).set_index("label")["signature"]
    for run in study.runs:
        saved = load_prompt(study.folder / run.task / run.label / "seed0")
        assert run.signature == column[run.label] == saved.about["signature"]
    told = json.loads((study.folder / "study.json").read_text())["signature"]
    assert told == signature(study.study) and "|seeds:0|" in told


def test_a_slim_record_keeps_it(study, tmp_path):
    write_slim_record(study.folder, tmp_path / "slim")
    frame = pd.read_csv(tmp_path / "slim" / "runs.csv").set_index("label")
    assert {run.label: run.signature for run in study.runs} == frame["signature"].to_dict()
    again = load_results(tmp_path / "slim")
    assert again.study == study.study and [r.signature for r in again.runs] == [
        r.signature for r in study.runs
    ]


def test_it_names_the_whole_bill_that_the_winner_could_have(study):
    lines = {run.label: run.signature for run in study.runs}
    assert lines["coordinate"] == lines["manual"] != lines["evolution"]
    assert "|budget:9000|on:8|" in lines["coordinate"] and "|budget:4500|" in lines["evolution"]
    again = {run.label: replace(run, signature="") for run in study.runs}
    assert {label: run_signature(study.study, run) for label, run in again.items()} == lines


def test_an_export_shows_it_and_its_check_does_not_believe_it(study, tiny, tmp_path):
    run = study.runs[0]
    folder = export_run(
        study.folder / run.task / run.label / "seed0", "text", tmp_path / "out", model=tiny
    )
    assert f"Signature: `{run.signature}`" in (folder / "README.md").read_text()
    assert verify(folder, tiny).signature == run.signature
    certificate = folder / "certificate.json"
    data = json.loads(certificate.read_text())
    for line in ("task:0|budget:1", None):  # of other conditions; of a version that had none
        changed = {**data, "signature": line} if line else dict(data)
        if line is None:
            del changed["signature"]
        certificate.write_text(json.dumps(changed))
        found = verify(folder, tiny)
        assert found.same and found.signature == (line or "")


def test_more_seeds_change_the_long_form_of_a_study_and_no_score_s(study, tiny, films):
    before = [run.signature for run in study.runs]
    strategies = [{"manual": {"prompts": ["It was"]}}]
    again = compare(
        {**SETTINGS, "seeds": 2, "strategies": strategies},
        out=study.folder,
        model=tiny,
        task=films,
    )
    assert [run.signature for run in again.runs] == before
    assert "|seeds:0,1|" in again.study.signature == signature(again.study)
