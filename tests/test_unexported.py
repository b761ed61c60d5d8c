"""A check that fails costs the export, never the run: law 10."""

from __future__ import annotations

import io
import logging

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from promptsearch import compare, load_prompt
from promptsearch.cli import app
from promptsearch.errors import ModelError, PromptError
from promptsearch.export import export_run, verify
from promptsearch.export.saved import SavedPrompt
from promptsearch.records.sealed import read_record
from promptsearch.report import load_results, print_report

SOFT = {"prompt_tuning": {"interval": 2, "batch": 4}}
WORDS = {"nearest_tokens": {"start": {"run": "prompt_tuning"}}}


def study(*strategies):
    return {
        "name": "s",
        "budget": 9_000,
        "length": 2,
        "score_on": 8,
        "seeds": 1,
        "strategies": [SOFT, *strategies],
    }


def result(folder, label):
    return read_record(folder / "films" / label / "seed0" / "result.json", "result", "")


@pytest.fixture
def off(monkeypatch):
    """Every export, loaded again, scores a hundredth of a nat more."""
    plain = SavedPrompt.score_probe
    with monkeypatch.context() as patch:
        patch.setattr(
            SavedPrompt, "score_probe", lambda self, lm: [loss + 0.01 for loss in plain(self, lm)]
        )
        yield patch


def test_the_run_stands_with_its_scores_and_its_prompt(tiny, films, tmp_path, off, caplog):
    with caplog.at_level(logging.WARNING):
        results = compare(study("random"), out=tmp_path, model=tiny, task=films)
    assert not results.failed and len(results.runs) == 2
    assert "prompt_tuning, seed 0 has no export: the export, loaded again, is" in caplog.text
    for run in results.runs:
        assert (
            run.export
            and "nats per scored token away from what was measured (allowed: " in run.export.error
        )
        assert 0 < run.test.loss < 10 and run.winner.key and run.bytes
        assert not (tmp_path / "films" / run.label / "seed0" / "best").exists()
    soft = result(tmp_path, "prompt_tuning")
    assert soft["status"] == "done" and len(soft["test"]["losses"]) == 20
    kept = (
        tmp_path / "films/prompt_tuning/seed0/unexported" / f"{soft['winner']['key']}.safetensors"
    )
    assert kept.stat().st_size == soft["bytes"]


@pytest.mark.parametrize("error", [PromptError("no such numbers"), ModelError("no room for it")])
def test_whatever_the_export_stumbles_over(tiny, films, tmp_path, monkeypatch, error):
    def fail(self, lm):
        raise error

    monkeypatch.setattr(SavedPrompt, "score_probe", fail)
    (run,) = compare(study(), out=tmp_path, model=tiny, task=films).runs
    assert run.export and run.export.error == str(error)


def test_every_form_of_the_report_says_it(tiny, films, tmp_path, off):
    compare(study(), out=tmp_path, model=tiny, task=films)
    markdown, html = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert "| `prompt_tuning`‡ " in markdown
    assert (
        "‡ `prompt_tuning`, seed 0, has no export, its scores stand: the export, loaded again, is"
        in markdown
    )
    assert (
        '<span class="label">prompt_tuning</span>‡' in html
        and "has no export, its scores stand: the export" in html
    )
    table = pd.read_parquet(tmp_path / "runs.parquet")
    assert (
        table.status.tolist() == ["done"] and "away from what was measured" in table.export_error[0]
    )
    shown = io.StringIO()
    print_report(load_results(tmp_path), Console(file=shown, width=200))
    assert (
        "prompt_tuning‡" in shown.getvalue()
        and "‡ no export prompt_tuning, seed 0, its scores stand:" in shown.getvalue()
    )


def test_who_wants_to_use_it_is_told_why_not(tiny, films, tmp_path, off):
    compare(study(), out=tmp_path / "s", model=tiny, task=films)
    run = tmp_path / "s/films/prompt_tuning/seed0"
    says = "seed0 has no export: the export, loaded again, is .* The run stands as it is"
    for use in (
        load_prompt,
        lambda run: export_run(run, "json", tmp_path / "e", model=tiny),
        lambda run: verify(run, tiny),
    ):
        with pytest.raises(PromptError, match=says):
            use(run)
    for command in (
        ["apply", run],
        ["verify", run],
        ["export", run, "--to", "json", "--out", tmp_path / "e"],
    ):
        found = CliRunner().invoke(app, [str(part) for part in command], input='{"text": "x"}\n')
        assert (
            found.exit_code == 2
            and "has no export: the export" in found.stderr
            and "Traceback" not in found.output
        )


def test_another_run_starts_from_it(tiny, films, tmp_path, off):
    results = compare(study(WORDS), out=tmp_path, model=tiny, task=films)
    assert (
        not results.failed and result(tmp_path, "nearest_tokens")["start"]["run"] == "prompt_tuning"
    )


def test_another_run_says_why_it_cannot(tiny, films, tmp_path, off):
    compare(study(), out=tmp_path, model=tiny, task=films)
    next((tmp_path / "films/prompt_tuning/seed0/unexported").glob("*.safetensors")).unlink()
    results = compare(study(WORDS), out=tmp_path, model=tiny, task=films)
    assert [run.label for run in results.runs] == ["prompt_tuning"]
    assert "cannot read the numbers of a soft prompt" in results.failed[0].error


def test_the_next_call_tries_the_export_again(tiny, films, tmp_path, off):
    compare(study(), out=tmp_path, model=tiny, task=films)
    before = result(tmp_path, "prompt_tuning")
    off.undo()
    compare(study(), out=tmp_path, model=tiny, task=films)
    run = tmp_path / "films/prompt_tuning/seed0"
    assert result(tmp_path, "prompt_tuning") == {**before, "export": None}
    assert not (run / "unexported").exists() and verify(run, tiny).same
    assert "no export" not in (tmp_path / "report.md").read_text()


def test_winners_of_words_are_exported_again_and_started_from_too(tiny, films, tmp_path, off):
    rows = ["random", {"coordinate": {"start": {"run": "random"}}}]
    rows.append({"exemplars_nearest": {"shots": 2, "budget": 20_000}})  # its store is in no result
    results = compare(study(*rows), out=tmp_path, model=tiny, task=films)
    assert not results.failed and all(run.export for run in results.runs)
    off.undo()
    results = compare(study(*rows), out=tmp_path, model=tiny, task=films)
    assert not any(run.export for run in results.runs) and not results.failed
