"""Calibration by hand: numbers of transformers' own forward, corrected in numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from promptsearch import (
    CalibratedPrompt,
    LanguageModel,
    PromptedModel,
    TextPrompt,
    compare,
    load_prompt,
)
from promptsearch.errors import ExportError, PromptError, StrategyError
from promptsearch.export import export_run
from promptsearch.prompts.kinds import own_copy, prompt_from_json
from promptsearch.scoring import Engine
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.search.options import check_options
from promptsearch.strategies.calibrated import Calibrated
from promptsearch.strategies.manual import Manual
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.families import FAMILIES, PlantedAnswers
from promptsearch.testing.planted import PlantedScorer, planted_objective
from promptsearch.testing.tiny_task import tiny_task

#: Answers of one token, and of several of different lengths.
ANSWERS = {"one token": ("bad", "good"), "several": ("very bad", "good", "not so good")}
WORDS, INPUTS = "good movie?", ("N/A", "", "[MASK]")


class TestCalibrated(StrategyConformance):
    strategy = Calibrated
    options = {"prompts": [WORDS]}
    few = 6
    # No prompt fails on this model.
    test_goes_on_where_prompts_fail = None

    @pytest.fixture(autouse=True)
    def model(self, small):
        type(self).lm = small

    def searched(self, kind="separable", *, pool=100, length=4, failing=0.0):
        return PlantedAnswers(self.lm, pool=pool, length=length)


@pytest.fixture(scope="module")
def small():
    return LanguageModel(*FAMILIES["causal"](), name="small")


def nats(lm, text, answers):
    """The log-probability of each answer behind a text, by transformers alone."""
    found = []
    for answer in answers:
        above, ids = lm.encode(text), lm.encode_answer(f" {answer}")
        with torch.inference_mode():
            logits = lm.model(torch.tensor([[*above, *ids]])).logits[0].double()
        told = logits.log_softmax(-1)[len(above) - 1 :]
        found.append(sum(float(told[i, token]) for i, token in enumerate(ids)))
    return np.array(found)


def row(text):
    """The text under the template of the tiny task with the prompt."""
    return f"{WORDS} {text} It was"


class Films(PlantedAnswers):
    """The tiny task, with a log that is at hand."""

    def __init__(self, lm, answers=ANSWERS["one token"], template=None):
        super().__init__(lm)
        task = tiny_task(template or "{prompt} {text} It was {answer}", answers)
        self.engine = Engine(lm, task.template.bind(4), task.splits["search"], task.choices)
        self.examples = self.engine.examples(self._scored)

    def objective(self, *given, **named):
        objective = super().objective(*given, **named)
        self.log = objective.log
        return objective


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("method", ["contextual", "pmi"])
def test_a_loss_is_that_of_the_corrected_distribution(small, answers, method):
    searched = Films(small, answers)
    search(Calibrated(searched.objective(), seed=0, prompts=[WORDS], empty=False, method=method))
    ((losses,),) = [line["losses"] for line in searched.log.lines]
    inputs = INPUTS if method == "contextual" else ("",)
    # Zhao et al.: the mean over the inputs of what is normalised over the choices; Holtzman et al.:
    # what each answer has without the input, whatever the others have.
    shares = np.exp([log_softmax(nats(small, row(text), answers)) for text in inputs]).mean(0)
    without = np.log(shares) if method == "contextual" else nats(small, row(""), answers)
    for loss, example in zip(losses, searched.examples, strict=True):
        corrected = log_softmax(nats(small, row(example.fields["text"]), answers) - without)
        assert loss == pytest.approx(-corrected[example.choice], abs=1e-5)


def test_what_it_reads_without_content_is_charged(small):
    bills = []
    for strategy in (Manual, Calibrated):
        objective = Films(small).objective()
        given = {} if strategy is Manual else {"method": "contextual"}
        search(strategy(objective, seed=0, prompts=[WORDS], empty=False, **given))
        bills.append(objective.ledger.forward)
    read = [small.encode(f"{WORDS} {text} It was") for text in INPUTS]
    assert bills[1] - bills[0] == sum(len(ids) + len(ANSWERS["one token"]) for ids in read)


def test_each_prompt_is_tried_with_each_correction_while_the_budget_lasts(small):
    searched = Films(small)
    search(Calibrated(searched.objective(), seed=0, prompts=[WORDS, "capital"]))
    texts = [[p["texts"][0] for p in line["prompts"]] for line in searched.log.lines]
    assert texts == [[WORDS] * 2, ["capital"] * 2, [""] * 2]
    scarce = searched.objective(searched.budget(3))
    search(Calibrated(scarce, seed=0, prompts=[WORDS, "capital"]))
    assert [len(line["prompts"]) for line in searched.log.lines][:1] == [2]
    assert len(searched.log.lines) < 3


def test_an_input_before_which_nothing_stands_is_left_out(small):
    searched = Films(small, template="{prompt} {text}{answer}")
    search(Calibrated(searched.objective(), seed=0, prompts=[WORDS]))
    assert [len(line["prompts"]) for line in searched.log.lines] == [1, 1], "no empty input there"
    with pytest.raises(StrategyError, match="with some text before the answer"):
        search(Calibrated(searched.objective(), seed=0, method="pmi"))


@pytest.mark.parametrize(
    ("searched", "message"),
    [
        (lambda lm: Films(lm, None), "none that are the same in all rows"),
        (lambda lm: PlantedScorer("separable"), "a planted landscape reads no inputs"),
    ],
    ids=["text answers", "no inputs"],
)
def test_tasks_that_it_cannot_correct_are_refused(small, searched, message):
    with pytest.raises(StrategyError, match=message):
        search(Calibrated(searched(small).objective(), seed=0))


@pytest.mark.filterwarnings("error")
def test_choices_of_next_to_no_probability_are_corrected(monkeypatch):
    told = iter([[-800.0, -1.0], [-801.0, -1.0], [-802.0, -1.0]])
    monkeypatch.setattr(Objective, "content_free", lambda *_: np.array(next(told)))
    strategy = Calibrated(planted_objective(), seed=0, method="contextual")
    (prompt,) = strategy.ask()
    mean = -800 + np.log((1 + np.exp(-1) + np.exp(-2)) / 3)
    assert prompt.bias == pytest.approx(((-1 - mean) / 2, (mean + 1) / 2), abs=1e-5)


def test_nothing_to_score_is_refused():
    with pytest.raises(StrategyError, match="it has nothing to score: give 'prompts'"):
        check_options("calibrated", Calibrated, {"prompts": [], "empty": False})


def test_a_correction_of_other_choices_is_refused(small):
    reasons = [
        Films(small, answers).engine.score([CalibratedPrompt("a", bias)], np.arange(2)).failures[0]
        for answers, bias in [(("bad", "good"), (0, 1, 2)), (None, (0, 1))]
    ]
    assert "corrects 3 choices, but the task has 2" in reasons[0]
    assert "corrects 2 choices, but the task has none that are the same in all rows" in reasons[1]


def test_a_correction_is_told_in_full_and_cannot_be_changed():
    prompt = CalibratedPrompt(["a", "b"], [0.25, -1 / 3])
    assert prompt_from_json(json.loads(json.dumps(prompt.to_json()))) == prompt
    assert own_copy(prompt) == prompt != TextPrompt(["a", "b"])
    assert prompt.key != CalibratedPrompt(["a", "b"], [0.25, 1 / 3]).key
    with pytest.raises(PromptError, match="the file was changed"):
        prompt_from_json({**prompt.to_json(), "bias": [0.25, 0.5]})
    for bias in ([], [0.0, float("nan")]):
        with pytest.raises(PromptError, match="a finite number of nats for each choice"):
            CalibratedPrompt("a", bias)
    object.__setattr__(prompt, "bias", (0.0, float("inf")))
    with pytest.raises(StrategyError, match="was changed after it was made"):
        own_copy(prompt)


@pytest.fixture(scope="module")
def study(small, films, tmp_path_factory):
    """A study of a calibrated row: its folder, and what it found."""
    out = tmp_path_factory.mktemp("study")
    given = {
        "name": "controls",
        "budget": 20_000,
        "score_on": 8,
        "seeds": 1,
        "length": 2,
        "strategies": [{"calibrated": {"prompts": [WORDS, "capital"]}}],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptsearch.report.write.write_report", lambda folder: None)
        (run,) = compare(given, out=out, model=small, task=films).runs
    return out / run.task / run.label / f"seed{run.seed}", run


def test_its_export_is_what_was_measured_and_answers_so(study, small, films):
    folder, run = study
    saved = load_prompt(folder)
    assert saved.verify(small) < 1e-5 and run.export is None
    assert saved.prompt.bias == run.winner.bias and run.stored == len(films.choices)
    tests = films.splits["test"].examples
    rows = [{**e.fields, "answer": e.answer.strip()} for e in tests]
    model = PromptedModel(small, saved)
    np.testing.assert_allclose(model.score(rows), run.test.losses, atol=1e-5)
    said = [row["answer"] for row in saved.apply(rows, small)]
    right = [answer == row["answer"] for answer, row in zip(said, rows, strict=True)]
    assert right == list(map(bool, run.test.correct))


@pytest.mark.parametrize("to", ["text", "mlflow", "promptfoo", "vllm", "kv", "peft", "cartridge"])
def test_no_format_loses_the_correction(study, small, to, tmp_path):
    with pytest.raises(ExportError, match="a calibrated prompt adds numbers"):
        export_run(study[0], to, tmp_path / "out", model=small)
