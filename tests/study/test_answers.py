"""Studies whose answers are generated: measured, selected by, followed, and found again in use."""

import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from promptsearch import compare, load_prompt
from promptsearch.errors import StudyError
from promptsearch.models import LanguageModel
from promptsearch.models.endpoint import Completion
from promptsearch.prompts.hard import HardPrompt
from promptsearch.records.load import load_results
from promptsearch.records.measured import MetricRecord
from promptsearch.records.scores import Generated
from promptsearch.report import write_report
from promptsearch.report.markdown import to_markdown
from promptsearch.report.slim import write_slim_record
from promptsearch.report.summary import summarise
from promptsearch.scoring import Engine
from promptsearch.search.proposer import LocalProposing
from promptsearch.statistics import Sample, interval
from promptsearch.study.config import parse_config
from promptsearch.study.execution.lease import LEASES
from promptsearch.study.forecast import forecast
from promptsearch.study.judging import judged
from promptsearch.tasks.answered import chosen, generated
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import measured_over
from promptsearch.tasks.metrics.metric import Answered, Metric
from promptsearch.tasks.task import Task
from promptsearch.testing.rerun import results_of, without_times
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_study

pytestmark = pytest.mark.usefixtures("unreported")

POOL = ["film", "is", "movie", "the"]


class Ease(Metric):
    """How many of an answer's letters are an e: a ratio of sums, no mean over rows."""

    name = "ease"

    def statistics(self, rows):
        return np.array([[row.output.count("e"), len(row.output) + 1] for row in rows])

    def score(self, sums, rows):
        return float(sums[0] / sums[1])


class Shortness(Metric):
    """The mean length of answers, which should be short."""

    name = "shortness"
    mean = True
    higher_is_better = False
    bounds = (0.0, float("inf"))

    def statistics(self, rows):
        return np.array([[len(row.output)] for row in rows], dtype=float)


class Fails(Metric):
    """Cannot measure anything."""

    name = "fails"

    def statistics(self, rows):
        raise ZeroDivisionError("by me")


class NoNumber(Fails):
    """Gives no number."""

    def statistics(self, rows):
        return np.full((len(rows), 1), np.nan)


class OtherShape(Fails):
    """Gives statistics of too few rows."""

    def statistics(self, rows):
        return np.ones((len(rows) - 1, 1))


EASE, SHORTNESS = f"{__name__}:Ease", f"{__name__}:Shortness"


@pytest.fixture(scope="module")
def llama():
    return LanguageModel(*tiny_model("llama"), name="tiny-llama")


def text_task(metric="exact_match", metrics=(), **changes):
    parts = ["good film", "the story", "I hate", "capital"]
    words = ["good", "bad movie", "Paris"]
    rows = [
        {"text": " ".join(parts[i % 4 :] * (1 + i % 3)) + f" {i}", "label": words[i % 3]}
        for i in range(60)
    ]
    task = Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        splits={"search": 20, "select": 8, "test": 10},
        metric=metric,
        metrics=metrics,
        name="words",
    )
    return replace(task, decoding=Decoding(tokens=6), **changes)


study = partial(tiny_study, budget=20_000)


def lines_of(folder):
    (path,) = folder.rglob("evaluations.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


EVERY = [
    {"manual": {"prompts": ["good movie?"]}},
    {"random": {"batch": 8}},
    {"prompt_tuning": {"interval": 2, "batch": 4}},
    {"prefix_tuning": {"interval": 2, "batch": 4, "hidden": 8}},
    {"llama_adapter": {"interval": 2, "batch": 4}},
    {"lora": {"interval": 1, "batch": 4, "rank": 2}},
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, llama):
    folder = tmp_path_factory.mktemp("finished")
    task = text_task(EASE, ["exact_match", SHORTNESS])
    compare(study(EVERY, budget=10_000), out=folder, model=llama, task=task)
    return folder


def test_the_winner_answers_the_test_split_and_all_metrics_are_of_its_answers(finished, llama):
    task = text_task(EASE, ["exact_match", SHORTNESS])
    for name, run in results_of(finished).items():
        test = run["test"]
        saved = load_prompt(finished / name)
        engine = Engine(llama, saved.template, task.splits["test"], None)
        found = engine.generate([saved.prompt], np.arange(10), task.decoding)
        rows = generated(task.splits["test"].examples, [texts[0] for texts in found.texts[0]])
        assert test["outputs"] == [row.output for row in rows], name
        assert len(set(test["outputs"])) > 1, "answers differ"
        assert test["unended"] == sum(not ended for (ended,) in found.ended[0])
        scores = {each["name"]: each["score"] for each in test["metrics"]}
        assert list(scores) == [EASE, "exact_match", SHORTNESS]
        assert scores[EASE] == test["metric"] == Ease().of(rows) > 0
        assert scores[SHORTNESS] == Shortness().of(rows)
        assert [each["higher_is_better"] for each in test["metrics"]] == [True, True, False]
        assert np.mean(test["shares"]) == pytest.approx(test["metric"])
        assert (run["select"]["metric"], run["select"]["outputs"]) == (None, None)
        assert run["spent"] <= run["budget"]


def test_what_apply_does_with_the_test_split_is_what_the_report_measured(finished, llama):
    tested = text_task().splits["test"].examples
    for name, run in results_of(finished).items():
        saved = load_prompt(finished / name)
        rows = [dict(example.fields) for example in tested]
        answers = [row["answer"] for row in saved.apply(rows, llama)]
        assert answers == run["test"]["outputs"], name
        again = Ease().of(generated(tested, answers))
        assert again == run["test"]["metric"]
        assert saved.verify(llama) < 1e-5


def test_choices_have_the_numbers_that_they_had_and_further_metrics(tiny, films, tmp_path):
    task = replace(films, metrics={"f1": {}, "calibration_error": {}})
    compare(study(["random"], budget=9_000), out=tmp_path, model=tiny, task=task)
    (run,) = results_of(tmp_path).values()
    test, (line,) = run["test"], [x for x in lines_of(tmp_path) if x["stage"] == "test"]
    assert test["predictions"] == np.argmax(line["choices"][0], axis=1).tolist()
    assert test["metric"] == np.mean(test["correct"])
    metrics = {each["name"]: each for each in test["metrics"]}
    assert list(metrics) == ["accuracy", "f1", "calibration_error"]
    rows = chosen(
        films.splits["test"].examples, films.choices, np.array(line["choices"][0]), test["correct"]
    )
    for name, metric in task.measures.items():
        assert metrics[name]["score"] == pytest.approx(metric.of(rows), abs=1e-12)
    # What follows from right and wrong, or from predictions and labels, is not recorded twice.
    assert [metrics[name]["statistics"] is None for name in metrics] == [True, True, False]
    assert [each["name"] for each in run["select"]["metrics"]] == ["accuracy"]


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, ["rescore", "select", "anytime", "test", "test_answers"]),
        (
            {"select_by": "metric"},
            ["rescore", "select", "select_answers", "anytime", "test", "test_answers"],
        ),
        (
            {"objective": EASE},
            ["rescore", "rescore_answers", "select", "select_answers", "test", "test_answers"],
        ),
    ],
    ids=["loss", "selected", "followed"],
)
def test_a_run_killed_at_any_moment_finds_its_answers_again(
    changes, stages, llama, tmp_path, monkeypatch
):
    def work(folder):
        compare(
            study([{"random": {"batch": 8}}], budget=12_000, **changes),
            out=folder,
            model=llama,
            task=text_task(EASE),
        )

    torn = []

    def copied(file):
        """Copy what a kill right after each line would have left."""
        logs = list((tmp_path / "whole").rglob("evaluations.jsonl"))
        if logs and len(logs[0].read_bytes().splitlines()) > len(torn):
            torn.append(tmp_path / f"torn{len(torn)}")
            shutil.copytree(tmp_path / "whole", torn[-1], ignore=shutil.ignore_patterns(LEASES))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", copied)
        work(tmp_path / "whole")
    whole, lines = results_of(tmp_path / "whole"), lines_of(tmp_path / "whole")
    assert [line["stage"] for line in lines if line["stage"] != "search"] == stages
    # From the last line of the search on.
    for folder in torn[-len(stages) - 1 :]:
        assert not results_of(folder)
        work(folder)
        assert without_times(results_of(folder)) == without_times(whole)
        assert without_times(lines_of(folder)) == without_times(lines)


def test_answers_are_charged_as_they_come_and_never_on_the_test_split(llama, tmp_path):
    task = text_task(EASE)
    given = study([{"random": {"batch": 8}}], objective=EASE, budget=20_000)
    compare(given, out=tmp_path, model=llama, task=task)
    lines = lines_of(tmp_path)
    for before, line in zip([None, *lines], lines, strict=False):
        forward = line["ledger"]["forward"] - (before["ledger"]["forward"] if before else 0)
        generated_tokens = line.get("generated", 0)
        if line["stage"] == "search":
            assert forward == line["price"] and generated_tokens > 0
            assert line["price"] <= 8 * (8 * (2 + 40) + 6 * 8)
        elif line["stage"] in ("test", "test_answers"):
            assert forward == 0
        elif line["stage"].endswith("_answers"):
            assert forward > generated_tokens > 0
    (run,) = results_of(tmp_path).values()
    assert run["spent"] <= run["budget"] and run["ledger"]["forward"] == run["spent"]


@pytest.mark.parametrize("metric", [EASE, SHORTNESS])
def test_a_search_that_follows_a_metric_finds_the_prompt_that_is_best_by_it(
    metric, llama, tmp_path
):
    task, made = text_task(metric), {EASE: Ease(), SHORTNESS: Shortness()}[metric]
    compare(
        study([{"exhaustive": {"budget": 90_000}}], objective=metric, pool=POOL, dtype="float32"),
        out=tmp_path,
        model=llama,
        task=task,
    )
    ids = [llama.encode(f" {word}")[0] for word in POOL]
    prompts = [HardPrompt([a, b]) for a in ids for b in ids]
    engine = Engine(llama, task.template.bind(2), task.splits["search"], None)
    found = engine.generate(prompts, np.arange(8), task.decoding)
    examples = task.splits["search"].examples[:8]
    scores = [made.of(generated(examples, [t[0] for t in texts])) for texts in found.texts]
    best = max(scores) if made.higher_is_better else min(scores)
    assert len(set(scores)) > 2
    (run,) = results_of(tmp_path).values()
    sign = -1 if made.higher_is_better else 1
    assert run["curve"][-1][1] == pytest.approx(sign * best, abs=1e-6)
    # The winner is one of the three best, by its answers to the select split.
    place = [list(prompt.ids) for prompt in prompts].index(run["winner"]["ids"])
    assert scores[place] in sorted(scores, key=lambda score: sign * score)[:3]
    assert run["search"]["loss"] == pytest.approx(sign * scores[place], abs=1e-6)
    assert run["search"]["loss_fp32"] > 0, "nats"
    assert run["gap"] == run["test"]["loss"] - run["search"]["loss_fp32"]
    study_record = json.loads((tmp_path / "study.json").read_text())
    assert (study_record["objective"], study_record["select_by"]) == (metric, "metric")
    assert f"|objective:{metric}|select:metric|" in run["signature"]


def test_a_search_of_choices_follows_its_metric_at_the_price_of_the_loss(tiny, films, tmp_path):
    for name, objective in (("loss", {}), ("f1", {"objective": "f1"})):
        compare(
            study([{"random": {"batch": 8}}], budget=9_000, **objective),
            out=tmp_path / name,
            model=tiny,
            task=films,
        )
    ordinary, followed = lines_of(tmp_path / "loss"), lines_of(tmp_path / "f1")
    first, second = ordinary[0], followed[0]
    assert (first["price"], first["prompts"]) == (second["price"], second["prompts"])
    assert second["followed"] == "f1" and first["choices"] == second["choices"]
    examples = films.splits["search"].examples[:8]
    for nats, right, losses in zip(
        second["choices"], second["metric"], second["losses"], strict=True
    ):
        rows = chosen(examples, films.choices, np.array(nats), right)
        assert np.mean(losses) == pytest.approx(-find_metric("f1").of(rows), abs=1e-6)


def test_the_winner_is_selected_by_the_metric_where_the_study_says_so(llama, tmp_path):
    task = text_task(EASE)
    compare(
        study([{"random": {"batch": 8}}], select_by="metric"), out=tmp_path, model=llama, task=task
    )
    lines = {line["stage"]: line for line in lines_of(tmp_path)}
    examples = task.splits["select"].examples
    scores = [
        Ease().of(generated(examples, [t[0] for t in texts]))
        for texts in lines["select_answers"]["texts"]
    ]
    keys = [prompt["key"] for prompt in lines["select_answers"]["prompts"]]
    (run,) = results_of(tmp_path).values()
    assert run["winner"]["key"] == keys[int(np.argmax(scores))]
    assert run["select"]["metric"] == max(scores) > min(scores)
    assert lines["select"]["prompts"] == lines["select_answers"]["prompts"]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("Fails", "failed on row 1 .*ZeroDivisionError: by me"),
        ("NoNumber", r"gave \[nan\] for row 1"),
        ("OtherShape", r"statistics of shape \(9, 1\): expected numbers of shape \(10"),
    ],
)
def test_a_metric_that_breaks_is_named_and_costs_its_own_number_only(
    metric, reason, llama, tmp_path
):
    own = f"{__name__}:{metric}"
    for name, task in (("main", text_task(own, [EASE])), ("beside", text_task(EASE, [own]))):
        found = compare(
            study([{"random": {"batch": 8}}], budget=12_000),
            out=tmp_path / name,
            model=llama,
            task=task,
        )
        assert not found.failed
        (run,) = found.runs
        broken = {each.name: each for each in run.test.metrics}
        assert broken[own].score is None and re.search(reason, broken[own].failed)
        assert broken[EASE].score == pytest.approx(
            Ease().of(generated(task.splits["test"].examples, run.test.outputs))
        )
        assert run.export is None and (run.test.metric is None) == (name == "main")
        written = to_markdown(load_results(tmp_path / name))
        assert metric in written and "by me" in written or metric != "Fails"


def test_a_search_whose_metric_breaks_fails_and_says_why(llama, tmp_path):
    found = compare(
        study([{"random": {"batch": 8}}], objective=f"{__name__}:Fails"),
        out=tmp_path,
        model=llama,
        task=text_task(),
    )
    assert "by me" in found.failed[0].error and "no prompt could be scored" in found.failed[0].error


def test_what_cannot_follow_a_metric_is_refused_before_a_token_is_spent(llama, tmp_path):
    with pytest.raises(StudyError, match="'prompt_tuning' is trained by gradients, which the loss"):
        compare(
            study(["prompt_tuning"], objective=EASE), out=tmp_path, model=llama, task=text_task()
        )
    with pytest.raises(StudyError, match="a budget of 3000 tokens is too small for 'random'"):
        compare(
            study(["random"], objective=EASE, budget=3_000),
            out=tmp_path,
            model=llama,
            task=text_task(),
        )


@pytest.mark.parametrize("metric", [SHORTNESS, EASE])
def test_a_mean_is_raced_and_what_is_none_is_not(metric, llama, tmp_path):
    given = study([{"random": {"batch": 8}}], objective=metric, score_on=20)
    task = text_task(metric)
    task = replace(task, splits={**task.splits, "search": replace(task.splits["search"])})
    compare(given, out=tmp_path, model=llama, task=task)
    (run,) = results_of(tmp_path).values()
    assert run["spent"] <= run["budget"]
    for line in lines_of(tmp_path):
        if line["stage"] == "search":
            assert line["ledger"]["forward"] >= line["price"]
            assert ("seen" in line) == (metric == SHORTNESS)
    assert json.loads((tmp_path / "study.json").read_text())["race"] == (metric == SHORTNESS)


def test_other_aims_do_not_extend_a_study(llama, tmp_path):
    given = study([{"random": {"batch": 8}}], budget=12_000)
    compare(given, out=tmp_path, model=llama, task=text_task(EASE))
    for changes, key in (
        ({"objective": EASE, "select_by": "loss"}, "objective was the loss, now it is"),
        ({"select_by": "metric"}, "select_by was loss, now it is metric"),
    ):
        with pytest.raises(StudyError, match=key):
            compare({**given, **changes}, out=tmp_path, model=llama, task=text_task(EASE))
    longer = replace(text_task(EASE), decoding=Decoding(tokens=7))
    with pytest.raises(StudyError, match="decoding was greedy, 6 tokens, now it is greedy, 7"):
        compare(given, out=tmp_path, model=llama, task=longer)


def test_a_study_goes_on_with_the_seed_of_what_is_drawn(llama, tmp_path):
    """Other drawn answers have other scores; seed 0 goes unnamed, as in older records."""
    given = study([{"manual": {"prompts": ["good film"]}}], budget=12_000)

    def call(seed):
        drawn = replace(text_task(EASE), decoding=Decoding(6, temperature=0.7, seed=seed))
        return compare(given, out=tmp_path, model=llama, task=drawn).study

    assert call(0).tasks["words"].decoding == "temperature 0.7, top-p 1, 1 samples, 6 tokens"
    with pytest.raises(StudyError, match="decoding was temperature 0.7.* 1 samples, seed 1, 6 tok"):
        call(1)


def test_a_slim_record_makes_the_report_again_to_the_byte(finished, tmp_path):
    before = load_results(finished)
    write_slim_record(finished, tmp_path / "slim")
    after = load_results(tmp_path / "slim")
    assert after.runs == before.runs
    written = to_markdown(after)
    assert written == (tmp_path / "slim" / "report.md").read_text()
    again = to_markdown(before)
    drop = lambda text: re.sub(r"- Command: .*\n", "", text)  # noqa: E731 - names its folder
    assert drop(written) == drop(again)
    assert "What they answered:" in written and "| exact_match |" in written
    assert "Shortness ↓" in written and "no end" in written
    write_report(finished)
    page = (finished / "report.html").read_text()
    assert "What they answered" in page and "Shortness ↓" in page


def test_the_same_numbers_whatever_the_cache_holds(llama, tmp_path, monkeypatch):
    monkeypatch.setattr("promptsearch.study.study.cache_folder", lambda: tmp_path / "cache")
    given = study([{"random": {"batch": 8}}], objective=EASE, budget=20_000)
    for name in ("first", "second"):
        compare(given, out=tmp_path / name, model=llama, task=text_task(EASE))
    first, second = results_of(tmp_path / "first"), results_of(tmp_path / "second")
    assert without_times(first) == without_times(second)
    (run,) = second.values()
    assert run["ledger"]["cached"] == run["ledger"]["forward"] > 0


def test_what_earlier_runs_left_buys_no_evaluations_within_given_seconds(
    llama, tmp_path, monkeypatch
):
    monkeypatch.setattr("promptsearch.study.study.cache_folder", lambda: tmp_path / "cache")
    for name, limit in (("first", None), ("second", 1_000)):
        given = study([{"random": {"batch": 8}}], budget=20_000, max_seconds=limit)
        compare(given, out=tmp_path / name, model=llama, task=text_task(EASE))
    (run,) = results_of(tmp_path / "second").values()
    assert run["ledger"]["cached"] == 0 < run["ledger"]["computed"]


def test_a_plan_counts_what_may_be_generated(llama):
    task = text_task(EASE)
    given = study([{"random": {"batch": 8}}], budget=20_000)
    prices = {}
    for name, changes in (("loss", {}), ("followed", {"objective": EASE})):
        config = parse_config({**given, "model": "tiny", "task": "x", **changes})
        (run,) = forecast(config, llama, task).runs
        prices[name] = run
        assert not run.error and 0 < run.price <= 20_000
    # An evaluation that generates six tokens an answer costs more, and so do the stages behind it.
    assert prices["followed"].proposals < prices["loss"].proposals


def test_rows_of_a_group_are_counted_as_one_in_intervals(llama, tmp_path):
    task = text_task(SHORTNESS)
    tested = task.splits["test"]
    grouped = tuple(replace(example, group=f"g{example.id // 5}") for example in tested.examples)
    task = replace(task, splits={**task.splits, "test": replace(tested, examples=grouped)})
    found = compare(
        study([{"manual": {"prompts": ["good movie?"]}}], budget=12_000),
        out=tmp_path,
        model=llama,
        task=task,
    )
    assert found.study.tasks["words"].groups == (0,) * 5 + (1,) * 5
    assert [row.references for row in found.study.tasks["words"].shown] == [
        tuple(text.strip() for text in example.references) for example in grouped[:5]
    ]
    (run,) = found.runs
    lengths = np.array([[len(output) for output in run.test.outputs]], dtype=float)
    expected = interval(Sample(lengths, True, found.study.tasks["words"].groups), (0, np.inf))
    (row,) = summarise(found)[0].rows
    assert (row.metric.low, row.metric.high) == (expected.low, expected.high)


def test_a_metric_is_handed_its_encoder_and_its_signature_names_it(llama, tmp_path):
    model, tokenizer = tiny_model("llama")
    model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    task = text_task(EASE, [{"bertscore": {"encoder": str(tmp_path / "encoder"), "layer": 1}}])
    found = compare(
        study([{"random": {"batch": 8}}], budget=12_000),
        out=tmp_path / "out",
        model=llama,
        task=task,
    )
    (run,) = found.runs
    (record,) = run.test.metrics[1:]
    assert record.score is not None and -1 <= record.score <= 1, record.failed
    assert record.signature.startswith("bertscore|encoder:encoder-L1-")
    assert found.study.tasks["words"].measured[1] == record.signature


def test_no_verdict_is_about_a_judge_alone(llama, tmp_path):
    judge = {"judge": {"question": "Is {output} right? Answer yes or no."}}
    with pytest.raises(StudyError, match="a judge alone tells nothing reliable"):
        compare(study(["random"]), out=tmp_path, model=llama, task=text_task(judge))
    with pytest.raises(StudyError, match="no search follows a judge"):
        compare(study(["random"], objective=judge), out=tmp_path, model=llama, task=text_task())


def test_a_judge_is_compared_answer_by_answer_where_several_are_drawn():
    class Honest:
        signature = "honest"

        def answers(self, requests):
            return ["yes" if "right" in each else "no" for each in requests]

    drawn = [[Answered(said, ("right",))] * 5 for said in ("right", "wrong")]
    metric = find_metric("judge", {"question": "{output}?"}).over(Honest())
    found = measured_over(metric, drawn)
    record = judged(MetricRecord("judge", found.score, ""), found, drawn, 5)
    assert (found.score, record.judge.agrees, record.judge.kappa) == (0.5, 1.0, 1.0)


def test_a_judge_stands_beside_another_metric_with_its_agreement_and_tokens(
    llama, tmp_path, monkeypatch
):
    def complete(self, requests, **given):
        assert given["temperature"] == 0
        return [
            Completion("Yes." if request.startswith("Answer: I") else "no", len(request), 2)
            for request in requests
        ]

    monkeypatch.setattr(LocalProposing, "complete", complete)
    question = "Answer: {output} for {text}. Is it right? "
    task = text_task("exact_match", [{"judge": {"question": question}}])
    found = compare(
        study([{"random": {"batch": 8}}], budget=12_000), out=tmp_path, model=llama, task=task
    )
    (run,) = found.runs
    (record,) = run.test.metrics[1:]
    said = [output.startswith("I") for output in run.test.outputs]
    assert record.score == np.mean(said) and "tiny-llama@" in record.signature
    right = np.array(run.test.metrics[0].statistics or np.zeros((10, 1)))[:, 0]
    assert record.judge.agrees == np.mean(np.array(said) == right)
    assert record.judge.tokens > 10 * len(question)
    assert run.ledger.proposer == 0
    written = to_markdown(found)
    assert "judge agrees with what is known of" in written.replace("\\", "")
    write_slim_record(tmp_path, tmp_path / "slim")
    assert load_results(tmp_path / "slim").runs == found.runs


def test_answers_that_cannot_be_generated_cost_the_metric_and_not_the_run(
    llama, tmp_path, monkeypatch
):
    def refused(self, prompts, examples, decoding):
        nothing = [[()] * len(examples) for _ in prompts]
        tokens = np.zeros((len(prompts), len(examples)), dtype=np.int64)
        return Generated(nothing, nothing, tokens, 0, {0: "test example 3 is too long"})

    monkeypatch.setattr(Engine, "generate", refused)
    found = compare(
        study([{"random": {"batch": 8}}, {"manual": {"prompts": ["good movie?"]}}], budget=12_000),
        out=tmp_path,
        model=llama,
        task=text_task(),
    )
    assert not found.failed
    for run in found.runs:
        assert (run.test.metric, run.test.outputs, run.test.metrics) == (None, None, ())
        assert run.test.metric_failed == "test example 3 is too long" and run.test.loss > 0
    (task,) = summarise(found)
    assert "left out: random, seed 0: test example 3 is too long" in task.verdict
    assert not task.comparisons and np.isnan(task.rows[0].metric.mean)
    assert "too long" in to_markdown(found)
