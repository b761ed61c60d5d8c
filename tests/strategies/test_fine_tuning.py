"""Fine-tuning.

The conformance suite, its steps against plain torch, and a kill that leaves no state.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from promptsearch import LanguageModel, Weights
from promptsearch.search import loop
from promptsearch.search.objective import FINALISTS, SELECTED
from promptsearch.strategies.fine_tuning import FineTuning
from promptsearch.study.arena import Arena
from promptsearch.study.ending import price_of_selection
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import objective_on


class TestFineTuning(StrategyConformance):
    strategy = FineTuning
    options = {"interval": 2, "batch": 4, "rate": 0.01}
    planted = None  # a baseline, no search among prompts
    few = 30


def planted(evaluations=40):
    scorer = PlantedScorer("separable")
    return scorer.objective(scorer.budget(evaluations))


@pytest.fixture(scope="module")
def arena(films):
    from promptsearch.testing.tiny import tiny_model

    lm = LanguageModel(*tiny_model("llama"))
    return Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights")


def objective(arena, budget=100_000):
    return objective_on(arena, budget, finalists=FineTuning.finalists)


def test_it_starts_from_the_lm_itself(arena):
    (prompt,) = FineTuning(objective(arena), seed=0).ask()
    assert isinstance(prompt, Weights) and prompt == Weights(arena.lm.weights.tensors)


def test_its_steps_are_those_of_a_plain_training_loop(arena):
    """Three steps of AdamW with this schedule and clipping on the same minibatches.

    By transformers and torch alone.
    """
    strategy = FineTuning(objective(arena), seed=3, rate=0.001, batch=4, interval=3)
    strategy.schedule = lambda step: 1 - step / 4
    strategy.tell(prompts := strategy.ask(), strategy.objective.evaluate(prompts))
    found = strategy.ask()[0].tensors
    lm, rng = arena.lm, np.random.default_rng(3)
    model = copy.deepcopy(lm.model).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, weight_decay=0.0)
    choices = [lm.encode(f" {answer}")[0] for answer in ("bad", "good")]
    for step in range(3):
        optimizer.param_groups[0]["lr"] = 0.001 * strategy.schedule(step)
        examples = arena.task.splits["search"].examples
        loss = torch.tensor(0.0)
        for i in rng.choice(np.arange(8, 40), size=4, replace=False):
            ids = lm.encode(f" {examples[i].fields['text']} It was")
            loss = (
                loss
                - model(input_ids=torch.tensor([ids]))
                .logits[0, -1, choices]
                .log_softmax(-1)[examples[i].choice]
                / 4
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    start = lm.weights.tensors
    for name, parameter in model.named_parameters():
        # A weight whose gradient is next to nothing goes up or down by a whole step: AdamW divides
        # by its size.
        far = (found[name] - parameter).abs() > 1e-4
        assert far.float().mean() < 0.01, name
    assert max(float((found[name] - start[name]).abs().max()) for name in start) > 1e-3
    lm.check_unchanged()


def test_three_times_forward_is_charged(arena):
    given = objective(arena)
    tensors = {
        name: tensor.clone().requires_grad_() for name, tensor in arena.lm.weights.tensors.items()
    }
    given.loss(tensors, ids := np.array([9, 12]))
    tokens = int(arena.searching.context(ids).sum())
    assert (given.ledger.forward, given.ledger.backward, given.ledger.computed) == (
        tokens,
        2 * tokens,
        3 * tokens,
    )
    given.loss(tensors, ids)
    assert given.ledger.forward == 2 * tokens, "no part of a row is ever paid for good"


def test_few_finalists_are_kept(arena):
    given = objective(arena, budget=20_000)
    loop.search(FineTuning(given, seed=0, interval=1, batch=2, rate=0.001))
    assert len(given.log.lines) > 5 and len(given.ranking) == SELECTED
    few, many = ([0] * count for count in (FineTuning.finalists, FINALISTS))
    assert price_of_selection(arena, few) < price_of_selection(arena, many)


def test_training_lowers_the_loss_and_leaves_the_lm(arena):
    given = objective(arena, budget=60_000)
    start = float(given.evaluate([Weights({})]).values[0])
    loop.search(FineTuning(given, seed=0, interval=4, batch=8, rate=0.003))
    assert given.ranking[0].value < start - 0.1
    arena.check_unchanged()


def test_it_saves_no_state(tmp_path):
    loop.search(FineTuning(planted(), seed=0), tmp_path)
    assert not (tmp_path / "state.safetensors").exists()


def test_what_is_tuned_is_everything(arena):
    assert FineTuning(objective(arena), seed=0).trainable == sum(
        p.numel() for p in arena.lm.model.parameters()
    )
