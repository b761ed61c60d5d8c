"""A study on an encoder-decoder model: every kind of strategy, its bill, its exports, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest

from promptsearch import Task, compare
from promptsearch.errors import StudyError, TemplateError
from promptsearch.export import load_prompt
from promptsearch.models import LanguageModel
from promptsearch.study.config import parse_config
from promptsearch.study.forecast import forecast
from promptsearch.study.prepare import prepare
from promptsearch.tasks.decoding import Decoding
from promptsearch.testing.tiny_seq2seq import tiny_seq2seq

pytestmark = pytest.mark.usefixtures("unreported")

TEMPLATE = "{prompt} {text} It was {answer}"
TRAINED = {"interval": 2, "batch": 4}
STRATEGIES = [
    {"manual": {"prompts": ["good movie?", "It was"]}},
    "random",
    {"gcg": {"batch": 4}},
    {"black_box_tuning": {"dimensions": 4}},
    {"prompt_tuning": TRAINED},
    {"p_tuning": {**TRAINED, "encoder": "mlp"}},
    {"prefix_tuning": {**TRAINED, "hidden": 8}},
    {"fine_tuning": TRAINED},
    {"fine_tuning_top2": TRAINED},
    {"lora": TRAINED},
    {"adapter": TRAINED},
    {"p_tuning_lm": {**TRAINED, "hidden": 8}},
]
WORDS = ["good", "film", "the", "story", "I", "hate", "capital", "bad", "It", "was"]


@pytest.fixture(scope="module")
def t5():
    return LanguageModel(*tiny_seq2seq("t5", layers=1), name="t5")


def films(template=TEMPLATE, *, text=False):
    rng = np.random.default_rng(0)
    rows = [
        {
            "text": " ".join(rng.choice(WORDS, rng.integers(6, 14))),
            "label": ("good", "Paris", "Berlin", "bad movie")[i % 4] if text else i % 2,
        }
        for i in range(80)
    ]
    task = Task.from_rows(
        rows,
        template=template,
        label="label",
        answers=None if text else {0: "bad", 1: "good"},
        splits={"search": 24, "select": 8, "test": 12},
        name="films",
    )
    return replace(task, decoding=Decoding(3)) if text else task


def study(strategies=STRATEGIES, **changes):
    given = {"name": "s", "model": "given", "task": "capitals", "budget": 5_000, "length": 2}
    return {**given, "score_on": 8, "seeds": 1, "strategies": strategies, **changes}


def results(folder):
    read = [json.loads(path.read_text()) for path in folder.rglob("result.json")]
    return {one["label"]: one for one in read}


@pytest.mark.parametrize(
    ("architecture", "text", "strategies"),
    [("t5", False, STRATEGIES), ("bart", True, STRATEGIES[1::3])],
    ids=["choices", "text"],
)
def test_all_kinds_of_strategies_run_as_planned_and_their_winners_leave(
    architecture, text, strategies, tmp_path
):
    lm = LanguageModel(*tiny_seq2seq(architecture, layers=1), name=architecture)
    task, given = films(text=text), study(strategies)
    plan = forecast(parse_config(given), lm, task)
    compare(given, out=tmp_path, model=lm, task=task)
    found = results(tmp_path)
    assert found.keys() == {next(iter(s)) if isinstance(s, dict) else s for s in strategies}
    for run in plan.runs:
        result = found[run.label]
        assert result["export"] is None, result["export"]
        assert 1 / 1.5 < run.price / result["spent"] < 1.5, run.label
        saved = load_prompt(tmp_path / "films" / run.label / "seed0")
        answered = next(iter(saved.apply([dict(saved.probe[0].fields)], lm)))
        assert ("probabilities" in answered) is not text


def test_an_encoder_decoder_model_proposes(t5, tmp_path):
    compare(study([{"llm_proposed": {}}]), out=tmp_path, model=t5, task=films())
    (found,) = results(tmp_path).values()
    assert found["spent"] > 0 and list(tmp_path.rglob("proposals.jsonl"))


def test_strategies_without_a_meaning_are_refused_with_those_that_work(t5):
    with pytest.raises(StudyError, match="'llama_adapter' proposes gated prompts, but 't5' is an "):
        prepare(parse_config(study(["random", {"llama_adapter": TRAINED}])), t5, films())


@pytest.mark.parametrize(
    "template", ["{prompt} It was {answer}: {text}", "{prompt} {text} It was {answer:pll}"]
)
def test_an_answer_in_the_middle_is_refused(t5, template):
    with pytest.raises(TemplateError, match="'t5' is an encoder-decoder model, whose decoder"):
        prepare(parse_config(study(["random"])), t5, films(template))
