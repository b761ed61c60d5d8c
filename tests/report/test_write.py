import json

import pandas as pd

from promptsearch.report import write_report


def test_three_files_are_written_whole_and_again_the_same(make_study):
    study = make_study().fill()
    path = write_report(study.folder)
    assert path == study.folder / "report.html"
    names = {found.name for found in study.folder.iterdir() if found.is_file()}
    assert names == {"study.json", "report.html", "report.md", "runs.parquet"}
    before = {name: (study.folder / name).read_bytes() for name in names}
    write_report(str(study.folder))
    assert before == {name: (study.folder / name).read_bytes() for name in names}


def test_the_table_has_one_flat_row_a_run(make_study):
    study = make_study(strategies=("manual", "random")).fill()
    study.fail("reviews", "random", 1, error="no memory")
    write_report(study.folder)
    frame = pd.read_parquet(study.folder / "runs.parquet")
    assert frame[["label", "seed", "status"]].values.tolist() == [
        ["manual", 0, "done"],
        ["random", 0, "done"],
        ["random", 2, "done"],
        ["random", 1, "failed"],
    ]
    assert not frame.map(lambda value: isinstance(value, (dict, list))).any().any()
    expected = study.result("reviews", "random", 2)
    row = frame.iloc[2]
    assert row["test_loss"] == expected["test"]["loss"]
    assert row["search_loss_fp32"] == expected["search"]["loss_fp32"]
    assert row["ledger_backward"] == expected["ledger"]["backward"]
    assert row["winner_text"] == " film verdict| clearly | rating mood"
    assert json.loads(row["options"]) == {"population": 16}
    assert frame.iloc[3]["error"] == "no memory"
    assert pd.isna(frame.iloc[3]["test_loss"]) and pd.isna(row["error"])


def test_a_study_without_runs_has_a_report_and_an_empty_table(make_study):
    study = make_study()
    write_report(study.folder)
    assert len(pd.read_parquet(study.folder / "runs.parquet")) == 0
    assert "No run has finished" in (study.folder / "report.md").read_text()
