"""LLaMA-Adapter: the conformance suite with both forms of gates, and where it starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch import GatedPrompt
from promptsearch.models import LanguageModel
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine
from promptsearch.search import loop
from promptsearch.search.books import books_of
from promptsearch.strategies.llama_adapter import LlamaAdapter
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.tiny import tiny_model


class TestHeads(StrategyConformance):
    strategy = LlamaAdapter
    options = {"interval": 2, "batch": 4, "rate": 0.03}
    planted = "separable"
    few = 30


class TestLayers(StrategyConformance):
    strategy = LlamaAdapter
    options = {"interval": 2, "batch": 4, "rate": 0.03, "gate": "layer", "layers": 2}
    planted = "separable"
    seeds = 5
    few = 30


def objective(evaluations=40, **given):
    scorer = PlantedScorer("separable", **given)
    return scorer.objective(scorer.budget(evaluations))


def make(given=None, **options):
    return LlamaAdapter(given or objective(), seed=0, **options)


@pytest.mark.parametrize(("gate", "width"), [("head", 2), ("layer", 1)])
def test_it_starts_from_the_lm_as_it_is(gate, width):
    strategy = make(gate=gate, layers=2)
    (prompt,) = strategy.ask()
    assert isinstance(prompt, GatedPrompt)
    assert tuple(prompt.vectors.shape) == (4, 2, 8) and tuple(prompt.gates.shape) == (2, width)
    assert not prompt.gates.any() and 0.7 < float(prompt.vectors.std()) < 1.3
    assert strategy.trainable == sum(tensor.numel() for tensor in prompt.tensors.values())


@pytest.mark.parametrize("gate", ["head", "layer"])
def test_random_gates_start_open_and_drawn_by_the_seed(gate):
    gates = make(gate=gate, init="random").ask()[0].gates
    assert bool(gates.all()) and torch.equal(gates, make(gate=gate, init="random").ask()[0].gates)
    strategy = make(init="random")
    assert torch.equal(strategy.ask()[0].gates, torch.tanh(strategy.module.gates.detach()))


def test_gates_of_heads_go_through_tanh_and_those_of_layers_do_not():
    for gate, expected in (("head", np.tanh(2.0)), ("layer", 2.0)):
        strategy = make(gate=gate)
        with torch.no_grad():
            strategy.module.gates.fill_(2.0)
        (prompt,) = strategy.ask()
        assert prompt.gates.unique().tolist() == pytest.approx([expected])


@pytest.mark.parametrize(("layers", "expected"), [(32, 30), (30, 28), (2, 1), (1, 1)])
def test_the_papers_share_of_the_layers(layers, expected, monkeypatch):
    monkeypatch.setattr(PlantedScorer, "gated_shape", (layers, 2, 8))
    assert tuple(make().ask()[0].gates.shape) == (expected, 2)


def test_fewer_layers_make_more_steps_of_a_budget(monkeypatch):
    monkeypatch.setattr(PlantedScorer, "gated_shape", (10, 2, 8))
    few, many = (make(layers=layers).planned for layers in (1, 10))
    assert 1.3 * many < few < 2 * many


@pytest.mark.parametrize("gate", ["head", "layer"])
def test_training_lowers_the_loss(gate):
    given = objective(400)
    start = float(given.evaluate(make(given, gate=gate).ask()).values[0])
    loop.search(make(given, gate=gate, interval=4, batch=8, rate=0.05))
    assert given.ranking[0].value < start - 0.5 * (start - books_of(given).scorer.optimum_value)


@pytest.mark.parametrize("init", ["zero", "random"])
def test_the_first_prompt_of_a_run_scores_as_the_empty_prompt_where_gates_are_zero(
    films, init, monkeypatch
):
    lm = LanguageModel(*tiny_model("qwen3"))
    template, split = films.template.bind(4), films.splits["search"]
    ids = np.arange(8)
    empty = Engine(lm, template, split, films.choices).score([TextPrompt("")], ids).losses
    engine = Engine(lm, template.taking("gated"), split, films.choices)
    monkeypatch.setattr(PlantedScorer, "gated_shape", lm.gated_shape)
    far = np.abs(engine.score(make(init=init).ask(), ids).losses - empty)
    assert far.max() < 1e-6 if init == "zero" else far.min() > 1e-4
