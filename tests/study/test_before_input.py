"""Solved examples stand before the input, also where the slots of the template do not."""

from dataclasses import replace

import numpy as np
import pytest

from promptsearch import LanguageModel, TextPrompt, compare, load_prompt
from promptsearch.errors import StudyError
from promptsearch.records.models import load_transfer
from promptsearch.scoring import Engine
from promptsearch.study.config import parse_config
from promptsearch.study.entries import entries_of
from promptsearch.study.headroom import headroom
from promptsearch.study.prepare import prepare
from promptsearch.tasks.showing import showing
from promptsearch.tasks.template import Template
from promptsearch.testing.rerun import results_of
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_study as study

pytestmark = pytest.mark.usefixtures("unreported")

SHOWING = [
    {"exemplars": {"shots": 2}},
    {"exemplars_nearest": {"shots": 2}},
    {"prune": {"shots": 2}},
]
#: Words that join with the texts of the films, whatever these begin with.
POOL = ["movie", "film"]


@pytest.fixture
def under(films):
    """The films under another template."""
    return lambda template: replace(films, template=Template.parse(template))


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{prompt} {text} It was {answer}", "{prompt} {text} It was {answer}"),
        ("Rate: {prompt:3} {text} {answer}", "Rate: {prompt:3} {text} {answer}"),
        ("{text} {prompt}{answer}", "{prompt}{text} {prompt}{answer}"),
        ("Text: {text} {prompt:3}{answer}", "{prompt}Text: {text} {prompt:3}{answer}"),
        ("{text} It was {answer}. {prompt}", "{prompt}{text} It was {answer}. {prompt}"),
        ("{{x}} {text} {prompt} {answer}", "{prompt}{{x}} {text} {prompt} {answer}"),
    ],
)
def test_a_template_gets_one_more_slot_where_the_input_stands_before_the_first_one(template, found):
    assert showing(Template.parse(template)) == Template.parse(found)


def test_in_a_chat_the_slot_begins_the_message_of_the_input():
    chat = [{"system": "Be brief."}, {"user": "{text}"}, {"assistant": "{prompt} {answer}"}]
    found = showing(Template.parse(chat))
    assert found.messages == (
        ("system", "Be brief."),
        ("user", "{prompt}{text}"),
        ("assistant", "{prompt} {answer}"),
    )
    assert showing(Template.parse(chat[::2])) == Template.parse(chat[::2]), "no field at all"


def test_they_score_as_in_the_template_that_has_its_slot_there(under, tiny, tmp_path):
    behind, before = under("{text} {prompt} {answer}"), under("{prompt}{text} {answer}")
    for name, task in (("behind", behind), ("before", before)):
        compare(study(SHOWING, pool=POOL), out=tmp_path / name, model=tiny, task=task)
    found, same = results_of(tmp_path / "behind"), results_of(tmp_path / "before")
    for name in found:
        assert found[name]["winner"]["key"] == same[name]["winner"]["key"], name
        for split in ("search", "select", "test"):
            assert found[name][split]["loss"] == pytest.approx(same[name][split]["loss"], abs=1e-6)
        saved = load_prompt(tmp_path / "behind" / name)
        assert saved.template.text == "{prompt}{text} {prompt} {answer}"
        assert saved.verify(tiny) < 1e-5
        rows = [dict(example.fields) for example in behind.splits["test"].examples]
        chosen = [row["answer"] for row in saved.apply(rows, tiny)]
        told = found[name]["test"]["predictions"]
        assert chosen == [("bad", "good")[place] for place in told]


def test_all_other_prompts_stand_in_the_slots_of_the_template(under, tiny, tmp_path):
    task = under("{text} {prompt} {answer}")
    rows = ["random", {"manual": {"prompts": ["the"]}}, "prompt_tuning"]
    alone, beside = study(rows), study([*rows, *SHOWING])
    compare(alone, out=tmp_path / "alone", model=tiny, task=task)
    compare(beside, out=tmp_path / "beside", model=tiny, task=task)
    found = results_of(tmp_path / "beside")
    for name, run in results_of(tmp_path / "alone").items():
        assert run["test"]["losses"] == found[name]["test"]["losses"], name
        saved = load_prompt(tmp_path / "beside" / name)
        assert saved.template.text == task.template.text


def test_words_of_the_pool_need_not_join_with_what_only_examples_stand_before(
    under, tiny, tmp_path
):
    # " movie" before "ridge" would be cut elsewhere.
    task = under("ridge {text} {prompt} {answer}")
    rows = [{"exemplars": {"shots": 2}}, "random"]
    compare(study(rows, pool=["movie", "the"]), out=tmp_path, model=tiny, task=task)
    assert len(results_of(tmp_path)) == 2


def test_where_a_run_starts_from_another_one_its_prompts_stand_where_that_one_has_them():
    rows = [
        {"manual": {"prompts": ["the"]}},
        "exemplars",
        {"prune": {"label": "shown"}},
        {"prune": {"label": "given", "prompts": ["the film is"]}},
        {"prune": {"label": "from-words", "start": {"run": "manual"}}},
        {"prune": {"label": "from-examples", "start": {"run": "exemplars"}}},
        {"grips": {"start": {"run": "from-examples"}}},
        {"genetic": {"start": {"run": "exemplars"}}},
        {"joint": {"start": {"run": "manual"}}},
        {"prompt_tuning": {"start": {"run": "exemplars"}}},
    ]
    entries = entries_of(parse_config({**study(rows), "model": "m", "task": "capitals"}))
    assert {entry.given.label for entry in entries if entry.shows} == {
        "exemplars",
        "shown",
        "from-examples",
        "grips",
        "joint",
    }


@pytest.mark.parametrize("name", ["distil", "distil_prefix", "cpt"])
def test_winners_before_the_input_are_not_trained_in_slots_behind_it(name, under, tiny):
    rows = [{"exemplars": {"shots": 4}}, {name: {"start": {"run": "exemplars"}}}]
    config = parse_config({**study(rows, length=20, budget=50_000), "model": "m", "task": "films"})
    with pytest.raises(StudyError, match=f"'{name}' trains .* has its first slot behind it"):
        prepare(config, tiny, under("{text} {prompt} {answer}"))
    before = prepare(config, tiny, under("{prompt} {text} {answer}"))
    assert [entry.shows for entry in before.entries] == [True, True]
    assert len({key.shows for key in before.arenas}) == 1


@pytest.mark.parametrize("name", ["distil", "distil_prefix", "cpt"])
def test_drawn_examples_are_not_trained_in_slots_behind_the_input(name, under, tiny):
    config = parse_config({**study([name]), "model": "m", "task": "films"})
    with pytest.raises(StudyError, match=f"'{name}' trains .* has its first slot behind it"):
        prepare(config, tiny, under("{text} {prompt} {answer}"))
    assert prepare(config, tiny, under("{prompt} {text} {answer}")).entries[0].shows


@pytest.mark.parametrize("name", ["distil", "distil_prefix"])
def test_other_texts_are_taught_in_slots_behind_the_input(name, under, tiny):
    text = "the film " * 20
    rows = [
        {"manual": {"prompts": [text]}},
        {name: {"label": "found", "start": {"run": "manual"}}},
        {name: {"label": "given", "text": text}},
    ]
    config = parse_config({**study(rows, length=20, budget=50_000), "model": "m", "task": "films"})
    entries = prepare(config, tiny, under("{text} {prompt} {answer}")).entries
    assert not any(entry.shows for entry in entries)


def test_what_starts_from_solved_examples_has_their_texts(under, tiny, tmp_path):
    task = under("{text} {prompt} {answer}")
    rows = [{"exemplars": {"shots": 2}}, {"prune": {"start": {"run": "exemplars"}}}]
    compare(study(rows, budget=12_000), out=tmp_path, model=tiny, task=task)
    found = results_of(tmp_path)
    start = found["films/prune/seed0"]["start"]
    assert start["select"]["loss"] == found["films/exemplars/seed0"]["select"]["loss"]
    template = load_prompt(tmp_path / "films/prune/seed0").template
    assert template.text == "{prompt}{text} {prompt} {answer}"


def test_a_look_at_the_room_scores_them_before_the_input(under, tiny):
    task = under("{text} {prompt} {answer}")
    config = parse_config(
        {**study(["random", {"exemplars": {"shots": 2}}]), "model": "m", "task": "films"}
    )
    prepared = prepare(config, tiny, task)
    (found,) = headroom(prepared, {}).tasks
    (name,) = [name for name in found.controls if name.count(" | ")]
    texts = name.split(" | ")
    assert texts[1] == "" and texts[0].count("\n") == 2
    shown = replace(task, template=showing(task.template).bind(2))
    engine = Engine(tiny, shown.template, task.splits["search"], task.choices)
    ids = np.arange(20)
    scores = engine.score([TextPrompt(texts[0])], ids)
    assert found.controls[name] in (
        pytest.approx(scores.metric[0, : len(ids)].mean()),
        pytest.approx(scores.metric[0, :16].mean()),
    )


def test_without_a_row_of_them_a_look_shows_some_all_the_same(under, tiny):
    task = under("{text} {prompt} {answer}")
    prepared = prepare(
        parse_config({**study(["random"]), "model": "m", "task": "films"}), tiny, task
    )
    (found,) = headroom(prepared, {}).tasks
    assert any(name.count(" | ") for name in found.controls)


def test_winners_are_carried_over_each_in_its_own_template(under, tmp_path):
    task, models = under("{text} {prompt} {answer}"), []
    for name, architecture, width in (("small", "llama", 32), ("large", "gemma3", 48)):
        models.append(str(tmp_path / name))
        for part in tiny_model(architecture, width=width):
            part.save_pretrained(models[-1])
    rows = ["random", {"exemplars": {"shots": 2}}]
    keys = study(rows, model=models, transfer=True, budget=4_000)
    compare(keys, out=tmp_path / "study", task=task)
    carried = load_transfer(tmp_path / "study").carried
    assert len(carried) == 4 and not any(each.error for each in carried)
    for each in carried:
        lm = LanguageModel.load(str(tmp_path / each.target))
        template = showing(task.template) if each.label == "exemplars" else task.template
        assert len(each.texts) == len(template.slots)
        engine = Engine(lm, template.bind(2), task.splits["test"], task.choices)
        (losses,) = engine.score([TextPrompt(each.texts)], np.arange(20)).losses
        assert each.loss == pytest.approx(losses.mean(), abs=1e-5)
