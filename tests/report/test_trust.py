"""What a stranger's results name is not run.

Looked at, one by one: `metric` (`module:function`) in study.json, in certificates and in
prompt.json, and strategies (`module:Class`) in study.json, run.json and result.json, here; PEFT's
`megatron_core`, which PEFT imports, and its `auto_mapping`, in configs of exports, in tests/export;
`trust_remote_code`, which is False or left to False wherever a model or tokenizer is loaded, so
that `auto_map` names nothing; data sets of the Hub, which have no scripts any more; tags of YAML,
in tests/test_limits.py; entry points, which are the user's own packages; templates of the report,
which are files of this package; pickles, which law 9 forbids; the current folder, in which
`python -m` would look for modules.
"""

import sys

import pytest
from typer.testing import CliRunner

from promptsearch.cli import app
from promptsearch.importing import load_named
from promptsearch.records.sealed import read_record, write_record
from promptsearch.report import load_results, write_report
from promptsearch.report.summary import summarise

LEFT_OUT = (
    "Intervals of metric handy:share, and tests of who won by it, are left out: its code is the "
    "study's; add --trust-code."
)


@pytest.fixture
def strange(make_study, monkeypatch):
    """The folder of a study whose metric is a function beside it.

    It was made before runs recorded what reports need.
    """
    study = make_study(metric="handy:share", strategies=("random", "evolution")).fill()
    study.study["settings"]["strategies"] = [{"handy:Mine": {"label": "random"}}]
    study.write_study()
    code = (
        "open('ran', 'w').close()\ndef share(labels, predictions): return float((labels == "
        "predictions).mean())\n"
    )
    (study.folder / "handy.py").write_text(code)
    monkeypatch.chdir(study.folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield study
    sys.modules.pop("handy", None)


def report(*arguments):
    return CliRunner().invoke(app, ["report", ".", *arguments], env={"COLUMNS": "200"})


def test_report_runs_nothing_shows_what_was_recorded_and_says_what_is_left_out(strange):
    done = report()
    assert done.exit_code == 0 and not (strange.folder / "ran").exists()
    assert LEFT_OUT in " ".join(done.stdout.split())
    (task,) = summarise(load_results("."))
    recorded = [strange.result("reviews", "random", seed)["test"]["metric"] for seed in range(3)]
    assert next(row for row in task.rows if row.label == "random").metric.mean == pytest.approx(
        sum(recorded) / 3
    )
    assert not task.comparisons
    for name in ("report.md", "report.html"):
        text = (strange.folder / name).read_text("utf-8")
        assert "--trust-code" in text and "nan" not in text.replace("'nan'", "")


def test_report_runs_it_where_the_user_says_so(strange):
    done = report("--trust-code")
    assert done.exit_code == 0 and (strange.folder / "ran").exists()
    assert "left out" not in done.stdout and "±" in done.stdout
    assert "" not in sys.path  # the current folder was looked into for this import alone
    write_report(".")
    assert "--trust-code" in (strange.folder / "report.md").read_text("utf-8")
    write_report(".", trust_code=True)
    assert "--trust-code" not in (strange.folder / "report.md").read_text("utf-8")


def test_results_that_recorded_what_a_report_needs_show_all_and_run_nothing(strange):
    for path in strange.folder.glob("*/*/seed*/result.json"):
        result = read_record(path, "result", "")
        result["test"]["shares"] = [float(right) for right in result["test"]["correct"]]
        write_record(path, "result", result)
    done = report()
    assert (
        "left out" not in done.stdout
        and "±" in done.stdout
        and not (strange.folder / "ran").exists()
    )
    (task,) = summarise(load_results("."))
    assert task.comparisons and task.verdict.startswith(("evolution", "The data"))


def test_a_metric_that_failed_in_a_run_is_named_and_the_others_are_shown(strange):
    path = strange.path("reviews", "random", 1)
    result = read_record(path, "result", "")
    result["test"] |= {
        "metric": None,
        "metric_failed": "the metric 'handy:share' gave nan: expected a finite number",
    }
    write_record(path, "result", result)
    done = report()
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    assert "evolution" in text and "left out" in text


def test_the_current_folder_is_looked_into_while_a_named_module_is_imported_and_no_longer(strange):
    load_named("handy:share")
    assert "" not in sys.path and (strange.folder / "ran").exists()
    with pytest.raises(ModuleNotFoundError):
        load_named("absent_there:share")
    assert "" not in sys.path
