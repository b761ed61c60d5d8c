"""A study of several models: one study each, winners carried over, and the report across them."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from promptsearch import LanguageModel, TextPrompt, compare, load_prompt
from promptsearch.errors import ModelError, RecordError, StudyError, UnknownName
from promptsearch.records.load import load_results
from promptsearch.records.models import TRANSFER, load_members, load_models, load_transfer
from promptsearch.report import write_models_report
from promptsearch.report.across import across
from promptsearch.report.across_pages import models_to_html, models_to_markdown
from promptsearch.report.by_size import by_size
from promptsearch.report.drawing import colour
from promptsearch.report.notation import ONE_SEED
from promptsearch.report.slim import write_slim_record
from promptsearch.scoring import Engine
from promptsearch.study.config import parse_config
from promptsearch.study.members import members, run_members
from promptsearch.study.prepare import prepare
from promptsearch.tasks.task import Task
from promptsearch.tasks.template import Template
from promptsearch.testing.rerun import results_of, without_times
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_study as study

STRATEGIES = [
    {"manual": {"prompts": ["good movie?", "It was"]}},
    "random",
    {"prompt_tuning": {"interval": 2, "batch": 4}},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two models of different families, so that their words are other tokens, in folders."""
    folder = tmp_path_factory.mktemp("models")
    for name, architecture, width in (("small", "llama", 32), ("large", "gemma3", 48)):
        for part in tiny_model(architecture, width=width):
            part.save_pretrained(folder / name)
    return folder


def keys(place, models, **changes):
    return {
        "name": "s",
        "model": models if isinstance(models, str) else [str(place / name) for name in models],
        "task": "films",
        "budget": 2_500,
        "length": 2,
        "score_on": 8,
        "seeds": 2,
        "strategies": STRATEGIES,
        **changes,
    }


@pytest.fixture(scope="module")
def finished(place, films):
    """A study of three models, one of which is not there; what was loaded is counted."""
    folder, alive, load = place / "study", [], LanguageModel.load

    def counted(name, **options):
        alive.append(sum(model() is not None for model in loaded))
        found = load(name, **options)
        loaded.append(weakref.ref(found.model))
        return found

    loaded: list[weakref.ref] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "load", counted)
        patch.setattr("promptsearch.report.write.write_report", lambda folder: None)
        models = ("small", "gone", "large")
        results = compare(keys(place, models, transfer=True), out=folder, task=films)
    return folder, results, alive


def test_each_model_has_the_study_that_it_would_have_alone(finished, place, films, tmp_path):
    folder, results, _ = finished
    assert list(results.parts) == ["small", "large"] and len(results.runs) == 10
    alone = compare(keys(place, str(place / "large")), out=tmp_path / "alone", task=films)
    assert without_times(results_of(folder / "large")) == without_times(results_of(alone.folder))
    for name in ("settings", "signature", "model", "tasks"):
        ours, theirs = (getattr(found.study, name) for found in (results.parts["large"], alone))
        assert without_times(ours) == without_times(theirs) if name != "tasks" else ours == theirs
    assert "transfer" not in alone.study.settings


def test_one_copy_of_one_model_is_in_memory_at_a_time(finished):
    _, _, alive = finished
    assert len(alive) == 5  # three models that run, two that winners are carried over to
    assert set(alive) == {0}


def test_a_model_that_cannot_be_loaded_is_named_and_the_others_run(finished):
    _, results, _ = finished
    (missing,) = results.missing
    assert missing.name == "gone" and "cannot load the model" in missing.error
    assert not results.failed and not results.unfinished
    for page in (models_to_markdown(results), models_to_html(results)):
        assert "gone" in page and "there is no such file or folder" in page.replace("\\", "")


def test_where_no_model_can_be_loaded_the_study_says_why(place, films, tmp_path):
    with pytest.raises(ModelError, match="cannot load the model '.*gone'"):
        compare(keys(place, ("gone", "lost")), out=tmp_path / "s", task=films)
    (first, second) = load_models(tmp_path / "s").missing
    assert "gone" in first.error and "lost" in second.error


@pytest.mark.parametrize(
    ("record", "models", "held"),
    [("study.json", ("small", "large"), "one model"), ("models.json", "small", "several models")],
)
def test_a_folder_with_the_other_form_of_study_is_refused(
    place, films, tmp_path, record, models, held
):
    (tmp_path / record).write_text("{}")
    with pytest.raises(StudyError, match=f"holds a study of {held}, .*another folder with --out"):
        compare(keys(place, models), out=tmp_path, task=films)
    assert [path.name for path in tmp_path.iterdir()] == [record]


def test_what_is_wrong_whatever_the_model_is_said_before_one_is_loaded(
    place, films, tmp_path, monkeypatch
):
    monkeypatch.setattr(LanguageModel, "load", None)
    wrong = keys(place, ("small", "large"), strategies=[{"random": {"batc": 4}}])
    with pytest.raises(UnknownName, match="unknown option of strategy 'random' 'batc'"):
        compare(wrong, out=tmp_path / "s", task=films)
    assert not (tmp_path / "s").exists()
    with pytest.raises(StudyError, match="give one model as an object"):
        compare(
            keys(place, ("small", "large")),
            model=SimpleNamespace(name="x"),
            out=tmp_path / "s",
            task=films,
        )


def test_winners_of_words_are_scored_on_the_other_models_as_text(finished, place, films):
    folder, results, _ = finished
    assert results.transfer is not None
    names = [each.name[:5] for each in results.transfer.carried]
    pairs = (("large", "small"), ("small", "large"))
    wanted = [("manual", 0), ("random", 0), ("random", 1)]
    assert sorted(names) == sorted(("films", *run, *pair) for pair in pairs for run in wanted)
    lms = {name: LanguageModel.load(str(place / name)) for name in ("small", "large")}
    ids = np.arange(20)
    for each in results.transfer.carried:
        saved = load_prompt(folder / each.source / "films" / each.label / f"seed{each.seed}")
        assert each.key == saved.prompt.key
        prompt, template = TextPrompt(each.texts), films.template.bind(2)
        split = films.splits["test"]
        there = Engine(lms[each.target], template, split, films.choices)
        scores = there.score([prompt], ids)
        assert each.loss == pytest.approx(scores.losses.mean(), abs=2e-6)
        assert each.metric == pytest.approx(scores.metric.mean())
        read = there.lead(ids) + there.context(ids) + there.length(prompt)
        assert each.tokens == read.sum()
        # The text is the prompt: on its own model it does what the run recorded.
        here = Engine(lms[each.source], template, split, films.choices)
        (run,) = (
            run
            for run in results.parts[each.source].runs
            if (run.label, run.seed) == (each.label, each.seed)
        )
        assert here.score([prompt], ids).losses.mean() == pytest.approx(run.test.loss, abs=2e-5)


def test_again_it_computes_nothing_and_a_lost_transfer_is_made_again(
    finished, place, films, monkeypatch
):
    folder, results, _ = finished
    config = keys(place, ("small", "large"), transfer=True)  # a model may be left out later
    kept = {path: path.read_bytes() for path in folder.rglob("result.json")}
    before = load_transfer(folder)
    monkeypatch.setattr("promptsearch.report.write.write_report", lambda folder: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptsearch.study.transfer.prepare", None)  # nothing is left to carry over
        again = compare(config, out=folder, task=films)
    assert {path: path.read_bytes() for path in folder.rglob("result.json")} == kept
    assert again.transfer == before and [each.name for each in again.study.models] == [
        *("small", "gone", "large")
    ]
    text = json.loads((folder / TRANSFER).read_text())
    text["carried"][0]["metric"] = 0.125
    (folder / TRANSFER).write_text(json.dumps(text))
    with pytest.raises(RecordError, match=r"transfer\.json is damaged"):
        load_models(folder)
    (folder / TRANSFER).unlink()
    made = compare(config, out=folder, task=films).transfer
    assert {each.name: each for each in made.carried} == {
        each.name: each for each in before.carried
    }


def test_nothing_is_carried_over_while_runs_are_still_to_be_made(finished, place, films, tmp_path):
    _, results, _ = finished
    from promptsearch.study.transfer import carry_over

    config = parse_config(keys(place, ("small", "large"), transfer=True))
    runs = {"strategies": ["random"], "seeds": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptsearch.report.write.write_report", lambda folder: None)
        small = compare(keys(place, ("small", "large"), **runs), out=tmp_path / "s", task=films)
    (tmp_path / "s" / "large" / "films" / "random" / "seed0" / "result.json").unlink()
    carry_over(config, tmp_path / "s", films, lambda step: None)
    assert small.transfer is None and load_transfer(tmp_path / "s") is None


def test_what_is_not_asked_for_any_more_is_neither_carried_over_nor_tried_again(
    place, films, tmp_path, monkeypatch
):
    """Solved examples have a slot of their own, which no row has that is left."""
    for page in ("write.write_report", "across_pages.write_models_report"):
        monkeypatch.setattr(f"promptsearch.report.{page}", lambda folder: None)

    def work(*rows):
        given = keys(place, ("small", "large"), transfer=True, seeds=1, strategies=list(rows))
        return compare({**given, "budget": 6_000}, out=tmp_path / "s", task=later)

    later = Task.from_rows(
        [{**e.fields, "label": e.choice} for e in films.splits["search"].examples],
        template="{text} It was {prompt} {answer}",
        label="label",
        answers={0: "bad", 1: "good"},
        splits={"search": 16, "select": 8, "test": 8},
        name="films",
    )
    with monkeypatch.context() as patch:
        patch.setattr("promptsearch.study.transfer._winner", lambda *given: None)
        work(STRATEGIES[0], {"exemplars": {"shots": 1}})
    carried = work(STRATEGIES[0]).transfer.carried
    assert sorted((each.label, each.target) for each in carried) == [
        ("manual", "large"),
        ("manual", "small"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr("promptsearch.study.transfer.prepare", None)  # nothing is left to carry over
        work(STRATEGIES[0])
    (tmp_path / "s" / TRANSFER).unlink()
    with monkeypatch.context() as patch:
        patch.setattr("promptsearch.study.transfer.Winner.fills", lambda *given: False)
        carried = work(STRATEGIES[0]).transfer.carried
    says = "it fills the slots of no template of"
    assert len(carried) == 2 and all(each.error.startswith(says) for each in carried)


def test_a_prompt_that_fails_on_another_model_took_as_many_tokens(tiny, films, monkeypatch):
    from promptsearch.study import transfer

    given = study([STRATEGIES[0]], model=tiny.name, task=films.name)
    (arena,) = prepare(parse_config(given), tiny, films).arenas.values()
    prompts = [TextPrompt("good"), TextPrompt("bad")]
    whole = transfer.tested_on(arena, prompts, "it")
    score = Engine.score

    def failing(*given, **named):
        scores = score(*given, **named)
        scores.losses[0] = np.nan
        return replace(scores, failures={0: "no number"})

    monkeypatch.setattr(Engine, "score", failing)
    failed = transfer.tested_on(arena, prompts, "it")
    assert failed == [{"error": "no number", "tokens": whole[0]["tokens"]}, whole[1]]
    assert whole[0]["tokens"] > 0


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["a/one", "b/two"], ["one", "two"]),
        (["a/one", "b/one"], ["a-one", "b-one"]),
        (["./x/m.gguf", "smollm2-135m-instruct:layers=10+healed"], None),
        ([{"endpoint": "http://h/v1", "model": "o/m"}, "m"], None),
    ],
    ids=["short", "whole", "copy", "served"],
)
def test_a_study_lies_in_a_folder_named_by_its_model(models, names):
    config = parse_config({"model": models, "task": "capitals", "budget": 9, "strategies": ["gcg"]})
    found = members(config)
    assert names is None or [member.name for member in found] == names
    assert len({member.name for member in found}) == 2
    assert [member.config.model for member in found] == list(config.model)
    assert all(member.config.transfer is False for member in found)


def test_a_model_that_is_named_twice_is_refused():
    given = {"model": ["a/b", "a/b"], "task": "capitals", "budget": 9, "strategies": ["gcg"]}
    with pytest.raises(StudyError, match="two of the models are called 'a-b'"):
        members(parse_config(given))


def test_what_one_shard_notes_of_a_model_another_one_keeps(tmp_path):
    config = parse_config(keys(tmp_path, ("a", "b"), transfer=False))

    def shard(failing, meanwhile=None):
        def run(member, at, listener):
            if meanwhile and member.name == "b":
                meanwhile()
            if member.name in failing:
                raise ModelError(f"{member.name} fails")

        run_members(config, members(config), tmp_path, run, lambda step: None)
        return [member.error for member in load_members(tmp_path).models]

    assert shard("b", lambda: shard("a")) == ["a fails", "b fails"]
    assert shard("") == ["", ""]


def test_the_figure_has_a_line_for_each_strategy_from_the_smallest_to_the_largest(finished):
    _, results, _ = finished
    (task,) = across(results)
    assert [line.label for line in task.lines] == ["manual", "random", "prompt_tuning"]
    sizes = [results.parts[name].study.model.parameters for name in ("small", "large")]
    assert task.sized == ["small", "large"] and list(task.models.values()) == sizes
    for line in task.lines:
        for name, row in line.rows.items():
            runs = [run for run in results.parts[name].runs if run.label == line.label]
            assert row.metric.mean == pytest.approx(np.mean([run.test.metric for run in runs]))
    figure = by_size(task, "p")
    assert figure == by_size(task, "p") and figure.startswith("<svg")
    for line in task.lines:
        start = figure.index(f'id="p-{line.place}-size-line"')
        drawn = figure[start : figure.index("</g>", start)]
        assert colour(line.place) in drawn and ("stroke-dasharray" in drawn) == (not line.searches)
    assert models_to_html(results).count("<svg") == 1


def of_each(results, change):
    """The results with the same change to those of each model."""
    parts = {name: change(part) for name, part in results.parts.items()}
    return replace(results, parts=parts)


def test_models_of_one_size_make_no_figure_of_size(finished):
    _, results, _ = finished
    model = results.parts["small"].study.model
    same = of_each(results, lambda part: replace(part, study=replace(part.study, model=model)))
    assert "<svg" in models_to_html(results) and "<svg" not in models_to_html(same)


def test_the_note_on_single_seeds_stands_where_one_is_marked(finished):
    _, results, _ = finished
    alone = of_each(
        results, lambda part: replace(part, runs=tuple(r for r in part.runs if r.seed == 0))
    )
    for form in (models_to_markdown, models_to_html):
        assert "†" not in form(results)
        page = form(alone)
        assert page.count(f"{ONE_SEED}.") == 1 and page.count("†") > 1


def test_the_report_says_the_model_of_each_run_and_shows_what_was_carried_over(finished):
    folder, results, _ = finished
    write_models_report(folder)
    table = pd.read_parquet(folder / "runs.parquet")
    assert table.columns[0] == "model" and len(table) == len(results.runs)
    assert set(table["model"]) == {"small", "large"}
    (task,) = across(results)
    cells = {(each.label, each.source): each.scores for each in task.carried}
    assert list(cells) == [(a, b) for a in ("manual", "random") for b in ("small", "large")]
    own = [r.test.metric for r in results.parts["small"].runs if r.label == "random"]
    assert cells["random", "small"]["small"] == pytest.approx(np.mean(own))
    there = [
        each.metric
        for each in results.transfer.carried
        if (each.label, each.source) == ("random", "small")
    ]
    assert cells["random", "small"]["large"] == pytest.approx(np.mean(there)) and len(there) == 2
    page = (folder / "report.md").read_text()
    assert "### Carried over" in page and "[report](small/report.md)" in page
    assert f"{sum(each.tokens for each in results.transfer.carried):,} LM tokens" in page


def test_a_slim_record_holds_the_same(finished, tmp_path):
    folder, results, _ = finished
    path = write_slim_record(folder, tmp_path / "slim")
    kept = load_models(tmp_path / "slim")
    assert kept.runs == results.runs and kept.transfer == load_transfer(folder)
    assert path.read_text() == models_to_markdown(load_models(folder))
    assert not list((tmp_path / "slim").rglob("result.json"))
    with pytest.raises(StudyError, match="holds a study already"):
        write_slim_record(folder, tmp_path / "slim")


def test_a_member_is_read_as_any_study(finished):
    folder, results, _ = finished
    assert load_results(folder / "small").runs == results.parts["small"].runs
    with pytest.raises(StudyError, match=r"Did you mean .*large or .*small\?"):
        load_results(folder)


def test_a_text_that_stands_in_slots_is_the_prompt_that_puts_it_there():
    template = Template.parse("{prompt} film {prompt} {text} is{answer}")
    assert {slot.space for slot in template.slots} == {False, True}
    prompt = TextPrompt(("Good", "or bad?"))
    assert TextPrompt.standing(prompt.fill(template), template) == prompt
    assert TextPrompt.standing(("", " so"), template).fill(template) == ("", " so")
