"""Examples that are most like an input: found by hand, scored as texts, and used as measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from promptsearch import (
    LanguageModel,
    NearestPrompt,
    PromptedModel,
    TextPrompt,
    compare,
    load_prompt,
)
from promptsearch.errors import ExportError, PromptError, StrategyError
from promptsearch.export import export_run
from promptsearch.prompts.kinds import own_copy, prompt_from_json
from promptsearch.scoring import Engine
from promptsearch.scoring.protocol import price_of
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.exemplars import ExemplarsNearest
from promptsearch.tasks.decoding import Decoding
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.families import FAMILIES, PlantedAnswers
from promptsearch.testing.planted import planted_objective
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_engine, tiny_task
from promptsearch.testing.tiny_tokenizers import tokenizer_of

STORE = tuple(
    (text, f"{text} It was {answer}")
    for text, answer in [
        ("good film", "good"),
        ("I hate the story", "bad"),
        ("the capital", "bad"),
        ("a good movie", "good"),
        ("the story of a film", "good"),
    ]
)


@pytest.fixture(scope="module")
def small():
    return LanguageModel(*FAMILIES["causal"](), name="small")


class TestExemplarsNearest(StrategyConformance):
    strategy = ExemplarsNearest
    options = {"shots": 2}
    few = 6
    # No prompt fails on this model.
    test_goes_on_where_prompts_fail = None

    @pytest.fixture(autouse=True)
    def model(self, small):
        type(self).lm = small

    def searched(self, kind="separable", *, pool=100, length=4, failing=0.0):
        return PlantedAnswers(self.lm, pool=pool, length=length)


def nearest(lm, store, text, shots):
    """The examples most like a text, the nearest one last, by hand."""
    table = lm.vocabulary.double().numpy()
    means = np.array([table[lm.encode(each)].mean(0) for each, _ in store])
    query = table[lm.encode(text)].mean(0) - means.mean(0)
    cosines = [
        query @ mean / np.linalg.norm(query) / np.linalg.norm(mean)
        for mean in means - means.mean(0)
    ]
    return [store[i][1] for i in sorted(range(len(store)), key=lambda i: cosines[i])[-shots:]]


@pytest.mark.parametrize("answers", [("bad", "good"), ("very bad", "good"), None])
def test_each_row_is_scored_below_its_own_examples(small, answers):
    task = tiny_task(answers=answers)
    split, ids = task.splits["test"], np.arange(6)
    engine = Engine(small, task.template.bind(3), split, task.choices)
    prompt = NearestPrompt(STORE, 2)
    found = engine.score([TextPrompt("good"), prompt], ids)
    lengths = []
    for e in ids:
        shown = nearest(small, STORE, split.examples[e].fields["text"], 2)
        alone = TextPrompt("".join(each + "\n" for each in shown))
        lengths.append(engine.length(alone))
        expected = engine.score([alone], ids[e : e + 1])
        np.testing.assert_allclose(found.losses[1, e], expected.losses[0, 0], atol=1e-5)
        assert found.metric[1, e] == expected.metric[0, 0]
    plain = engine.score([TextPrompt("good")], ids).losses[0]
    np.testing.assert_allclose(found.losses[0], plain, atol=1e-5)
    # What is charged is what the rows hold, but for the rounding of their mean.
    charged = price_of(engine, engine.length(prompt), ids)
    assert 0 <= charged - (engine.context(ids).sum() + sum(lengths)) < len(ids)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize(
    "template", ["{prompt} {text} It was {answer}", "{text} {prompt} {answer}"]
)
def test_rows_of_their_own_examples_go_together_and_leave_other_prompts_alone(
    family, template, keep
):
    engine = tiny_engine(LanguageModel(*FAMILIES[family]()), template, keep=keep)
    hard = [TextPrompt(words) for words in ("good", "good film", "good movie")]
    prompt, ids = NearestPrompt(STORE, 2), np.array([3, 0, 5, 3, 1])
    engine.score(hard, np.arange(12))  # what is kept is kept by now
    apart = [engine.score(some, ids) for some in ([prompt], hard)]
    rows = [engine.score([prompt], ids[i : i + 1]) for i in range(len(ids))]
    found = engine.score([hard[0], prompt, *hard[1:]], ids)
    assert np.abs(found.losses[1] - [row.losses[0, 0] for row in rows]).max() < 3e-5
    assert np.abs(found.losses[[0, 2, 3]] - apart[1].losses).max() < 3e-5
    assert apart[0].computed == sum(row.computed for row in rows) - rows[3].computed
    assert found.computed == sum(each.computed for each in apart)


@pytest.mark.parametrize("kind", ["always", "first"])
def test_an_input_that_is_shown_nothing_is_scored_as_the_beginning_of_its_row(kind):
    """These tokenizers cut what begins a row in another way."""
    lm = LanguageModel(tiny_model("llama")[0], tokenizer_of(kind))
    engine = tiny_engine(lm, "{prompt}{text} It was {answer}", ("bad", "very good"))
    prompt = NearestPrompt((("good film", ""), ("capital", "the capital"), ("story", "")), 1, "")
    ids = np.arange(12)
    shown = [prompt.before(lm)(example.fields) for example in engine.examples(ids)]
    assert {each.texts for each in shown} == {("",), ("the capital",)}
    found = engine.score([prompt], ids)
    for e, own in zip(ids, shown, strict=True):
        alone = engine.score([own], ids[e : e + 1])
        assert abs(found.losses[0, e] - alone.losses[0, 0]) < 3e-5


def test_answers_are_generated_below_their_own_examples(small):
    task = tiny_task(answers=None)
    split, ids, decoding = task.splits["test"], np.arange(4), Decoding(tokens=4)
    engine = Engine(small, task.template.bind(3), split, None)
    found = engine.generate([NearestPrompt(STORE, 2)], ids, decoding)
    for e in ids:
        shown = nearest(small, STORE, split.examples[e].fields["text"], 2)
        alone = TextPrompt("".join(each + "\n" for each in shown))
        assert found.texts[0][e] == engine.generate([alone], ids[e : e + 1], decoding).texts[0][0]


def test_a_row_that_is_too_long_fails_the_prompt(small):
    task = tiny_task()
    engine = Engine(small, task.template.bind(3), task.splits["test"], task.choices)
    prompt = NearestPrompt((*STORE, ("good film 3", "good " * 2_000)), 6)
    assert not engine.fits(prompt)
    assert "has" in engine.score([prompt], np.arange(2)).failures[0]


def test_the_store_holds_what_is_not_scored_on(small):
    objective = PlantedAnswers(small).objective()
    search(ExemplarsNearest(objective, seed=0, shots=3))
    (prompt,) = [item.prompt for item in objective.ranking]
    assert [solved for _, solved in prompt.store] == objective.demonstrations(objective.training)
    with pytest.raises(StrategyError, match="99 shots were asked for, but only 16 examples"):
        make_strategy("it", ExemplarsNearest, planted_objective(), 0, {"shots": 99})


def test_a_store_is_told_in_full_and_cannot_be_changed():
    prompt = NearestPrompt(STORE, 2, " ")
    assert prompt_from_json(json.loads(json.dumps(prompt.to_json()))) == prompt == own_copy(prompt)
    with pytest.raises(PromptError, match="the file was changed"):
        prompt_from_json({**prompt.to_json(), "shots": 3})
    for wrong in ({"shots": "2"}, {"store": [["a"]]}, {"store": []}, {"shots": 0}):
        with pytest.raises(PromptError, match="expected"):
            prompt_from_json({**prompt.to_json(), **wrong})


@pytest.fixture(scope="module")
def study(small, films, tmp_path_factory):
    """The folder of a run, and what it found."""
    out = tmp_path_factory.mktemp("study")
    given = {"name": "s", "budget": 20_000, "score_on": 8, "seeds": 1, "length": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptsearch.report.write.write_report", lambda folder: None)
        given["strategies"] = [{"exemplars_nearest": {"shots": 2}}]
        (run,) = compare(given, out=out, model=small, task=films).runs
    return out / run.task / run.label / "seed0", run


def test_its_export_is_what_was_measured_and_answers_so(study, small, films):
    folder, run = study
    saved = load_prompt(folder)
    assert run.export is None and saved.verify(small) < 1e-5
    assert run.winner.text == "the 2 nearest of 32 solved examples"
    rows = [{**e.fields, "answer": e.answer.strip()} for e in films.splits["test"].examples]
    model = PromptedModel(small, {"near": saved})
    named = [{**row, "prompt": "near"} for row in rows]
    np.testing.assert_allclose(model.score(named), run.test.losses, atol=1e-5)
    said = [row["answer"] for row in saved.apply(rows, small)]
    right = [answer == row["answer"] for answer, row in zip(said, rows, strict=True)]
    assert right == list(map(bool, run.test.correct))


@pytest.mark.parametrize("to", ["text", "promptfoo", "vllm", "kv", "peft"])
def test_no_format_takes_one_text_for_all(study, small, to, tmp_path):
    with pytest.raises(ExportError, match="is another text before each input"):
        export_run(study[0], to, tmp_path / "out", model=small)
