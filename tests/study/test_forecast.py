"""The bill that `promptsearch plan` shows is the one that comes."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from promptsearch import Task, compare
from promptsearch.errors import StudyError
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.sealed import read_record, write_record
from promptsearch.report import load_results
from promptsearch.report.facts import facts
from promptsearch.report.forecast import duration, print_forecast
from promptsearch.scoring.engine import Engine
from promptsearch.strategies.random import Random
from promptsearch.study.calibration import Speed, calibrate, measure_noise
from promptsearch.study.config import parse_config
from promptsearch.study.forecast import forecast
from promptsearch.study.prepare import prepare
from promptsearch.study.spreading import schedule
from promptsearch.tasks.template import Template

pytestmark = pytest.mark.usefixtures("unreported")

BEHIND = "{text} {prompt} It was {answer}"
STRATEGIES = [
    {"manual": {"prompts": ["good movie?", "It was"]}},
    {"calibrated": {"prompts": ["good movie?"], "method": "contextual"}},
    {"exemplars_nearest": {"shots": 2}},
    "random",
    {"evolution": {"batch": 4}},
    {"optuna": {"label": "tpe", "shortlist": 8}},
    {"prompt_tuning": {"interval": 2, "batch": 4}},
    {"prefix_tuning": {"interval": 2, "batch": 4, "hidden": 8}},
    {"fine_tuning_top2": {"interval": 2, "batch": 4}},
    {"llama_adapter": {"interval": 2, "batch": 4}},
    {"p_tuning_lm": {"interval": 2, "batch": 4, "hidden": 8}},
]


WORDS = ["good", "film", "the", "story", "I", "hate", "capital", "bad", "It", "was"]


@pytest.fixture(scope="module")
def films():
    """Texts that begin differently, as real ones do."""
    rng = np.random.default_rng(0)
    rows = [
        {"text": " ".join(rng.choice(WORDS, rng.integers(6, 14))), "label": i % 2}
        for i in range(120)
    ]
    return Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 40, "select": 16, "test": 20},
        name="films",
    )


def study(strategies=STRATEGIES, **changes):
    given = {
        "name": "s",
        "model": "given",
        "task": "capitals",
        "budget": 9_000,
        "length": 2,
        "score_on": 8,
    }
    return {**given, "seeds": 1, "strategies": strategies, **changes}


def predicted(tiny, task, **changes):
    found = forecast(parse_config(study(**changes)), tiny, task)
    return found, {run.label: run for run in found.runs}


@pytest.mark.parametrize(
    ("template", "race"), [("{prompt} {text} It was {answer}", False), (BEHIND, True)]
)
def test_price_and_computed_tokens_are_those_of_the_runs(template, race, tiny, films, tmp_path):
    task = replace(films, template=Template.parse(template))
    _, runs = predicted(tiny, task, race=race, score_on=12, budget=7_000)
    compare(study(race=race, score_on=12, budget=7_000), out=tmp_path, model=tiny, task=task)
    for path in tmp_path.rglob("result.json"):
        result = json.loads(path.read_text())
        run = runs[result["label"]]
        assert 1 / 1.5 < run.price / result["spent"] < 1.5, run.label
        exact = (
            "manual",
            "calibrated",
            "exemplars_nearest",
            "random",
            "prompt_tuning",
            "prefix_tuning",
            "llama_adapter",
            "fine_tuning_top2",
            "p_tuning_lm",
        )
        if run.label in exact and not race:
            assert run.price == result["spent"]
            assert run.proposals == result["proposals"]
        if result["ledger"]["cached"] == 0 and run.label != "manual":
            assert 1 / 1.5 < run.computed / result["ledger"]["computed"] < 1.5, run.label


@pytest.mark.parametrize("template", ["{prompt} {text} It was {answer}", BEHIND])
@pytest.mark.parametrize("words", [2, 40])
def test_the_engine_computes_what_its_plan_says(template, words, tiny, films):
    task = replace(films, template=Template.parse(template))
    arena = prepare(parse_config(study()), tiny, task).arena(task)
    prompts = [
        TextPrompt(" ".join(["good", "film", "story", "hate"][(i + j) % 4] for j in range(words)))
        for i in range(4)
    ]
    engine, ids = arena.searching, np.arange(16)
    engine.score(prompts[:1], ids)  # keeps what is kept
    said = engine.predict(prompts, ids)
    assert said.tokens == pytest.approx(engine.score(prompts, ids).computed, rel=0.1)
    assert said.cost > said.tokens


def uneven(arena, trains):
    """As measured, with prompts that differ clearly."""
    return replace(calibrate(arena, trains), means=np.array([0.1, 1.0, 2.0]), residual=0.1)


def test_a_race_is_predicted_to_cost_less_for_each_prompt(tiny, films, monkeypatch):
    monkeypatch.setattr("promptsearch.study.forecast.calibrate", uneven)
    given = {"strategies": ["random"], "score_on": 20, "budget": 40_000}
    _, whole = predicted(tiny, films, race=False, **given)
    _, raced = predicted(tiny, films, **given)
    assert raced["random"].proposals > whole["random"].proposals
    assert raced["random"].price <= 40_000


def test_a_rehearsal_writes_nothing(tiny, films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, runs = predicted(
        tiny, films, strategies=[{"optuna": {"storage": "shown.sqlite", "shortlist": 8}}]
    )
    assert runs["optuna"].proposals > 0 and list(tmp_path.iterdir()) == []


def test_a_strategy_that_would_fail_is_named_and_the_others_are_predicted(tiny, films):
    found, runs = predicted(tiny, films, strategies=["exhaustive", "random"])
    assert "set 'partial' to true" in runs["exhaustive"].error and not runs["random"].error
    console = Console(record=True, width=120)
    print_forecast(found, console)
    text = console.export_text()
    assert (
        "exhaustive would fail: " in text
        and "In all: about" in text
        and "4 GiB" not in text.splitlines()[1]
    )


def test_a_time_limit_ends_the_rehearsal_as_it_will_end_the_run(tiny, films, monkeypatch):
    def slow(arena, trains):
        return replace(calibrate(arena, trains), search=Speed(1.0, 0.0))

    monkeypatch.setattr("promptsearch.study.forecast.calibrate", slow)
    _, runs = predicted(
        tiny, films, strategies=[{"random": {"batch": 2}}], budget=10**9, max_seconds=5
    )
    # What the strategy itself takes counts, too: seconds on a busy machine.
    assert 2 <= runs["random"].proposals / 2 <= 7 and runs["random"].price < 10**6


def test_training_is_predicted_to_the_end_of_the_budget_whatever_its_patience(tiny, films):
    _, plain = predicted(tiny, films, strategies=[{"prompt_tuning": {"interval": 2, "batch": 4}}])
    _, patient = predicted(
        tiny, films, strategies=[{"prompt_tuning": {"interval": 2, "batch": 4, "patience": 2}}]
    )
    assert patient["prompt_tuning"].price == plain["prompt_tuning"].price > 5_000


def test_log_probabilities_of_the_choices_are_there_as_in_a_run(tiny, films, monkeypatch):
    seen = []
    monkeypatch.setattr(Random, "tell", lambda self, prompts, evaluation: seen.append(evaluation))
    predicted(tiny, films, strategies=["random"])
    table = seen[0].choices
    assert table.shape == (*seen[0].losses.shape, 2) and np.allclose(
        np.exp(table).sum(-1), 1, atol=1e-4
    )
    right = [e.choice for e in films.splits["search"].examples[:8]]
    assert np.allclose(-table[:, np.arange(8), right], seen[0].losses, atol=1e-5)


def test_a_run_that_can_score_nothing_is_said_to_fail(tiny, films):
    _, runs = predicted(
        tiny,
        films,
        strategies=[{"manual": {"prompts": ["good film " * 400], "empty": False}}],
        budget=3_000,
    )
    assert "no prompt could be scored" in runs["manual"].error


def test_a_budget_that_could_never_be_rehearsed_is_refused(tiny, films):
    with pytest.raises(
        StudyError,
        match="a budget of 1,000,000,000,000 tokens pays 'random' for .* a plan rehearses at most",
    ):
        forecast(parse_config(study(budget=10**12, strategies=["random"])), tiny, films)


def test_seconds_add_up_over_seeds(tiny, films):
    found, runs = predicted(
        tiny, films, strategies=["random", {"manual": {"prompts": ["good"]}}], seeds=3
    )
    assert (runs["random"].runs, runs["manual"].runs) == (3, 1)
    assert found.seconds == pytest.approx(
        found.preparing + 3 * runs["random"].seconds + runs["manual"].seconds
    )
    assert runs["random"].seconds > 0


def test_the_plan_tells_what_a_row_is_made_of_and_what_is_kept(tiny, films):
    task = replace(films, template=Template.parse("Say: {text} {prompt} It was {answer}"))
    found, _ = predicted(tiny, task, strategies=["random"])
    (shown,) = found.tasks
    arena = prepare(parse_config(study()), tiny, task).arena(task)
    assert shown.anatomy["static"] == len(tiny.lead) + len(tiny.encode("Say:"))
    assert shown.sharing == "input" and shown.computed < shown.asked / 2
    assert shown.kept == int(arena.searching.lead(np.arange(40)).sum())
    assert shown.kept_bytes == shown.kept * tiny.passes.values * arena.dtype.itemsize


def test_noise_is_measured_once_and_shown(tiny, films, tmp_path):
    compare(study(["random"], dtype="bfloat16"), out=tmp_path, model=tiny, task=films)
    path = tmp_path / "study.json"
    about = read_record(path, "study", "")
    noise = about["tasks"]["films"]["noise"]
    assert 0 < noise["prompt"] <= noise["example"] < 1
    about["tasks"]["films"]["noise"]["example"] = 0.5
    write_record(path, "study", about)
    compare(study(["random", "evolution"], dtype="bfloat16"), out=tmp_path, model=tiny, task=films)
    listed = dict(facts(load_results(tmp_path)))
    assert "examples: 0.5 nats on an example and" in listed["Noise of bfloat16 on films"]
    assert "GiB for keys and values" in listed["Arithmetic"]


def test_float32_has_no_noise_against_itself(tiny, films):
    noise = measure_noise(prepare(parse_config(study(dtype="float32")), tiny, films).arena(films))
    assert noise is not None and noise.example == noise.prompt == 0 and noise.beside < 1e-4


def test_long_rows_are_timed_on_few_of_them(tiny, monkeypatch):
    """A forecast of passages does not read them all: its calls stay within a few passes."""
    rng = np.random.default_rng(1)
    rows = [
        {"text": " ".join(rng.choice(WORDS, 150)), "label": ["good film"] * 2 + ["It was bad"]}
        for _ in range(80)
    ]
    task = Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        splits={"search": 40, "select": 16, "test": 20},
        name="passages",
    )
    read, steps = [], []
    score, loss = Engine.score, Engine.loss
    monkeypatch.setattr(
        Engine,
        "score",
        lambda engine, prompts, ids: (
            read.append(len(prompts) * int(engine.context(ids).sum()))
            or score(engine, prompts, ids)
        ),
    )
    monkeypatch.setattr(
        Engine,
        "loss",
        lambda engine, numbers, ids, visit=0: (
            steps.append(2 * int(engine.step_context(ids).sum()))
            or loss(engine, numbers, ids, visit)
        ),
    )
    found, runs = predicted(
        tiny, task, strategies=["random", "prompt_tuning"], score_on=20, budget=100_000
    )
    assert max(read) <= 1_536 and max(steps) <= 1_024  # of 8 x 20 x 160, and 16 x 160 x 2
    assert found.tasks[0].calibration.means.std() > 0
    assert runs["random"].seconds > 0 and runs["prompt_tuning"].seconds > 0


def test_prompts_of_all_lengths_have_one_speed(tiny, films, monkeypatch):
    measured = []

    def counted(arena, trains):
        measured.append((arena.template.kind, trains))
        return calibrate(arena, trains)

    monkeypatch.setattr("promptsearch.study.forecast.calibrate", counted)
    found, _ = predicted(
        tiny, films, strategies=["random", "prompt_tuning", "prefix_tuning"], length=[2, 3, 5]
    )
    assert sorted(measured) == [("prefix", True), ("slots", True)]
    assert sorted(task.prompt for task in found.tasks) == [2, 2, 3, 3, 5, 5]


@pytest.mark.parametrize("strategy", ["prompt_tuning", "prefix_tuning", "fine_tuning"])
def test_training_that_is_rehearsed_in_part_is_predicted_as_a_whole(
    strategy, tiny, films, monkeypatch
):
    given = [{strategy: {"interval": 2, "batch": 4}}]
    _, whole = predicted(tiny, films, strategies=given, budget=30_000)
    monkeypatch.setattr("promptsearch.study.rehearsal.REHEARSED", 1)
    _, part = predicted(tiny, films, strategies=given, budget=30_000)
    # At the very end, a token more or less left decides whether one more is scored.
    assert part[strategy].proposals == pytest.approx(whole[strategy].proposals, abs=1)
    assert part[strategy].proposals > 20
    assert part[strategy].price == pytest.approx(whole[strategy].price, rel=0.1)
    assert part[strategy].price <= 30_000
    assert part[strategy].computed == pytest.approx(whole[strategy].computed, rel=0.15)


def test_a_time_limit_ends_training_that_is_rehearsed_in_part(tiny, films, monkeypatch):
    def slow(arena, trains):
        return replace(calibrate(arena, trains), search=Speed(1.0, 0.0), training=Speed(1.0, 0.0))

    monkeypatch.setattr("promptsearch.study.forecast.calibrate", slow)
    monkeypatch.setattr("promptsearch.study.rehearsal.REHEARSED", 1)
    given = [{"prompt_tuning": {"interval": 2, "batch": 4}}]
    _, runs = predicted(tiny, films, strategies=given, budget=10**6, max_seconds=30)
    assert runs["prompt_tuning"].proposals == pytest.approx(11, abs=2)  # one in three seconds


def test_a_speed_goes_through_two_calls():
    speed = Speed.through((100, 1.1), (1100, 2.1))
    assert speed.token == pytest.approx(0.001) and speed.call == pytest.approx(1.0)
    assert speed.seconds(600) == pytest.approx(1.6)
    assert Speed.through((100, 3.0), (200, 2.0)) == Speed(0.0, 0.01), (
        "a disturbed small call is left out"
    )
    assert Speed.through((100, 1.0), (100, 2.0)) == Speed(0.0, 0.02)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3600 * 2.5, "2 h 30 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_workers_share_the_work_and_what_does_not_fit_is_refused(tiny, films, capsys):
    rows = [{"manual": {"prompts": ["good movie?"]}}, "random"]
    rows += [{"prompt_tuning": {"interval": 2, "batch": 4, "start": {"run": "random"}}}]
    config = parse_config(study(rows, seeds=3, memory="1MB"))
    bill = forecast(config, tiny, films, workers=2)
    took = {run.label: run.seconds for run in bill.runs}
    assert bill.threads == 1 and bill.workers.count == 2
    # The longest chain of runs, or half of all, is the least that two workers can take.
    chain = took["random"] + took["prompt_tuning"]
    assert max(chain, bill.work / 2) <= bill.workers.seconds / bill.workers.crowded < bill.work
    assert bill.seconds == 2 * bill.preparing + bill.workers.seconds
    assert 0.45 < bill.workers.memory / 2**30 < 0.6
    print_forecast(bill, Console(width=200))
    assert "2 workers of 1 thread, at most 0.5 GiB each: " in capsys.readouterr().out
    with pytest.raises(StudyError, match=r"5000 processes need .* GiB on cpu .*: take \d+, or"):
        forecast(config, tiny, films, workers=5000)


def test_workers_take_the_runs_as_a_study_gives_them():
    arena = SimpleNamespace(task=SimpleNamespace(name="t"))

    def run(label, source=None):
        return SimpleNamespace(arena=arena, label=label, source=source)

    first = run("first")
    runs = [first, run("second", first), run("third"), run("fourth")]
    seconds = {("t", label): 10.0 for label in ("first", "second", "third")} | {("t", "fourth"): 1}
    assert schedule(runs, seconds, 1) == [10, 20, 30, 31]
    # The second starts from the first, so that the others are taken before it.
    assert schedule(runs, seconds, 2) == [10, 20, 10, 11]
    assert schedule(runs, seconds, 4) == [10, 20, 10, 1]
    assert schedule([], seconds, 4) == []
