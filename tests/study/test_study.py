"""Whole studies on a tiny model.

Equal budgets, one look at the test split, resuming after SIGKILL at any moment.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock

from promptsearch import TextPrompt, TrainedStrategy, compare, load_prompt
from promptsearch.errors import PromptError, RecordError, StrategyError, StudyError, UnknownName
from promptsearch.prompts.hard import HardPrompt
from promptsearch.records.log import RunLog
from promptsearch.scoring import Engine
from promptsearch.search.calls import SHOWN
from promptsearch.search.objective import FINALISTS, SELECTED, Objective
from promptsearch.search.plugins import find_strategy as find
from promptsearch.search.strategy import Strategy
from promptsearch.study.anytime import POINTS
from promptsearch.study.execution.lease import held
from promptsearch.tasks.template import Template
from promptsearch.testing.doors import doors
from promptsearch.testing.rerun import results_of, without_times
from promptsearch.testing.tiny_task import tiny_study as study

pytestmark = pytest.mark.usefixtures("unreported")

MANUAL = {"manual": {"prompts": ["good movie?", "It was"]}}
EVERY = [
    MANUAL,
    "random",
    {"evolution": {"batch": 4}},
    {"optuna": {"label": "tpe", "sampler": "tpe", "shortlist": 8}},
    {"optuna": {"label": "nsga2", "sampler": "nsga2"}},
    {"beam": {"width": 2}},
    "coordinate",
    {"genetic": {"population": 4, "children": 4}},
    {"bayesian": {"first": 4, "batch": 4, "candidates": 100}},
    {"bdpl": {"batch": 4}},
    {"rlprompt": {"batch": 4}},
    {"grips": {"prompts": ["good movie?"]}},
    {"prune": {"shots": 1}},
    {"joint": {"prompts": ["good movie?"], "proposals": 0, "shots": 1}},
    "llm_proposed",
    {"llm_evolution": {"prompts": ["good movie?", "It was"]}},
    {"reflect": {"prompts": ["good movie?"], "minibatch": 4, "examples": 1, "longest": 12}},
    {"autoprompt": {"batch": 4}},
    {"gcg": {"batch": 4, "width": 4}},
    {"pez": {"batch": 4, "interval": 1, "rate": 0.5}},
    {"black_box_tuning": {"dimensions": 4}},
    {"prompt_tuning": {"interval": 2, "batch": 4}},
    {
        "prompt_tuning": {
            "label": "adafactor",
            "interval": 2,
            "batch": 4,
            "optimizer": "adafactor",
            "rate": "auto",
        }
    },
    {"p_tuning": {"interval": 2, "batch": 4, "encoder": "lstm", "hidden": 8}},
    {"p_tuning_lm": {"interval": 1, "batch": 4, "encoder": "lstm", "hidden": 8}},
    {"prefix_tuning": {"interval": 2, "batch": 4, "hidden": 8}},
    {"llama_adapter": {"interval": 2, "batch": 4}},
    {"fine_tuning": {"interval": 1, "batch": 4}},
    {"fine_tuning_top2": {"interval": 1, "batch": 4}},
    {"adapter": {"interval": 1, "batch": 4, "share": 0.1}},
    {"lora": {"interval": 1, "batch": 4, "rank": 2}},
]
#: Durable writes of a run, from its beginning, after which it may be killed.
MOMENTS = (3, 9)


def log_of(folder):
    lines = [
        json.loads(line)
        for path in sorted(folder.rglob("evaluations.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return without_times(lines)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where `study` is finished, with its `cache`, and its runs as they were on the way: `torn`.

    All processes of this call of pytest share it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def finished(place, tiny, films):
    """One study of every strategy, not interrupted; what a kill would have left is copied."""
    folder, run, writes = place / "study", "", 0

    def follow(progress):
        nonlocal run, writes
        if progress.run != run:
            run, writes = progress.run, 0

    def copied(file):
        nonlocal writes
        writes += 1
        if run and writes in MOMENTS and not (folder / run / "result.json").exists():
            shutil.copytree(folder / run, place / "torn" / str(writes) / run)

    with FileLock(place / "lock"), pytest.MonkeyPatch.context() as patch:
        if (place / "whole").exists():  # another process made it
            return folder
        patch.setattr("promptsearch.study.study.cache_folder", lambda: place / "cache")
        patch.setattr(os, "fsync", copied)
        compare(study(EVERY), out=folder, model=tiny, task=films, progress=follow)
        (place / "whole").touch()
    return folder


def test_every_run_ends_within_its_budget_and_tells_what_it_spent(finished):
    found = results_of(finished)
    assert len(found) == len(EVERY) and {r["status"] for r in found.values()} == {"done"}
    for run in found.values():
        assert run["spent"] <= 6_000
        assert (
            run["spent"]
            == run["ledger"]["forward"] + run["ledger"]["backward"] + run["ledger"]["proposer"]
        )
        assert run["test"]["loss"] == pytest.approx(np.mean(run["test"]["losses"]))
        losses = [loss for _, loss in run["curve"]]
        assert losses == sorted(losses, reverse=True)
    assert found["films/prompt_tuning/seed0"]["ledger"]["backward"] > 0
    assert found["films/random/seed0"]["ledger"]["backward"] == 0
    assert found["films/prompt_tuning/seed0"]["paper"]["count"] == 30_000
    assert found["films/random/seed0"]["paper"] is None


def test_the_test_split_is_read_once_after_the_winner_is_chosen(finished):
    for path in finished.rglob("evaluations.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        stages = [
            line["stage"] for line in lines if line["stage"] not in SHOWN
        ]  # which changes nothing
        assert stages[-3:] == ["rescore", "select", "test"] and stages.count("test") == 1
        assert set(stages[:-3]) == {"search"}
        assert len(lines[-1]["prompts"]) == 1


def test_the_winner_has_the_lowest_loss_over_both_splits_among_the_best_of_the_search(finished):
    for name, run in results_of(finished).items():
        lines = [
            json.loads(line)
            for line in (finished / name / "evaluations.jsonl").read_text().splitlines()
        ]
        scored = {
            p["key"]: np.mean(row)
            for line in lines
            if line["stage"] == "search" and line["examples"] == "score_on"
            for p, row in zip(line["prompts"], line["losses"], strict=True)
            if row is not None  # one that could not be paid any more
        }
        best = sorted(scored.values())[: find(run["strategy"]).finalists]
        rescored, halved, tested = [
            line for line in lines if line["stage"] not in ("search", *SHOWN)
        ]
        assert sorted(scored[p["key"]] for p in rescored["prompts"]) == best
        assert halved["prompts"] == rescored["prompts"]
        # Of those that saw both splits whole, the one with the lowest mean over both.
        means = {
            p["key"]: np.mean([*searched, *fresh])
            for p, searched, fresh in zip(
                halved["prompts"], rescored["losses"], halved["losses"], strict=True
            )
            if None not in fresh
        }
        assert 0 < len(means) <= SELECTED and min(means, key=means.get) == run["winner"]["key"]
        place = [p["key"] for p in halved["prompts"]].index(run["winner"]["key"])
        assert run["select"]["losses"] == halved["losses"][place]
        assert run["winner"]["key"] == tested["prompts"][0]["key"]


def test_the_select_loss_of_the_best_so_far_is_shown_and_not_charged(finished, tiny, films):
    for name, run in results_of(finished).items():
        lines = [
            json.loads(line)
            for line in (finished / name / "evaluations.jsonl").read_text().splitlines()
        ]
        shown = [line for line in lines if line["stage"] == "anytime"]
        assert [line["ledger"]["forward"] for line in shown] == [
            lines[lines.index(line) - 1]["ledger"]["forward"] for line in shown
        ]
        tokens = [spent for spent, _ in run["select_curve"]]
        assert tokens == sorted(tokens) and len(tokens) <= POINTS
        if run["winner"]["kind"] not in ("hard", "text"):  # the numbers of most are gone by then
            continue
        assert tokens[0] == run["curve"][0][0]
        first = next(line for line in lines if line["stage"] == "search")
        places = [i for i, row in enumerate(first["losses"]) if row is not None and None not in row]
        best = min(places, key=lambda i: np.mean(first["losses"][i]))
        assert shown[0]["prompts"][0] == first["prompts"][best]
        assert run["select_curve"][0][1] == pytest.approx(np.mean(shown[0]["losses"][0]))


def test_law_1_the_exported_winner_loaded_again_has_the_reported_loss(finished, tiny, films):
    for name, run in results_of(finished).items():
        saved = load_prompt(finished / name)
        engine = Engine(tiny, saved.template, films.splits["test"], saved.choices)
        again = engine.score([saved.prompt], np.arange(20)).losses[0]
        assert again.mean() == pytest.approx(run["test"]["loss"], abs=1e-5), name
        assert saved.verify(tiny) < 1e-5


def test_a_finished_study_run_again_changes_nothing_and_can_be_extended(
    finished, tiny, films, tmp_path
):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before, log = results_of(folder), log_of(folder)
    compare(study(EVERY), out=folder, model=tiny, task=films)
    assert results_of(folder) == before and log_of(folder) == log
    found = compare(study(["random"], seeds=2), out=folder, model=tiny, task=films)
    after = results_of(folder)
    assert set(after) - set(before) == {"films/random/seed1"} and len(found.runs) == len(EVERY) + 1
    settings = json.loads((folder / "study.json").read_text())["settings"]
    assert len(settings["strategies"]) == len(EVERY) and settings["seeds"] == [0, 1]
    assert {name: run for name, run in after.items() if name in before} == before


def test_what_is_no_longer_asked_for_is_neither_failing_nor_to_be_made(tiny, films, tmp_path):
    rows = [f"{__name__}:Crashes", "random"]
    before = compare(study(rows, seeds=2), out=tmp_path, model=tiny, task=films)
    assert len(before.failing) == len(before.failed) == 2
    after = compare(study(["random"], seeds=3), out=tmp_path, model=tiny, task=films)
    assert (len(after.failed), after.failing, after.unfinished) == (2, (), ())
    again = compare(study(rows, seeds=2), out=tmp_path, model=tiny, task=films)
    assert len(again.failing) == 2 and again.unfinished == ()


def test_runs_that_train_say_how_it_went_and_what_the_empty_prompt_is_worth(
    finished, tiny, films, tmp_path
):
    compare(study(["manual"]), out=tmp_path, model=tiny, task=films)
    empty = results_of(tmp_path)["films/manual/seed0"]["select"]["loss"]
    for name, run in results_of(finished).items():
        if not issubclass(find(run["strategy"]), TrainedStrategy):
            assert run["training"] is None
            continue
        told = run["training"]
        assert (
            told["empty"] == pytest.approx(empty, abs=1e-5)
            and told["winner"] == run["select"]["loss"]
        ), name
        lines = [
            json.loads(line)
            for line in (finished / name / "evaluations.jsonl").read_text().splitlines()
        ]
        searched = [np.mean(line["losses"][0]) for line in lines if line["stage"] == "search"]
        assert (told["before"], told["after"]) == (
            pytest.approx(searched[0]),
            pytest.approx(min(searched)),
        )
        assert told["reached"] == 1 and told["steps"] > run["options"]["interval"] * (
            len(searched) - 2
        )
        several = (
            run["access"] == "weights" or run["strategy"] == "llama_adapter"
        )  # tensors, of no common scale
        stands = (
            run["strategy"] == "pez"
        )  # it is scored as words, which a short training may leave as they were
        assert (
            told["moved"] is None
            if several
            else told["moved"] > 0 or (stands and told["moved"] == 0)
        ), name
        (shown,) = [line for line in lines if line["stage"] == "empty"]
        assert shown["ledger"] == lines[lines.index(shown) - 1]["ledger"], "shown, not charged"


def test_a_training_that_diverges_keeps_the_best_prompt_before_and_says_why(
    tiny, films, tmp_path, monkeypatch
):
    loss, calls = Engine.loss, []

    def spoilt(self, rows, examples, visit):
        calls.append(examples)
        return loss(self, rows * float("nan") if len(calls) > 5 else rows, examples, visit)

    monkeypatch.setattr(Engine, "loss", spoilt)
    found = compare(
        study([{"prompt_tuning": {"interval": 2, "batch": 4}}]),
        out=tmp_path,
        model=tiny,
        task=films,
    )
    assert not found.failed
    run = results_of(tmp_path)["films/prompt_tuning/seed0"]
    assert "not finite: lower the rate" in run["stopped"]
    assert run["training"]["findings"][0] == f"it diverged: {run['stopped']}"
    assert run["training"]["steps"] == 5 and run["curve"][-1][1] <= run["training"]["before"]
    assert load_prompt(tmp_path / "films/prompt_tuning/seed0").verify(tiny) < 1e-5


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"budget": 10_000}, "budget was 6000, now it is 10000"),
        ({"length": 3}, "length was 2"),
        ({"pool": ["the"]}, "pool was"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_lost(
    finished, tiny, films, changes, key, tmp_path
):
    shutil.copytree(finished, folder := tmp_path / "copy")
    before = results_of(folder)
    with pytest.raises(StudyError, match=f"made with other settings: {key}"):
        compare(study(["random"], **changes), out=folder, model=tiny, task=films)
    with pytest.raises(StudyError, match="options was"):
        compare(study([{"random": {"batch": 3}}]), out=folder, model=tiny, task=films)
    assert results_of(folder) == before


def test_same_numbers_whatever_the_cache_holds_and_in_whatever_order(
    finished, place, tiny, films, tmp_path, monkeypatch
):
    shutil.copytree(place / "cache", tmp_path / "cache")
    monkeypatch.setattr("promptsearch.study.study.cache_folder", lambda: tmp_path / "cache")
    compare(study(EVERY[::-1]), out=tmp_path / "study", model=tiny, task=films)
    again = results_of(tmp_path / "study")
    assert again["films/random/seed0"]["ledger"]["cached"] > 0, "what the first study scored"
    assert without_times(again) == without_times(results_of(finished))
    assert log_of(tmp_path / "study") == log_of(finished)


@pytest.mark.parametrize(
    "strategy",
    EVERY,
    ids=lambda s: s if isinstance(s, str) else next(iter(s.values())).get("label", next(iter(s))),
)
def test_a_run_killed_at_any_moment_ends_with_the_same_winner_losses_and_ledger(
    strategy, finished, tiny, films, tmp_path, killed_at
):
    label = (
        strategy
        if isinstance(strategy, str)
        else next(iter(strategy.values())).get("label", next(iter(strategy)))
    )
    name = f"films/{label}/seed0"

    def work():
        compare(study([strategy]), out=tmp_path, model=tiny, task=films)

    # Each kill strikes the process that resumed after the one before, a little later: many deaths
    # in one run.
    deaths = sum(killed_at(moment, work) for moment in (3, 1, 4, 9))
    assert deaths >= 3
    work()
    assert without_times(results_of(tmp_path)[name]) == without_times(results_of(finished)[name])
    assert log_of(tmp_path) == log_of(finished / name)


@pytest.mark.parametrize("moment", MOMENTS)
def test_runs_that_died_once_go_on_to_the_same_end(moment, finished, place, tiny, films, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    torn = sorted((place / "torn" / str(moment)).glob("*/*/seed0"))
    for run in torn:
        name = run.relative_to(place / "torn" / str(moment))
        shutil.rmtree(folder / name)
        shutil.copytree(run, folder / name)
    assert len(results_of(folder)) == len(EVERY) - len(torn) <= len(EVERY) // 2
    compare(study(EVERY), out=folder, model=tiny, task=films)
    assert without_times(results_of(folder)) == without_times(results_of(finished))
    assert log_of(folder) == log_of(finished)


@pytest.mark.parametrize("strategy", ["random", "evolution"])
def test_a_race_that_is_killed_ends_the_same(strategy, tiny, films, tmp_path, killed_at):
    def work(folder):
        compare(
            study([strategy], budget=9_000, race=True, score_on=40),
            out=folder,
            model=tiny,
            task=films,
        )

    work(tmp_path / "whole")
    name = f"films/{strategy}/seed0"
    lines = log_of(tmp_path / "whole" / name)
    assert any(None in row for line in lines for row in line["losses"] if row), (
        "some prompts were dropped on the way"
    )
    whole = results_of(tmp_path / "whole")[name]
    assert whole["spent"] <= whole["budget"] and whole["search"]["loss"] < float("inf")
    for moment in (4, 7):
        once = tmp_path / f"once{moment}"
        assert killed_at(moment, lambda once=once: work(once))
        work(once)
        assert (
            without_times(results_of(once)[name]) == without_times(whole)
            and log_of(once / name) == lines
        )


def test_a_half_written_last_line_is_dropped_and_other_damage_is_named(
    finished, tiny, films, tmp_path
):
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    run = folder / "films" / "random" / "seed0"
    (run / "result.json").unlink()
    log = run / "evaluations.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-40])
    compare(study(["random"]), out=folder, model=tiny, task=films)
    assert log_of(run) == log_of(finished / "films/random/seed0")
    (run / "result.json").unlink()
    lines = whole.splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], lines[1].replace(b"losses", b"loses"), *lines[2:]]))
    with pytest.raises(
        RecordError, match=r"evaluations.jsonl, line 2: this is not evaluation number 1"
    ):
        compare(study(["random"]), out=folder, model=tiny, task=films)
    assert log.read_bytes().count(b"\n") == len(lines), "a damaged log is left as it is"


# Strategies that break the contract.


class NoTokens(Strategy):
    """Proposes nothing at all."""

    def ask(self):
        return [HardPrompt([])]


class Needy(NoTokens):
    """Cannot do without its option.

    Args:
        words: The words that it needs.
    """

    def __init__(self, objective, *, seed, words: list[str]):
        super().__init__(objective, seed=seed)


class TooMany(NoTokens):
    """Proposes more tokens than there are places."""

    def ask(self):
        return [HardPrompt(self.objective.space.pool[:5])]


class OutOfPool(NoTokens):
    """Proposes a token that is not in the pool."""

    def ask(self):
        return [HardPrompt([0, 0])]


class OtherKind(NoTokens):
    """Proposes a kind that it did not name."""

    def ask(self):
        return [TextPrompt("x")]


class Crashes(NoTokens):
    """Has a bug."""

    def ask(self):
        raise ZeroDivisionError("by me")


class Peeks(NoTokens):
    """Looks for a way to the other splits."""

    def ask(self):
        assert not doors(self)
        return []


@pytest.mark.parametrize(
    ("strategy", "complaint"),
    [
        (NoTokens, "has 2 tokens, got 0"),
        (TooMany, "has 2 tokens, got 5"),
        (OutOfPool, r"the tokens \[0, 0\] are not in the pool"),
        (OtherKind, "returned TextPrompt; the class says that it proposes HardPrompt"),
        (Crashes, "Crashes.ask failed: ZeroDivisionError: by me"),
        (Peeks, "no prompt could be scored. The search ended because: nothing left to propose"),
    ],
)
def test_a_strategy_that_breaks_the_contract_is_named_and_the_others_run(
    strategy, complaint, tiny, films, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "promptsearch.study.entries.find_strategy",
        lambda name: strategy if name == "bad" else find(name),
    )
    found = compare(study(["bad", MANUAL]), out=tmp_path, model=tiny, task=films)
    assert [run.label for run in found.runs] == ["manual"]
    assert [run.label for run in found.failed] == ["bad"]
    import re

    assert re.search(complaint, found.failed[0].error)
    assert not (tmp_path / "films/bad/seed0/best").exists()


def test_wrong_input_is_refused_before_a_token_is_spent(tiny, films, tmp_path):
    out = tmp_path / "never"
    with pytest.raises(UnknownName, match="Did you mean 'random'"):
        compare(study(["randm"]), out=out, model=tiny, task=films)
    with pytest.raises(
        UnknownName, match="unknown option of strategy 'random' 'bach'. Did you mean 'batch'"
    ):
        compare(study([{"random": {"bach": 3}}]), out=out, model=tiny, task=films)
    with pytest.raises(StrategyError, match="option 'batch'.*got 'many'"):
        compare(study([{"random": {"batch": "many"}}]), out=out, model=tiny, task=films)
    with pytest.raises(StrategyError, match="needs the option 'words': The words"):
        compare(study([f"{__name__}:Needy"]), out=out, model=tiny, task=films)
    with pytest.raises(
        StudyError, match="a budget of 100 tokens is too small for 'random'.*cost [0-9]+ tokens"
    ):
        compare(study(["random"], budget=100), out=out, model=tiny, task=films)
    with pytest.raises(StudyError, match="'goodmovie' of the pool is . tokens"):
        compare(study(["random"], pool=["the", "goodmovie"]), out=out, model=tiny, task=films)
    with pytest.raises(StudyError, match="the pool wants 99999 words"):
        compare(study(["random"], pool=99_999), out=out, model=tiny, task=films)
    assert not list(out.rglob("evaluations.jsonl"))


def test_a_number_as_pool_takes_the_most_frequent_words(tiny, films, tmp_path):
    compare(
        study([{"random": {"batch": 4}}], pool=2, length=1), out=tmp_path, model=tiny, task=films
    )
    line = json.loads(
        (tmp_path / "films/random/seed0/evaluations.jsonl").read_text().splitlines()[0]
    )
    assert {i for p in line["prompts"] for i in p["ids"]} <= set(tiny.words[:2])


def test_two_processes_do_not_work_on_one_study(tiny, films, tmp_path):
    with (
        held(tmp_path, "study"),
        pytest.raises(
            StudyError,
            match=rf"another process works on the study .*\(process {os.getpid()} on .*, since 20",
        ),
    ):
        compare(study(["random"]), out=tmp_path, model=tiny, task=films)
    compare(study(["random"]), out=tmp_path, model=tiny, task=films)


def test_a_broken_model_fails_every_run_visibly(films, tmp_path, monkeypatch):
    import torch

    from promptsearch.models import LanguageModel
    from promptsearch.testing.tiny import tiny_model

    model, tokenizer = tiny_model("llama")
    broken = LanguageModel(model, tokenizer)
    monkeypatch.setattr(LanguageModel, "check", lambda *_, **__: None)  # it breaks after the check
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    found = compare(study(["random", "prompt_tuning"]), out=tmp_path, model=broken, task=films)
    assert not found.runs and len(found.failed) == 2
    assert (
        "the loss of prompt" in found.failed[0].error
        and "example 0 is nan" in found.failed[0].error
    )


def test_a_failed_run_is_tried_again(tiny, films, tmp_path, monkeypatch):
    monkeypatch.setattr("promptsearch.study.entries.find_strategy", lambda name: Crashes)
    assert compare(study(["bad"]), out=tmp_path, model=tiny, task=films).failed
    monkeypatch.setattr("promptsearch.study.entries.find_strategy", lambda name: find("random"))
    assert not compare(study(["bad"]), out=tmp_path, model=tiny, task=films).failed


def test_a_run_that_failed_before_it_scored_may_be_corrected(tiny, films, tmp_path):
    outside = study([{"coordinate": {"text": "!"}}])  # no word of the pool: known when it begins
    assert compare(outside, out=tmp_path, model=tiny, task=films).failed
    found = compare(study([{"coordinate": {"text": None}}]), out=tmp_path, model=tiny, task=films)
    assert not found.failed and found.runs[0].options == {"text": None}


def test_a_refused_call_leaves_the_record_of_the_study_as_it_is(tiny, films, tmp_path):
    compare(study([MANUAL]), out=tmp_path, model=tiny, task=films)
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(StudyError, match="options was"):
        rows = ["random", {"manual": {"prompts": ["other"]}}]
        compare(study(rows), out=tmp_path, model=tiny, task=films)
    assert (tmp_path / "study.json").read_bytes() == before
    assert not (tmp_path / "films" / "random").exists()


def test_where_a_dashboard_is_changes_no_number_and_may_move(tiny, films, tmp_path):
    def work(place, **more):
        rows = [{"optuna": {"storage": str(tmp_path / place), **more}}]
        return compare(study(rows), out=tmp_path / "out", model=tiny, task=films)

    work("a.db")
    assert not work("b.db").failed
    result = tmp_path / "out" / "films" / "optuna" / "seed0" / "result.json"
    before = without_times(results_of(tmp_path / "out"))
    result.unlink()
    assert not work("b.db").failed and (tmp_path / "b.db").exists()
    after = without_times(results_of(tmp_path / "out"))
    for found in (before, after):
        found["films/optuna/seed0"].pop("options")
    assert after == before
    with pytest.raises(StudyError, match="options was"):
        work("b.db", batch=4)


def test_what_was_proposed_for_other_settings_is_not_used_again(tiny, films, tmp_path, monkeypatch):
    def work(longest, out):
        rows = [{"llm_proposed": {"longest": longest}}]
        found = compare(study(rows), out=out, model=tiny, task=films)
        return without_times(results_of(out)), found.failed

    def stop(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunLog, "append", stop)
        work(4, tmp_path / "a")
    assert list((tmp_path / "a").rglob("proposals.jsonl"))
    assert work(5, tmp_path / "a") == work(5, tmp_path / "b")


def test_a_run_that_is_done_keeps_no_checkpoint(tiny, films, tmp_path):
    compare(study([MANUAL]), out=tmp_path, model=tiny, task=films)
    run = tmp_path / "films" / "manual" / "seed0"
    (run / "state.safetensors").write_bytes(b"large")
    (run / "finalists").mkdir()
    compare(study([MANUAL]), out=tmp_path, model=tiny, task=films)
    assert not (run / "state.safetensors").exists() and not (run / "finalists").exists()


def test_a_sweep_runs_every_strategy_at_every_length_and_texts_once_and_may_grow(
    tiny, films, tmp_path
):
    rows = [
        "manual",
        {"random": {"batch": 4}},
        {"random": {"label": "fixed", "batch": 4, "length": 4}},
    ]
    rows += [
        {"prompt_tuning": {"interval": 2, "batch": 4}},
        {"p_tuning_lm": {"interval": 1, "batch": 4, "hidden": 8}},
    ]
    rows += [{"lora": {"interval": 1, "batch": 4, "rank": 2}}]
    found = compare(study(rows, length=[1, 3]), out=tmp_path, model=tiny, task=films)
    labels = ["manual", "random-1", "random-3", "fixed", "prompt_tuning-1", "prompt_tuning-3"]
    labels += ["p_tuning_lm-1", "p_tuning_lm-3", "lora"]
    assert [run.label for run in found.runs] == labels == found.study.strategies
    assert [run.length for run in found.runs[1:]] == [1, 3, 4, 1, 3, 1, 3, 0]
    assert found.study.families == {
        label: label.rpartition("-")[0] for label in labels if "-" in label
    }
    assert found.study.settings["length"] == [1, 3]
    before = results_of(tmp_path)
    found = compare(study(rows, length=[2]), out=tmp_path, model=tiny, task=films)
    assert found.study.settings["length"] == [1, 2, 3] and len(found.runs) == 12
    after = results_of(tmp_path)
    assert {name: run for name, run in after.items() if name in before} == before
    with pytest.raises(StudyError, match=r"length was \[1, 2, 3\], now it is 2"):
        compare(study(rows, length=2), out=tmp_path, model=tiny, task=films)
    # The runs of a sweep are those that the length alone would have made.
    compare(study([rows[3]], length=3), out=tmp_path / "alone", model=tiny, task=films)
    alone = results_of(tmp_path / "alone")["films/prompt_tuning/seed0"]
    assert without_times(
        {**after["films/prompt_tuning-3/seed0"], "label": "prompt_tuning"}
    ) == without_times(alone)


def test_a_sweep_that_cannot_be_is_refused(tiny, films, tmp_path):
    fixed = replace(films, template=Template.parse("{prompt:2} {text} It was {answer}"))
    with pytest.raises(
        StudyError,
        match="'length' is a list, but the template of task 'films' fixes the length of each slot",
    ):
        compare(study(["random"], length=[1, 2]), out=tmp_path, model=tiny, task=fixed)
    rows = ["random", {"evolution": {"label": "random-2", "length": 3}}]
    with pytest.raises(StudyError, match="two rows would be called 'random-2'"):
        compare(study(rows, length=[1, 2]), out=tmp_path, model=tiny, task=films)


def test_other_words_in_the_file_of_the_pool_are_refused(tiny, films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool.txt").write_text("film\nis\nmovie\n")
    given = study([{"random": {"batch": 4}}], pool={"file": "pool.txt"})
    compare(given, out=tmp_path / "out", model=tiny, task=films)
    (tmp_path / "pool.txt").write_text("film\nis\nthe\n")
    with pytest.raises(
        StudyError, match="task 'films', the pool was of 3 tokens, now it is of 3 others"
    ):
        compare({**given, "seeds": 2}, out=tmp_path / "out", model=tiny, task=films)
    (tmp_path / "pool.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(StudyError, match="cannot read the pool .*not UTF-8"):
        compare(given, out=tmp_path / "out", model=tiny, task=films)


def test_max_seconds_ends_a_run_in_good_order(tiny, films, tmp_path, monkeypatch):
    # On this clock an evaluation takes a second, on whatever machine.
    monkeypatch.setattr(RunLog, "seconds", property(lambda log: float(len(log.lines))))
    found = compare(
        study(["random"], budget=10_000_000, max_seconds=2.5), out=tmp_path, model=tiny, task=films
    )
    assert (
        len(found.runs) == 1
        and "2.5 seconds are over" in results_of(tmp_path)["films/random/seed0"]["stopped"]
    )


def test_a_control_with_less_than_the_budget_is_ranked_and_read_again(tiny, films, tmp_path):
    few = {"manual": {**MANUAL["manual"], "budget": 4_000}}
    for _ in range(2):
        found = compare(study([few]), out=tmp_path, model=tiny, task=films)
        (run,) = found.runs
        assert run.budget == 4_000 < found.study.budget and run.control and not run.reference


def test_deterministic_strategies_run_once_whatever_the_seeds(tiny, films, tmp_path):
    compare(study([MANUAL, "random"], seeds=2), out=tmp_path, model=tiny, task=films)
    assert sorted(results_of(tmp_path)) == [
        "films/manual/seed0",
        "films/random/seed0",
        "films/random/seed1",
    ]


def test_exhaustive_finds_the_true_optimum_and_gives_the_others_their_regret(tiny, films, tmp_path):
    given = study(
        [{"exhaustive": {"budget": 40_000}}, "random"], pool=["film", "is", "movie", "the"]
    )
    found = compare(given, out=tmp_path, model=tiny, task=films)
    runs = {run.label: run for run in found.runs}
    assert runs["exhaustive"].reference and not runs["random"].reference
    ids = [tiny.encode(f" {w}")[0] for w in ("film", "is", "movie", "the")]
    engine = Engine(tiny, films.template.bind(2), films.splits["search"], films.choices)
    losses = engine.score([HardPrompt([a, b]) for a in ids for b in ids], np.arange(8)).losses.mean(
        1
    )
    best = min(
        r["search"]["loss_fp32"]
        for r in [json.loads((tmp_path / "films/exhaustive/seed0/result.json").read_text())]
    )
    assert best == pytest.approx(losses.min(), abs=1e-5) or best in [
        pytest.approx(v, abs=1e-5) for v in sorted(losses)[:FINALISTS]
    ]
    text = (tmp_path / "films/exhaustive/seed0/evaluations.jsonl").read_text()
    (again,) = (line for line in map(json.loads, text.splitlines()) if line["stage"] == "rescore")
    assert min(np.mean(row) for row in again["losses"]) == pytest.approx(losses.min(), abs=1e-5)


def test_a_damaged_export_is_named(finished, tmp_path):
    folder = tmp_path / "best"
    shutil.copytree(finished / "films/prompt_tuning/seed0/best", folder)
    data = json.loads((folder / "prompt.json").read_text())
    (folder / "prompt.json").write_text(json.dumps({**data, "template": None}))
    with pytest.raises(PromptError, match="is damaged"):
        load_prompt(folder)
    (folder / "prompt.json").write_text(json.dumps(data))
    vectors = next(folder.glob("*.safetensors"))
    vectors.write_bytes(vectors.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(PromptError, match="does not have the content that its key names"):
        load_prompt(folder)
    with pytest.raises(PromptError, match="holds no prompt"):
        load_prompt(tmp_path / "nowhere")


def test_objective_is_all_that_a_strategy_gets():
    assert not {name for name in vars(Objective) if "select" in name or "test" in name}


def test_the_winner_of_a_large_seed_leaves(tiny, films, tmp_path):
    given = study(["random"], seeds=[2**32 - 1])
    (run,) = compare(given, out=tmp_path, model=tiny, task=films).runs
    assert run.export is None and load_prompt(tmp_path / "films" / "random" / f"seed{run.seed}")
