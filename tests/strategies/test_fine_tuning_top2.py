"""Fine-tuning of the top-most layers: the conformance suite, what it changes and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch import LanguageModel
from promptsearch.search import loop
from promptsearch.strategies.fine_tuning import FineTuningTop2
from promptsearch.study.arena import Arena
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.searched import objective_on
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model


class TestFineTuningTop2(StrategyConformance):
    strategy = FineTuningTop2
    options = {"interval": 2, "batch": 4, "rate": 0.01}
    planted = None  # a baseline, no search among prompts
    few = 30


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_changes_the_two_top_most_layers_and_the_last_norm_only(architecture, films):
    lm = LanguageModel(*tiny_model(architecture, layers=3))
    arena = Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights")
    given = objective_on(arena, 30_000)
    strategy = FineTuningTop2(given, seed=0, interval=2, batch=4, rate=0.01)
    loop.search(strategy)
    best = given.ranking[0].prompt.tensors
    start = lm.weights.tensors
    assert set(best) == {
        name
        for name in start
        if ".1." in name or ".2." in name or "model.norm" in name or "ln_f" in name
    }
    assert strategy.trainable == sum(start[name].numel() for name in best)
    assert any(not torch.equal(best[name], start[name]) for name in best)
    steps, last = strategy.training.steps, given.ledger
    share = strategy.trainable / lm.parameters + 2 / 3
    tokens = last.backward / share
    assert steps > 3 and tokens < last.forward and share < 2
    arena.check_unchanged()


def test_a_step_is_charged_for_the_layers_that_it_crosses(films):
    lm = LanguageModel(*tiny_model("llama", layers=4))
    arena = Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights")
    given = objective_on(arena)
    strategy = FineTuningTop2(given, seed=0)
    given.loss(strategy.module(), ids := np.array([9, 12, 20]))
    tokens = int(arena.searching.context(ids).sum())
    share = 2 / 4 + strategy.trainable / lm.parameters
    assert (
        given.ledger.forward == tokens
        and tokens * share <= given.ledger.backward < tokens * share + 1
    )
