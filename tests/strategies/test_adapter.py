"""Adapters: the conformance suite, their size, and the LM itself where training starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch import LanguageModel, Weights
from promptsearch.errors import StrategyError
from promptsearch.search import loop
from promptsearch.strategies.adapter import Adapter
from promptsearch.study.arena import Arena
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import objective_on
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model


class TestAdapter(StrategyConformance):
    strategy = Adapter
    options = {"interval": 2, "batch": 4, "rate": 0.01, "share": 1.0}
    planted = None  # a baseline, no search among prompts
    few = 30


@pytest.fixture(scope="module", params=ARCHITECTURES)
def arena(request, films):
    lm = LanguageModel(*tiny_model(request.param))
    return Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights")


def test_it_starts_as_the_lm_itself(arena):
    given = objective_on(arena)
    (prompt,) = Adapter(given, seed=0, share=0.1).ask()
    assert (
        np.abs(given.evaluate([prompt]).losses - given.evaluate([Weights({})]).losses).max() < 1e-5
    )
    downs = [tensor for name, tensor in prompt.tensors.items() if name.endswith("adapter_down")]
    assert len(downs) == 4 and all(tensor.abs().min() > 0 for tensor in downs)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_the_widest_bottleneck_within_the_share_is_taken(arena, share):
    strategy = Adapter(objective_on(arena), seed=0, share=share)
    total = arena.lm.parameters
    wider = strategy.trainable + 4 * (2 * 32 + 1)
    assert strategy.trainable <= share * total < wider
    assert strategy.ask()[0].numbers == strategy.trainable


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.001])
def test_a_share_that_holds_no_adapter_is_named(arena, share):
    with pytest.raises(
        StrategyError,
        match="'share' is .* of .* weights, which is less than the 388 of adapters of one number",
    ):
        Adapter(objective_on(arena), seed=0, share=share)


def test_the_least_share_that_is_named_is_enough(arena):
    with pytest.raises(StrategyError) as caught:
        Adapter(objective_on(arena), seed=0, share=0.0)
    assert Adapter(
        objective_on(arena), seed=0, share=float(str(caught.value).rpartition(" ")[2])
    ).ask()


def test_training_lowers_the_loss_and_leaves_the_lm(arena):
    given = objective_on(arena, budget=60_000)
    start = float(given.evaluate([Weights({})]).values[0])
    loop.search(Adapter(given, seed=0, share=0.3, interval=4, batch=8, rate=0.01))
    assert given.ranking[0].value < start - 0.05
    arena.check_unchanged()


def test_the_global_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    Adapter(PlantedScorer("separable").objective(10_000), seed=0, share=1.0).ask()
    assert torch.equal(torch.get_rng_state(), state)
