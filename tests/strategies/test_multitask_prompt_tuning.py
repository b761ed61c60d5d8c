"""Multitask prompt tuning: the conformance suite, PEFT as an oracle, both stages, what is paid."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch import LanguageModel, compare
from promptsearch.errors import OptionError, StrategyError, StudyError, UnknownName
from promptsearch.search import loop
from promptsearch.search.options import check_options
from promptsearch.strategies.multitask_prompt_tuning import MultitaskPromptTuning, SharedPrompt
from promptsearch.study.config import parse_config
from promptsearch.study.forecast import forecast
from promptsearch.study.prepare import prepare
from promptsearch.testing import conformance
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import random_search
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_engine

OPTIONS = {"tasks": ["own", "other"], "interval": 4, "batch": 4, "rate": 0.05}


class Beside(PlantedScorer):
    """A planted task with another one beside it, which has the same planted prompt."""

    def __init__(self, kind, **given):
        super().__init__(kind, **given)
        self.other = PlantedScorer(kind, **given)

    def objective(self, budget=None, **more):
        others = {"other": (self.other, self.other.training)}
        return super().objective(budget, **{"others": others, **more})


class TestMultitaskPromptTuning(StrategyConformance):
    strategy = MultitaskPromptTuning
    options = OPTIONS
    evaluations, few, seeds = 40, 20, 5

    def searched(self, kind="separable", **given):
        return Beside(kind, **given)

    @pytest.fixture(autouse=True)
    def _beside(self, monkeypatch):
        monkeypatch.setattr(conformance, "PlantedScorer", Beside)


def tune(scorer, evaluations=20, seed=0, **given):
    """A finished search, and the strategy that made it."""
    objective = scorer.objective(scorer.budget(evaluations))
    strategy = MultitaskPromptTuning(objective, seed=seed, **{**OPTIONS, **given})
    loop.search(strategy)
    return objective, strategy


# What is learned.


def test_it_beats_random_and_another_task_helps_where_its_prompt_is_the_same():
    better, helped = 0, 0
    for seed in range(20):
        scorer = Beside("separable", seed=seed)
        objective, _ = tune(scorer, seed=seed, share=0.7)
        found = objective.ranking[0].value
        better += found < random_search(scorer, 20, seed)
        scorer.other = PlantedScorer("separable", seed=seed + 20)  # another planted prompt
        objective, _ = tune(scorer, seed=seed, share=0.7)
        helped += found < objective.ranking[0].value
    assert better >= 19 and helped >= 17


def test_prompts_and_gradients_are_those_of_peft():
    import peft

    lm = LanguageModel(*tiny_model("llama"))
    engine = tiny_engine(lm, "{prompt} {text} It was {answer}", None, length=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = peft.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=3, num_tasks=2
        )
        theirs = peft.get_peft_model(copy.deepcopy(lm.model), kind)
    (encoder,) = theirs.prompt_encoder.values()
    generator = torch.Generator().manual_seed(0)
    ours = SharedPrompt(0.1 * torch.randn(3, engine.embeddings.shape[1], generator=generator), 2)
    with torch.no_grad():
        encoder.embedding.weight.copy_(ours.shared[0])
        for tensor in (*ours.rows, *ours.columns):
            tensor += torch.randn(tensor.shape, generator=generator)
        for task in range(2):
            encoder.prefix_task_cols[task, :, 0] = ours.rows[task]
            encoder.prefix_task_rows[task, 0] = ours.columns[task]
    for task, example in enumerate((2, 5)):
        ours.task = task
        loss = engine.loss(ours(), np.array([example]))
        loss.backward()
        layout = engine.layout(example)
        behind, (answer,) = [*layout.segments[1]], layout.answers
        ids = torch.tensor([[*behind, *answer[:-1]]])
        logits = theirs(input_ids=ids, task_ids=torch.tensor([task])).logits[0]
        nats = logits[-len(answer) :].log_softmax(-1)[range(len(answer)), answer]
        (-nats.sum()).backward()
        assert float(loss.detach()) == pytest.approx(-float(nats.sum().detach()), rel=1e-4)
    pairs = [(ours.shared[0].grad, encoder.embedding.weight.grad)]
    for task in range(2):
        pairs += [(ours.rows[task].grad, encoder.prefix_task_cols.grad[task, :, 0])]
        pairs += [(ours.columns[task].grad, encoder.prefix_task_rows.grad[task, 0])]
    for mine, other in pairs:
        assert torch.allclose(mine, other, atol=1e-6, rtol=1e-3) and mine.norm() > 1e-4


class Watched(MultitaskPromptTuning):
    """Notes the task of each step, what was spent before it, and its share of the peak rate.

    It also notes whose prompts are scored.
    """

    def ask(self):
        asked = super().ask()
        self.asked = [*getattr(self, "asked", []), self.prompts.task]
        return asked

    def minibatch(self):
        spent, rate = self.objective.ledger.spent, self.schedule(self.training.steps)
        self.seen = [*getattr(self, "seen", []), (self.prompts.task, spent, rate)]
        if self.training.steps == self.source:
            self.before = copy.deepcopy(self.prompts.state_dict())
        return super().minibatch()


def test_all_tasks_are_learned_first_and_then_the_runs_own():
    scorer = Beside("separable")
    own = scorer.objective(scorer.budget(60))
    sizes = {"other": (scorer.other, scorer.other.training[:4])}  # 16 examples against 4
    strategy = Watched(
        scorer.objective(scorer.budget(60), others=sizes), seed=0, share=0.6, **OPTIONS
    )
    loop.search(strategy)
    tasks, spent, rates = map(np.array, zip(*strategy.seen, strict=True))
    source = strategy.source
    assert set(strategy.asked) == {0} and len(strategy.asked) > 10
    assert set(tasks[source:]) == {0} and 0 < tasks[:source].mean() < 0.45
    assert spent[source] / strategy.objective.ledger.spent == pytest.approx(0.6, abs=0.06)
    assert len(tasks) == strategy.planned and own.ledger.budget - spent[-1] < 0.1 * spent[-1]
    # Both stages begin and end with a low rate.
    assert max(rates[:source]) == max(rates[source:]) == 1
    assert max(rates[[source - 1, source, -1]]) < 0.5
    after = strategy.prompts.state_dict()
    moved = {name for name in after if not torch.equal(after[name], strategy.before[name])}
    assert moved == {"shared.0", "rows.0", "columns.0"}
    assert all((tensor != 1).any() for tensor in after.values())


def test_what_is_a_tasks_own_may_have_a_rate_of_its_own():
    objective = Beside("separable").objective(40_000)
    strategy = MultitaskPromptTuning(objective, seed=0, task_rate=2.0, **OPTIONS)
    assert list(strategy.shares().values()) == [1.0, 2.0, 2.0]


# What is paid.


def test_another_task_costs_what_it_costs_there_and_its_lead_once():
    scorer = Beside("separable", length=4)
    objective = scorer.objective()
    numbers = torch.zeros(4, 8, requires_grad=True)
    ids, other = objective.others["other"].training[:3], objective.others["other"]
    alone = scorer.other.objective()
    for _ in range(2):
        loss = other.loss(numbers, ids)
        assert float(loss.detach()) == pytest.approx(float(alone.loss(numbers, ids).detach()))
        assert replace(objective.ledger) == replace(alone.ledger)
    assert other.price([], ids) == 0 and objective.price([], ids) > 0
    with pytest.raises(ValueError, match="read-only"):
        other.training[0] = 1


# In a study.

TASK = {
    "data": {"path": "rows.jsonl"},
    "template": "{prompt} {text} It was {answer}",
    "label": "label",
    "answers": {0: "bad", 1: "good"},
    "splits": {"search": 24, "select": 8, "test": 12},
}


@pytest.fixture
def study(tmp_path):
    rng = np.random.default_rng(0)
    words = ["good", "film", "the", "story", "I", "hate", "capital", "bad"]
    rows = [{"text": " ".join(rng.choice(words, 9)), "label": i % 2} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def made(*names, tasks=("a", "b"), **more):
        row = {"tasks": list(tasks), "interval": 4, "batch": 4}
        given = {
            "name": "s",
            "model": "m",
            "tasks": [{"name": name, **TASK, **more.get(name, {})} for name in names],
            "length": 2,
            "budget": 12_000,
            "score_on": 4,
            "seeds": 1,
            "strategies": [{"multitask_prompt_tuning": row}],
        }
        return parse_config(given, folder=tmp_path)

    return made


def test_a_study_runs_as_it_was_planned_and_reads_no_test_example(study, tiny, tmp_path):
    config = study("a", "b", b={"template": "{prompt} {text} So it was {answer}"})
    prepared = prepare(config, tiny)
    for run in prepared.runs(tmp_path):
        ((name, arena),) = run.others.items()
        assert {run.arena.task.name, name} == {"a", "b"} and name == arena.task.name
        assert arena is prepared.arena(arena.task, prepared.entries[0], run.seed)
    planned = forecast(config, tiny)
    found = compare(config, out=tmp_path / "out", model=tiny)
    for run, told in zip(found.runs, planned.runs, strict=True):
        assert run.task == told.task and run.winner.kind == "soft"
        assert told.price == pytest.approx(run.spent, rel=0.02)
        assert run.trainable == 2 * 32 + 2 * (2 + 32)  # P*, and u and v of each task
    page = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "multitask_prompt_tuning" in page


@pytest.mark.parametrize(
    ("names", "more", "error", "reason"),
    [
        (["a"], {}, UnknownName, "unknown task of the study, on which .* could train 'b'"),
        (
            ["a", "b"],
            {"b": {"template": "{prompt:5} {text} It was {answer}"}},
            StudyError,
            "task 'a' takes 2 tokens and that of task 'b' 5: leave the numbers out",
        ),
    ],
)
def test_a_study_without_a_fitting_other_task_is_refused(study, tiny, names, more, error, reason):
    with pytest.raises(error, match=reason):
        prepare(study(*names, **more), tiny)


@pytest.mark.parametrize(
    ("tasks", "reason"), [(["a"], "at least 2"), (["a", "b", "a"], "'tasks' names 'a' twice")]
)
def test_tasks_that_are_not_several_are_refused(tasks, reason):
    with pytest.raises(OptionError, match=reason):
        check_options("multitask_prompt_tuning", MultitaskPromptTuning, {"tasks": tasks})


def test_an_objective_without_other_tasks_is_refused():
    with pytest.raises(StrategyError, match="there is none besides the run's own"):
        MultitaskPromptTuning(PlantedScorer("separable").objective(), seed=0, tasks=["a", "b"])


@pytest.mark.parametrize(
    "given", [{"steps": 30, "share": 0.95, "interval": 16}, {"share": 0.99, "interval": 4}]
)
def test_a_step_at_least_is_left_for_the_runs_own_task(given):
    _, strategy = tune(Beside("separable"), **given)
    assert 0 < strategy.source < strategy.training.steps


def test_steps_that_source_training_would_take_alone_are_refused():
    with pytest.raises(
        OptionError, match="'steps' is 8: source training alone takes an 'interval'"
    ):
        check_options(
            "multitask_prompt_tuning",
            MultitaskPromptTuning,
            {"tasks": ["a", "b"], "steps": 8, "interval": 8},
        )
