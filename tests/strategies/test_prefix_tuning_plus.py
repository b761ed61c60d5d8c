"""Prefix-Tuning+: the conformance suite, where it starts, its layers, and that it trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch import LanguageModel, Weights
from promptsearch.errors import StrategyError
from promptsearch.search import loop
from promptsearch.strategies.prefix_tuning_plus import PrefixTuningPlus
from promptsearch.study.arena import Arena
from promptsearch.testing import planted
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.families import FAMILIES
from promptsearch.testing.searched import objective_on
from promptsearch.testing.tiny import tiny_model


def with_outputs(seed, width):
    """The planted weights, whose attentions also have the map that joins their heads."""
    found = planted_weights(seed, width)
    ends = {f"{attention}.o_proj": (width, width) for attention, _ in found.parts}
    return replace(found, maps={**found.maps, **ends})


planted_weights = planted.planted_weights


class TestPrefixTuningPlus(StrategyConformance):
    strategy = PrefixTuningPlus
    options = {"interval": 2, "batch": 4, "rate": 0.03}
    planted = None  # a baseline, no search among prompts
    few = 20

    @pytest.fixture(autouse=True)
    def _joined(self, monkeypatch):
        monkeypatch.setattr(planted, "planted_weights", with_outputs)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def arena(request, films):
    lm = LanguageModel(*tiny_model(request.param))
    return Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights")


def objective(arena):
    return objective_on(arena, 30_000)


def test_it_starts_as_the_lm_itself_and_trains(arena):
    given = objective(arena)
    strategy = PrefixTuningPlus(given, seed=0, interval=5, rate=0.01)
    (prompt,) = strategy.ask()
    start = given.evaluate([prompt]).losses
    assert np.abs(start - given.evaluate([Weights({})]).losses).max() < 1e-6
    layers, heads, _ = given.gated_shape
    assert {tuple(t.shape) for t in prompt.tensors.values()} == {(heads, 32 // heads, 32 // heads)}
    assert len(prompt.tensors) == layers and strategy.trainable == prompt.numbers
    loop.search(PrefixTuningPlus(given, seed=0, interval=5, rate=0.01))
    assert given.ranking[0].value < start.mean() - 0.02


def test_fewer_layers_are_the_top_most_and_make_more_steps_of_a_budget(arena):
    one, both = (PrefixTuningPlus(objective(arena), seed=0, layers=n) for n in (1, 2))
    assert one.planned > both.planned
    ((name, _),) = one.ask()[0].tensors.items()
    assert name == f"{arena.lm.weights.parts[-1][0]}.memory"
    with pytest.raises(StrategyError, match="'layers' must be from 1 to 2, the layers of this"):
        PrefixTuningPlus(objective(arena), seed=0, layers=3)


@pytest.mark.parametrize("family", ["masked", "encoder-decoder"])
def test_models_whose_heads_are_not_known_are_refused_in_its_own_words(family, films):
    lm = LanguageModel(*FAMILIES[family]())
    given = objective(Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights"))
    with pytest.raises(StrategyError, match="a memory stands beside each head.* such as 'lora'"):
        PrefixTuningPlus(given, seed=0)
