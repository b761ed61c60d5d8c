"""A study on a masked model: every kind of strategy, its bill, its exports, and what is refused."""

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from promptsearch import Task, compare
from promptsearch.errors import StudyError, TemplateError
from promptsearch.export import load_prompt
from promptsearch.models import LanguageModel
from promptsearch.report.forecast import print_forecast
from promptsearch.study.config import parse_config
from promptsearch.study.forecast import forecast
from promptsearch.study.prepare import prepare
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny_masked import tiny_masked

pytestmark = pytest.mark.usefixtures("unreported")

TEMPLATE = "{prompt} {text} It was {answer}, and the story."
TRAINED = {"interval": 2, "batch": 4}
STRATEGIES = [
    {"manual": {"prompts": ["good movie?", "It was"]}},
    "random",
    {"gcg": {"batch": 4}},
    {"black_box_tuning": {"dimensions": 4}},
    {"prompt_tuning": TRAINED},
    {"p_tuning": {**TRAINED, "encoder": "mlp"}},
    {"prefix_tuning": {**TRAINED, "hidden": 8}},
    {"fine_tuning_top2": TRAINED},
    {"lora": TRAINED},
    {"adapter": TRAINED},
    {"p_tuning_lm": {**TRAINED, "hidden": 8}},
]
WORDS = ["good", "film", "the", "story", "I", "hate", "capital", "bad", "It", "was"]


@pytest.fixture(scope="module")
def bert():
    return LanguageModel(*tiny_masked("bert"), name="bert")


def films(template=TEMPLATE, *, text=False, answers=("bad", "good")):
    rng = np.random.default_rng(0)
    rows = [
        {
            "text": " ".join(rng.choice(WORDS, rng.integers(6, 14))),
            "label": ("good", "Paris", "Berlin", "bad movie")[i % 4] if text else i % 2,
        }
        for i in range(80)
    ]
    return Task.from_rows(
        rows,
        template=template,
        label="label",
        answers=None if text else dict(enumerate(answers)),
        splits={"search": 24, "select": 8, "test": 12},
        name="films",
    )


def study(strategies=STRATEGIES, **changes):
    given = {"name": "s", "model": "given", "task": "capitals", "budget": 5_000, "length": 2}
    return {**given, "score_on": 8, "seeds": 1, "strategies": strategies, **changes}


def results(folder):
    read = [json.loads(path.read_text()) for path in folder.rglob("result.json")]
    return {one["label"]: one for one in read}


@pytest.mark.parametrize(("architecture", "text"), [("bert", True), ("albert", False)])
def test_all_kinds_of_strategies_run_as_planned_and_their_winners_leave(
    architecture, text, tmp_path
):
    lm = LanguageModel(*tiny_masked(architecture), name=architecture)
    task = films(text=text)
    plan = forecast(parse_config(study()), lm, task)
    compare(study(), out=tmp_path, model=lm, task=task)
    found = results(tmp_path)
    assert found.keys() == {next(iter(s)) if isinstance(s, dict) else s for s in STRATEGIES}
    for run in plan.runs:
        result = found[run.label]
        assert result["export"] is None, result["export"]
        assert 1 / 1.5 < run.price / result["spent"] < 1.5, run.label
        saved = load_prompt(tmp_path / "films" / run.label / "seed0")
        assert saved.template.behind == (", and the story.",)
        assert not text or saved.decoding.tokens == 1
        answered = next(iter(saved.apply([dict(saved.probe[0].fields)], lm)))
        assert ("probabilities" in answered) is not text


def test_the_plan_counts_the_masks_of_each_length_of_answers(bert):
    task = films("{text} {prompt} It was {answer}.", answers=("bad movie", "good", "bad"))
    plan = forecast(parse_config(study(["random"])), bert, task)
    (told,) = plan.tasks
    assert told.anatomy["answer"] == 3  # two masks in a row, one in another
    row = sum(told.anatomy.values()) + 2 * told.prompt
    assert told.asked == told.computed and told.kept == 0
    assert row == pytest.approx(told.asked / (told.shown * told.score_on), rel=0.2)
    console = Console(record=True, width=200, file=StringIO())
    print_forecast(plan, console)
    assert "shared    nothing, since what stands before a token depends" in console.export_text()


def test_a_finished_study_is_gone_on_with_to_the_same_numbers(bert, tmp_path):
    few = ["random", {"prefix_tuning": {**TRAINED, "hidden": 8}}]
    task = films()
    compare(study(few[:1]), out=tmp_path / "some", model=bert, task=task)
    compare(study(few), out=tmp_path / "some", model=bert, task=task)
    compare(study(few), out=tmp_path / "all", model=bert, task=task)
    for label, whole in results(tmp_path / "all").items():
        again = results(tmp_path / "some")[label]
        assert (
            again["test"]["losses"] == whole["test"]["losses"] and again["spent"] == whole["spent"]
        )


def test_answers_have_as_many_masks_as_most_of_the_search_split(bert):
    task = films(text=True)
    prepared = prepare(parse_config(study(["random"])), bert, task)
    (met,) = prepared.tasks
    lengths = [len(bert.encode(e.answer)) for e in task.splits["search"].examples]
    assert met.decoding.tokens == max(set(lengths), key=lengths.count)
    assert any("fills in answers of 1 token, as" in note for note in met.notes)


@pytest.mark.parametrize("way", [Decoding(beams=2), Decoding(temperature=1.0)])
def test_masked_models_neither_search_nor_draw_answers(bert, way):
    task = replace(films(text=True), decoding=way)
    with pytest.raises(StudyError, match="fills in the most probable token at each mask"):
        prepare(parse_config(study(["random"])), bert, task)


def test_strategies_without_a_meaning_are_refused_with_those_that_work(bert):
    with pytest.raises(StudyError, match="'llama_adapter' proposes gated prompts, but 'bert' is a"):
        prepare(parse_config(study(["random", {"llama_adapter": TRAINED}])), bert, films())


def test_a_causal_model_reads_nothing_behind_the_answer(tiny):
    task = films("{prompt} It was {answer}: {text}")
    with pytest.raises(TemplateError, match="'tiny-llama' reads from left to right"):
        prepare(parse_config(study(["random"])), tiny, task)


def test_a_template_needs_an_answer_on_masked_models_too():
    with pytest.raises(TemplateError, match=r"has no \{answer\}"):
        Template.parse("{prompt} {text} It was [MASK].")


ASKING = [
    {"llm_proposed": {}},
    {"llm_evolution": {}},
    {"reflect": {}},
    {"grips": {"substitute": "proposer"}},
    {"joint": {}},
]


@pytest.mark.parametrize("asking", ASKING, ids=lambda given: next(iter(given)))
def test_who_asks_a_model_that_writes_is_refused_where_there_is_none(asking, bert):
    label = next(iter(asking))
    with pytest.raises(StudyError, match=f"'{label}' asks .* 'bert' is a masked .* 'proposer'"):
        prepare(parse_config(study(["random", asking])), bert, films())


def test_a_judge_is_refused_where_no_model_writes(bert):
    task = replace(films(), metrics={"judge": {"question": "Is {output} right?"}})
    with pytest.raises(StudyError, match="the judge of task 'films' asks a model that writes"):
        prepare(parse_config(study(["random"])), bert, task)


def test_a_proposer_that_writes_nothing_is_refused_and_one_that_writes_is_taken(
    bert, tiny, tmp_path
):
    for name, lm in (("bert", bert), ("llama", tiny)):
        lm.model.save_pretrained(tmp_path / name)
        lm.tokenizer.save_pretrained(tmp_path / name)
    refused = parse_config(study(["random"], proposer=str(tmp_path / "bert")))
    with pytest.raises(StudyError, match="'proposer' names .*bert', which is a masked"):
        prepare(refused, tiny, films("{prompt} {text} It was {answer}"))
    taken = study([{"llm_proposed": {"batch": 2}}], proposer=str(tmp_path / "llama"))
    compare(taken, out=tmp_path / "out", model=bert, task=films())
    (found,) = results(tmp_path / "out").values()
    assert found["export"] is None and found["spent"] > 0
