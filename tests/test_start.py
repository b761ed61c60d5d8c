"""Runs that start from another run's winner: order, bill, rank, errors, kills, plan and report."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from promptsearch import compare
from promptsearch.errors import RecordError, StudyError, UnknownName
from promptsearch.records.sealed import seal, unseal
from promptsearch.report import load_results
from promptsearch.report.frame import run_table
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.summary import summarise
from promptsearch.study.config import parse_config
from promptsearch.study.entries import entries_of
from promptsearch.study.forecast import forecast
from promptsearch.testing.rerun import without_times
from promptsearch.testing.tiny_task import tiny_study as study

SOFT = {"prompt_tuning": {"interval": 2, "batch": 4}}
WORDS = {"nearest_tokens": {"tries": 4, "start": {"run": "prompt_tuning"}}}
GREEDY = {"gcg": {"batch": 4, "width": 4, "start": {"run": "random"}}}


def result(folder, label, seed=0):
    return json.loads((folder / "films" / label / f"seed{seed}" / "result.json").read_text())


def lines(folder, label, seed=0):
    path = folder / "films" / label / f"seed{seed}" / "evaluations.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny, films):
    """Rows stand before those they start from, over two seeds, one of them in a chain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "promptsearch.study.study.cache_folder", lambda: tmp_path_factory.mktemp("cache")
        )
        folder = tmp_path_factory.mktemp("study")
        again = {
            "prompt_tuning": {
                "label": "again",
                "interval": 2,
                "batch": 4,
                "start": {"run": "nearest_tokens"},
            }
        }
        by_hand = {
            "prompt_tuning": {
                "label": "by_hand",
                "interval": 2,
                "batch": 4,
                "start": {"run": "manual"},
            }
        }
        manual = {"manual": {"prompts": ["good movie?"], "empty": False}}
        compare(
            study(
                [again, WORDS, GREEDY, SOFT, by_hand, manual, "random"], seeds=2, dtype="float32"
            ),
            out=folder,
            model=tiny,
            task=films,
        )
    return folder


def test_every_run_finishes_in_whatever_order_the_rows_stand(finished):
    found = load_results(finished)
    assert not found.failed and not found.unfinished
    assert found.study.strategies == [
        "again",
        "nearest_tokens",
        "gcg",
        "prompt_tuning",
        "by_hand",
        "manual",
        "random",
    ]


@pytest.mark.parametrize(
    ("label", "source"),
    [
        ("nearest_tokens", "prompt_tuning"),
        ("gcg", "random"),
        ("again", "nearest_tokens"),
        ("by_hand", "manual"),
    ],
)
def test_starts_from_the_winner_of_the_same_seed_and_brings_its_tokens_on_the_bill(
    finished, label, source
):
    for seed in (0, 1):
        at = 0 if source == "manual" else seed  # it is deterministic: it ran once
        before, run = result(finished, source, at), result(finished, label, seed)
        assert (run["start"]["run"], run["start"]["seed"]) == (source, at)
        assert run["start"]["key"] == before["winner"]["key"]
        assert run["ledger"]["brought"] == run["start"]["spent"] == before["spent"]
        own = sum(run["ledger"][kind] for kind in ("forward", "backward", "proposer"))
        assert run["spent"] == own + before["spent"] and own <= 6_000
        assert run["curve"][0][0] > before["spent"]


def test_the_first_prompt_is_what_the_winner_was(finished):
    for label, source in (("gcg", "random"), ("again", "nearest_tokens")):
        before, first = result(finished, source), lines(finished, label)[0]
        assert np.mean(first["losses"][0]) == pytest.approx(
            before["search"]["loss_fp32"], abs=1e-5
        ), label
    assert (
        lines(finished, "gcg")[0]["prompts"][0]["key"]
        == result(finished, "random")["winner"]["key"]
    )


def test_what_is_lost_from_vectors_to_words_stands_in_result_and_report(finished):
    run, soft = result(finished, "nearest_tokens"), result(finished, "prompt_tuning")
    for split in ("select", "test"):
        assert run["start"][split] == {key: soft[split][key] for key in ("loss", "metric")}
    assert run["start"]["kind"] == "soft" and run["winner"]["kind"] == "hard"
    found = load_results(finished)
    page, text = to_html(found), to_markdown(found)
    pair = f"{soft['test']['loss']:.3f} → {run['test']['loss']:.3f}"
    assert "From vectors to words" in page and pair in page
    assert "From vectors to words" in text and pair in text.replace("\\", "")
    assert f"{soft['spent']:,} brought" in page or "brought" in page
    table = run_table(found).set_index(["label", "seed"])
    assert table.loc[("nearest_tokens", 1), "start_run"] == "prompt_tuning"
    assert (
        table.loc[("nearest_tokens", 1), "ledger_brought"]
        == result(finished, "prompt_tuning", 1)["spent"]
    )


def test_a_row_whose_bill_may_exceed_the_budget_is_a_reference(finished):
    (task,) = summarise(load_results(finished))
    assert {row.label for row in task.rows if row.reference} == {
        "again",
        "nearest_tokens",
        "gcg",
        "by_hand",
    }


def test_two_rows_of_half_the_budget_are_ranked_as_one(tiny, films, tmp_path):
    half = [
        {"random": {"budget": 3_000}},
        {"gcg": {"batch": 4, "width": 4, "budget": 3_000, "start": {"run": "random"}}},
        {"evolution": {"batch": 4}},
    ]
    compare(study(half), out=tmp_path, model=tiny, task=films)
    (task,) = summarise(load_results(tmp_path))
    assert {row.label: row.reference for row in task.rows} == {
        "random": True,
        "gcg": False,
        "evolution": False,
    }
    assert result(tmp_path, "gcg")["spent"] <= 6_000


def test_in_a_sweep_a_row_starts_from_the_row_of_its_length(tiny, films, tmp_path):
    compare(study([SOFT, WORDS], length=[1, 2]), out=tmp_path, model=tiny, task=films)
    for length in (1, 2):
        run = result(tmp_path, f"nearest_tokens-{length}")
        assert run["start"]["run"] == f"prompt_tuning-{length}" and run["length"] == length


def of_two_tasks(folder, strategies, template="{prompt} {text} It was {answer}", **changes):
    """A study of two tasks of the same reviews, one with its answers in turn."""
    rows = [{"text": f"good film {i} I hate"[i % 5 :].strip(), "label": i % 2} for i in range(60)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "data": {"path": str(folder / "rows.jsonl")},
        "template": "{prompt} {text} It was {answer}",
        "label": "label",
        "splits": {"search": 24, "select": 8, "test": 8},
    }
    return {
        **study(strategies, budget=2_500, dtype="float32", **changes),
        "model": "given",
        "tasks": [
            {**task, "name": "films", "answers": {0: "bad", 1: "good"}},
            {**task, "name": "turned", "answers": {0: "good", 1: "bad"}, "template": template},
        ],
    }


def test_a_row_starts_from_the_winner_of_another_task(tiny, tmp_path, killed_at):
    """The source comes later, as a row and as a task; after a kill, nothing differs."""
    spot = {"prompt_tuning": {"label": "spot", "interval": 2, "batch": 4}}
    spot["prompt_tuning"]["start"] = {"run": "prompt_tuning", "task": "turned"}
    given = of_two_tasks(tmp_path, [spot, SOFT])

    def work(folder):
        return compare(given, out=folder, model=tiny)

    found = work(tmp_path / "whole")
    runs = {(run.task, run.label): run for run in found.runs}
    source = runs["turned", "prompt_tuning"]
    for task in ("films", "turned"):
        run = runs[task, "spot"]
        start = json.loads((tmp_path / "whole" / task / "spot/seed0/result.json").read_text())
        assert start["start"]["task"] == (None if task == "turned" else "turned")
        assert (run.start.key, run.start.spent) == (source.winner.key, source.spent)
        assert run.ledger.brought == source.spent
        log = (tmp_path / "whole" / task / "spot/seed0/evaluations.jsonl").read_text()
        assert json.loads(log.splitlines()[0])["prompts"][0]["key"] == source.winner.key
    table = run_table(found).set_index(["task", "label"])
    assert table.loc[("films", "spot"), "start_task"] == "turned"
    assert all(
        row.reference for task in summarise(found) for row in task.rows if row.label == "spot"
    )
    killed_at(40, lambda: work(tmp_path / "killed"))
    again = {(run.task, run.label): run for run in work(tmp_path / "killed").runs}
    for name, run in runs.items():
        assert (again[name].winner.key, again[name].spent) == (run.winner.key, run.spent)


def test_what_does_not_fit_from_task_to_task_is_refused(tiny, tmp_path):
    spot = {"prompt_tuning": {"label": "spot", "start": {"run": "prompt_tuning", "task": "turnd"}}}
    with pytest.raises(
        UnknownName, match="unknown task under 'start' of 'spot': 'turnd'. Did you mean 'turned'"
    ):
        compare(of_two_tasks(tmp_path, [spot, SOFT]), out=tmp_path / "a", model=tiny)
    spot["prompt_tuning"]["start"]["task"] = "turned"
    given = of_two_tasks(tmp_path, [spot, SOFT], "{prompt:3} {text} It was {answer}")
    with pytest.raises(StudyError, match="3 tokens, found on task 'turned', .* 'films' takes 2"):
        compare(given, out=tmp_path / "b", model=tiny)


def test_a_study_file_keeps_the_key(tiny):
    config = parse_config({**study([SOFT, WORDS]), "model": "m", "task": "capitals"})
    assert parse_config(config.model_dump(mode="json")) == config
    assert config.model_dump(mode="json")["strategies"][1]["nearest_tokens"]["start"] == {
        "run": "prompt_tuning"
    }
    assert (
        config.strategies[1].start.run == "prompt_tuning"
        and "start" not in config.strategies[1].options
    )


@pytest.mark.parametrize(
    ("strategies", "error", "says"),
    [
        ([{"gcg": {"start": {"run": "rando"}}}, "random"], UnknownName, "Did you mean 'random'"),
        ([{"gcg": {"start": {"run": "gcg"}}}], StudyError, "'gcg' names itself under 'start'"),
        (
            [{"beam": {"start": {"run": "random"}}}, "random"],
            StudyError,
            "'beam' starts from no other run",
        ),
        (
            [{"nearest_tokens": {"start": {"run": "random"}}}, "random"],
            StudyError,
            "whose winner is a HardPrompt: 'nearest_tokens' starts from SoftPrompt",
        ),
        (
            [{"gcg": {"start": {"run": "autoprompt"}}}, {"autoprompt": {"start": {"run": "gcg"}}}],
            StudyError,
            "in a circle: 'gcg' from 'autoprompt' from 'gcg'",
        ),
        (
            [{"gcg": {"length": 3, "start": {"run": "random"}}}, "random"],
            StudyError,
            "has 3 prompt tokens and starts from 'random'",
        ),
        (
            [{"evolution": {"length": 3, "start": {"run": "beam"}}}, "beam"],
            StudyError,
            "has 3 prompt tokens and starts from 'beam', which has 2: give both the same length",
        ),
        (
            [{"gcg": {"start": "random"}}, "random"],
            StudyError,
            r"start is 'random'; expected a mapping of keys to values",
        ),
        ([{"gcg": {"start": {"rum": "random"}}}, "random"], StudyError, "Did you mean 'run'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_spent(
    strategies, error, says, tiny, films, tmp_path
):
    with pytest.raises(error, match=says):
        compare(study(strategies), out=tmp_path / "out", model=tiny, task=films)
    assert not (tmp_path / "out").exists()


def test_a_text_is_a_start_for_prompts_of_any_length():
    rows = [
        {"manual": {"prompts": ["a"], "length": 1}},
        "beam",
        {"evolution": {"length": 3, "start": {"run": "manual"}}},
        {"grips": {"length": 3, "start": {"run": "beam"}}},  # where that ends with a text
    ]
    found = entries_of(parse_config({**study(rows), "model": "m", "task": "capitals"}))
    assert [entry.source for entry in found] == [None, None, "manual", "beam"]


MINE = """
from pathlib import Path
from promptsearch import HardPrompt, Strategy, TextPrompt
from promptsearch.testing.rerun import without_times


class Mine(Strategy):
    \"\"\"Fails, or proposes a text, while a file says so.\"\"\"

    proposes = frozenset({HardPrompt, TextPrompt})

    def ask(self):
        if Path("fails").exists():
            raise ValueError("no")
        if self.objective.log.lines:
            return []
        return [TextPrompt("good")] if Path("text").exists() else \
[self.objective.space.prompt([0, 1])]
"""


def test_a_run_whose_source_failed_fails_with_it_and_both_are_made_later(
    tiny, films, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_here.py").write_text(MINE)
    (tmp_path / "fails").touch()
    given = study(
        [{"mine_here:Mine": {"label": "mine"}}, {"gcg": {"batch": 4, "start": {"run": "mine"}}}]
    )
    compare(given, out=tmp_path / "out", model=tiny, task=films)
    failed = result(tmp_path / "out", "gcg")
    assert failed["status"] == "failed" and "'mine' with seed 0, failed" in failed["error"]
    (tmp_path / "fails").unlink()
    compare(given, out=tmp_path / "out", model=tiny, task=films)
    assert result(tmp_path / "out", "gcg")["status"] == "done"
    # One that is done stays so, whatever becomes of its source.
    (tmp_path / "out" / "films" / "mine" / "seed0" / "result.json").unlink()
    (tmp_path / "fails").touch()
    compare(given, out=tmp_path / "out", model=tiny, task=films)
    assert result(tmp_path / "out", "gcg")["status"] == "done"


def test_a_winner_of_a_kind_that_it_cannot_start_from_fails_the_run(
    tiny, films, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_there.py").write_text(MINE)
    (tmp_path / "text").touch()
    compare(
        study([{"mine_there:Mine": {"label": "mine"}}, {"pez": {"start": {"run": "mine"}}}]),
        out=tmp_path / "out",
        model=tiny,
        task=films,
    )
    assert "'mine' was won by a TextPrompt" in result(tmp_path / "out", "pez")["error"]


def test_another_winner_under_a_run_costs_that_run_alone(tiny, films, tmp_path):
    rows = ["random", {"gcg": {"batch": 4, "start": {"run": "random"}}}]
    compare(study(rows), out=tmp_path, model=tiny, task=films)
    run = tmp_path / "films" / "gcg" / "seed0"
    for name in ("run.json", "result.json"):
        about = unseal(json.loads((run / name).read_text()))
        about.get("settings", about)["start"]["key"] = "another"
        (run / name).write_text(json.dumps(seal(about)))
    rows.append({"manual": {"prompts": ["good movie?"]}})
    says = "started from the prompt another of 'random' with seed 0, which is won by .* delete"
    for begun in (False, True):
        with pytest.raises(RecordError, match=says):
            compare(study(rows), out=tmp_path, model=tiny, task=films)
        assert result(tmp_path, "manual")["status"] == "done"
        if not begun:
            assert result(tmp_path, "gcg")["start"]["key"] == "another", "it stays as it is"
            (run / "result.json").unlink()
    shutil.rmtree(run)  # as it was told
    assert not compare(study(rows), out=tmp_path, model=tiny, task=films).unfinished


def test_another_winner_in_the_settings_of_a_run_is_damage(tiny, films, tmp_path):
    given = study(["random", {"gcg": {"batch": 4, "start": {"run": "random"}}}])
    compare(given, out=tmp_path, model=tiny, task=films)
    path = tmp_path / "films" / "gcg" / "seed0" / "run.json"
    about = unseal(json.loads(path.read_text()))
    about["settings"]["start"]["key"] = "another"
    path.write_text(json.dumps(seal(about)))
    with pytest.raises(RecordError, match="its start is .*another"):
        compare(given, out=tmp_path, model=tiny, task=films)


def test_another_row_that_starts_from_a_run_is_refused_before_anything_is_made(
    tiny, films, tmp_path
):
    others = ["random", {"random": {"label": "other"}}]

    def row(start="random", batch=4):
        return {"gcg": {"batch": batch, "start": start and {"run": start}}}

    compare(study([*others, row()]), out=tmp_path, model=tiny, task=films)
    before = (tmp_path / "study.json").read_bytes()
    for changed, key in (
        (row(batch=5), "options was"),
        (row("other"), "start was"),
        (row(None), "start was"),
    ):
        rows = [{"random": {"label": "new"}}, *others, changed]
        with pytest.raises(StudyError, match=f"made with other settings: {key}"):
            compare(study(rows), out=tmp_path, model=tiny, task=films)
        assert (tmp_path / "study.json").read_bytes() == before
        assert not (tmp_path / "films" / "new").exists()
    compare(study([*others, row()]), out=tmp_path, model=tiny, task=films)


def test_a_run_waits_where_its_source_has_not_ended(tiny, films, tmp_path):
    given = study(["random", {"gcg": {"batch": 4, "start": {"run": "random"}}}])
    compare(given, out=tmp_path / "whole", model=tiny, task=films)
    compare(study(["random"]), out=tmp_path / "out", model=tiny, task=films)
    source = tmp_path / "out" / "films" / "random" / "seed0"
    (source / "result.json").unlink()
    log = source / "evaluations.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"losses", b"loses", 1))
    with pytest.raises(RecordError, match="evaluations.jsonl, line 1"):
        compare(given, out=tmp_path / "out", model=tiny, task=films)
    assert not (tmp_path / "out" / "films" / "gcg").exists()
    log.write_bytes(whole)
    compare(given, out=tmp_path / "out", model=tiny, task=films)
    ended = (result(tmp_path / place, "gcg") for place in ("out", "whole"))
    assert len({each["winner"]["key"] for each in ended}) == 1


def test_a_study_killed_at_any_moment_ends_with_the_same_numbers(tiny, films, tmp_path, killed_at):
    given = study(
        [WORDS, SOFT, GREEDY, "random", {"pez": {"batch": 4, "start": {"run": "gcg"}}}],
        budget=5_000,
    )

    def work(folder):
        compare(given, out=folder, model=tiny, task=films)

    work(tmp_path / "whole")
    deaths = 0
    while killed_at(2 + 7 * deaths, lambda: work(tmp_path / "killed")):
        deaths += 1
    work(tmp_path / "killed")
    assert deaths > 3
    for label in ("nearest_tokens", "prompt_tuning", "gcg", "random", "pez"):
        whole, killed = (
            without_times(result(tmp_path / name, label)) for name in ("whole", "killed")
        )
        assert whole == killed, label
        assert without_times(lines(tmp_path / "whole", label)) == without_times(
            lines(tmp_path / "killed", label)
        )


def test_plan_tells_the_bill_with_what_is_brought(tiny, films, tmp_path):
    given = study(
        [WORDS, SOFT, "random", {"autoprompt": {"batch": 4, "start": {"run": "random"}}}],
        budget=8_000,
    )
    found = forecast(parse_config({**given, "model": "given", "task": "capitals"}), tiny, films)
    assert [run.label for run in found.runs] == [
        "nearest_tokens",
        "prompt_tuning",
        "random",
        "autoprompt",
    ]
    compare(given, out=tmp_path, model=tiny, task=films)
    for run in found.runs:
        assert not run.error
        assert 1 / 1.5 < run.price / result(tmp_path, run.label)["spent"] < 1.5, run.label


def test_plan_says_which_runs_would_fail_with_the_one_they_start_from(
    tiny, films, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_too.py").write_text(MINE)
    (tmp_path / "fails").touch()
    given = study([{"gcg": {"start": {"run": "mine"}}}, {"mine_too:Mine": {"label": "mine"}}])
    found = forecast(parse_config({**given, "model": "given", "task": "capitals"}), tiny, films)
    assert "'mine', would fail" in found.runs[0].error and "failed" in found.runs[1].error
