"""What makes winners win: changed prompts, their losses, and how they come into the report."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from promptsearch import HardPrompt, TextPrompt, VerbalizedPrompt, compare, load_prompt
from promptsearch.cli import app
from promptsearch.errors import ExportError, RecordError, StudyError
from promptsearch.records.explained import EXPLAINED
from promptsearch.records.load import load_results
from promptsearch.report import write_report
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.slim import write_slim_record
from promptsearch.study.changes import ORDERS, PIECES, changes_of, pieces_of
from promptsearch.study.config import load_config
from promptsearch.study.explain import explain
from promptsearch.study.finished import is_finished
from promptsearch.study.prepare import prepare


@pytest.fixture(scope="module")
def made(study, tmp_path_factory):
    """A study file whose runs are made, and the folder where they lie."""
    folder = tmp_path_factory.mktemp("explained")
    rows = [{"random": {"batch": 4}}, {"manual": {"prompts": ["good movie"]}}]
    config = study(length=3, strategies=rows)
    compare(config, out=folder)
    return config, folder


def test_the_winner_of_each_search_is_scored_without_its_pieces(made):
    config, folder = made
    (found,) = explain(config, folder, lambda told: None).winners  # `manual` does not search
    runs = {(run.label, run.seed): run for run in load_results(folder).runs}
    best = min((run for run in runs.values() if run.searches), key=lambda run: run.select.loss)
    assert (found.label, found.seed, found.key) == ("random", best.seed, best.winner.key)
    assert found.loss == pytest.approx(best.select.loss, abs=1e-5)

    arena = prepare(config).arena(prepare(config).tasks[0])
    ids = load_prompt(folder / "several" / "random" / f"seed{best.seed}").prompt.ids
    assert found.pieces == tuple(arena.lm.decode([i]) for i in ids)
    wanted = {
        ("without", 2): arena.space.beginning(ids[:2]),
        ("without", 0): arena.space.beginning(ids[1:]),
        ("near", 1): HardPrompt([ids[0], arena.space.neighbours([ids[1]], 1)[0, 0], ids[2]]),
    }
    own, *others = (
        arena.exact["select"].score([prompt], np.arange(8)).losses[0]
        for prompt in (HardPrompt(ids), *wanted.values())
    )
    for (way, place), losses in zip(wanted, others, strict=True):
        change = next(each for each in found.changes if (each.way, each.place) == (way, place))
        assert change.loss == pytest.approx((losses - own).mean(), abs=1e-5)
        assert change.error == pytest.approx((losses - own).std(ddof=1) / 8**0.5, abs=1e-5)
    shuffled = [change.text for change in found.changes if change.way == "shuffled"]
    assert len(set(shuffled)) == len(shuffled) == 5 and best.winner.text not in shuffled


def test_it_is_in_the_report_and_the_slim_record_and_is_not_made_twice(made, tmp_path, monkeypatch):
    config, folder = made
    explain(config, folder, lambda told: None)
    monkeypatch.setattr("promptsearch.study.explain.winner_of", None)  # nothing is left to score
    explain(config, folder, lambda told: None)
    results = load_results(folder)
    for page in (to_markdown(results), to_html(results)):
        assert "What makes winners win" in page and "shuffled" in page
    write_report(folder)
    write_slim_record(folder, tmp_path / folder.name)
    assert load_results(tmp_path / folder.name).explained == results.explained
    assert (tmp_path / folder.name / "report.md").read_bytes() == (
        folder / "report.md"
    ).read_bytes()
    path = tmp_path / folder.name / EXPLAINED
    path.write_text(path.read_text().replace('"seed": ', '"seed": 1'))
    with pytest.raises(RecordError, match=r"explained\.json is damaged.*run `promptsearch explain"):
        load_results(tmp_path / folder.name)


def test_the_command_leaves_a_finished_study_finished(home, tmp_path):
    keys = [f"--set={key}" for key in ("length=2", "seeds=1", "strategies=[random]")]
    study = [str(home / "study.yaml"), *keys, f"--out={tmp_path / 's'}", "--quiet"]
    config = load_config(home / "study.yaml", [key.removeprefix("--set=") for key in keys])
    assert CliRunner().invoke(app, ["compare", *study]).exit_code == 0
    assert is_finished(tmp_path / "s", config)
    done = CliRunner().invoke(app, ["explain", *study])
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert is_finished(tmp_path / "s", config)
    assert "What makes winners win" in (tmp_path / "s" / "report.md").read_text("utf-8")


def test_a_winner_whose_export_failed_is_explained_from_its_record(study, tmp_path, monkeypatch):
    def fail(*given):
        raise ExportError("no export")

    config = study(strategies=["random"], seeds=1)
    with monkeypatch.context() as patch:
        patch.setattr("promptsearch.study.publish.export_best", fail)
        compare(config, out=tmp_path)
    (found,) = explain(config, tmp_path, lambda told: None).winners
    assert found.label == "random" and found.changes


def test_seeds_that_the_study_file_no_longer_has_are_passed_over(study, tmp_path):
    keys = {"strategies": ["random"], "draw": "seed"}
    compare(study(**keys, seeds=2), out=tmp_path)
    (found,) = explain(study(**keys, seeds=[1]), tmp_path, lambda told: None).winners
    assert (found.label, found.seed) == ("random", 1)


def test_another_study_is_refused(made, study, tmp_path):
    config, folder = made
    shutil.copytree(folder, tmp_path / "s")
    (tmp_path / "s" / EXPLAINED).unlink(missing_ok=True)
    task = {**config.tasks[0].model_dump(), "template": "{prompt} {text} That was{answer}"}
    other = study(length=3, strategies=["random"], task=task)
    with pytest.raises(StudyError, match=r"select loss of .* expected the study file, the data"):
        explain(other, tmp_path / "s", lambda told: None)
    with pytest.raises(StudyError, match="expected the folder of a study"):
        explain(config, tmp_path, lambda told: None)


@given(st.lists(st.text("ab \n", max_size=40).filter(str.strip) | st.just(""), min_size=1))
def test_the_pieces_of_a_text_make_it_up(texts):
    prompt = TextPrompt(texts)
    pieces = pieces_of(prompt, None, None, None)
    count = len(pieces.shown)
    assert pieces.ordered(range(count)) == prompt and count <= PIECES * len(texts)
    changes = changes_of(pieces, np.random.default_rng(0))
    letters = sum(len(text.replace(" ", "").replace("\n", "")) for text in texts)
    for change in changes:
        left = sum(len(text.replace(" ", "").replace("\n", "")) for text in change.prompt.texts)
        gone = pieces.shown[change.place] if change.way == "without" else ""
        assert left == letters - len(gone.replace(" ", "").replace("\n", ""))
    orders = [change.prompt for change in changes if change.way == "shuffled"]
    assert len(set(orders)) == len(orders) <= ORDERS and prompt not in orders


def test_a_text_of_lines_loses_lines_and_one_of_words_words():
    for text, shown in (
        ("good film is good\nbad film is bad\n", ("good film is good", "bad film is bad")),
        ("It was really", ("It", "was", "really")),
    ):
        pieces = pieces_of(TextPrompt(text), None, None, None)
        assert pieces.shown == shown
        left = pieces.without(0).texts[0]
        assert left == text.partition(shown[0])[2].lstrip(" \n")


def test_a_winner_keeps_its_answer_words_while_its_words_change(tiny, films, study, tmp_path):
    rows = [{"verbalizer": {"prompts": ["It was good", "This was a film"], "words": 1}}]
    config = study(length=3, strategies=rows, budget=20_000)
    compare(config, out=tmp_path)
    (found,) = explain(config, tmp_path, lambda told: None).winners
    run = min(load_results(tmp_path).runs, key=lambda run: run.select.loss)
    assert (found.label, found.key) == ("verbalizer", run.winner.key)
    prompt = load_prompt(tmp_path / run.task / "verbalizer" / f"seed{run.seed}").prompt
    assert isinstance(prompt, VerbalizedPrompt)
    pieces = pieces_of(prompt, None, None, None)
    assert found.pieces == pieces.shown == pieces_of(prompt.words, None, None, None).shown
    prepared = prepare(config)
    scorer = prepared.arena(prepared.tasks[0]).exact["select"]
    changed = [change.prompt for change in changes_of(pieces, np.random.default_rng(run.seed))]
    assert {each.answers for each in changed} == {prompt.answers}
    own, *others = scorer.score([prompt, *changed], np.arange(8)).losses
    for change, losses in zip(found.changes, others, strict=True):
        assert change.loss == pytest.approx((losses - own).mean(), abs=1e-5)
