"""Prefix tuning: the conformance suite with and without its network, and where it starts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from promptsearch import PrefixPrompt
from promptsearch.errors import BudgetExhausted, OptionError, StrategyError
from promptsearch.search import loop
from promptsearch.search.books import books_of
from promptsearch.search.options import check_options
from promptsearch.strategies.prefix_tuning import PrefixTuning
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer


class TestReparametrised(StrategyConformance):
    strategy = PrefixTuning
    options = {"interval": 2, "batch": 4, "rate": 0.01, "hidden": 16}
    planted = "separable"
    few = 30


class TestDirect(StrategyConformance):
    strategy = PrefixTuning
    options = {"reparametrise": False, "interval": 2, "batch": 4, "rate": 0.05}
    planted = "separable"
    seeds = 5
    few = 30


class TestRandomStart(StrategyConformance):
    strategy = PrefixTuning
    options = {"init": "random", "interval": 2, "batch": 4, "rate": 0.01, "hidden": 16, "layers": 1}
    planted = None  # the search is that of `TestReparametrised`
    few = 30


def objective(evaluations=40, **given):
    scorer = PlantedScorer("separable", **given)
    return scorer.objective(scorer.budget(evaluations))


def make(**options):
    return PrefixTuning(objective(), seed=0, **options)


@pytest.mark.parametrize("reparametrise", [True, False])
@pytest.mark.parametrize("text", [None, "two words"])
def test_it_starts_from_the_keys_and_values_of_words(reparametrise, text):
    strategy = make(reparametrise=reparametrise, text=text)
    given = strategy.objective
    (prompt,) = strategy.ask()
    assert isinstance(prompt, PrefixPrompt)
    ids = strategy.ids
    assert torch.allclose(prompt.keys_values, books_of(given).scorer.keys_values(ids), atol=1e-6)
    tokens = given.encode("two words")
    assert (
        ids == [tokens[i % 2] for i in range(4)]
        if text
        else set(ids) <= set(given.space.pool.tolist())
    )


@pytest.mark.parametrize("hidden", [2, 4])
def test_with_few_hidden_units_it_starts_as_near_as_they_reach(hidden):
    """As many hidden units as tokens suffice; with fewer, the nearest start is not the words."""
    strategy = make(hidden=hidden)
    (prompt,) = strategy.ask()
    distance = float(
        (prompt.keys_values - books_of(strategy.objective).scorer.keys_values(strategy.ids)).norm()
    )
    assert (distance < 1e-4) == (hidden == 4)


def test_random_numbers_have_the_spread_of_real_keys_and_values_at_each_layer(monkeypatch):
    strategy = make(init="random", reparametrise=False)
    scale = torch.tensor([[1.0, 20.0], [0.1, 300.0]])  # (layers, keys or values)
    rows = (
        torch.randn(4, 2, 2, 1, 8, generator=torch.Generator().manual_seed(0))
        * scale[None, :, :, None, None]
    )
    monkeypatch.setattr(books_of(strategy.objective).scorer, "keys_values", lambda ids: rows)
    found = strategy.ask()[0].keys_values
    assert not torch.allclose(found, rows)
    assert torch.allclose(found.std((0, 3, 4)) / scale, torch.ones(2, 2), atol=0.5)


def test_a_prefix_of_the_top_layers_starts_from_what_words_have_there_and_takes_more_steps():
    strategy = make(layers=1)
    (prompt,) = strategy.ask()
    assert tuple(prompt.keys_values.shape) == (4, 1, 2, 1, 8)
    rows = books_of(strategy.objective).scorer.keys_values(strategy.ids)
    assert torch.allclose(prompt.keys_values, rows[:, -1:], atol=1e-6)
    assert strategy.planned > make().planned
    with pytest.raises(StrategyError, match="prefix of this model may have: 1, 2; got 3"):
        make(layers=3)


def test_the_network_is_that_of_the_paper_and_is_dropped():
    strategy = make(hidden=24)
    network = strategy.module
    assert isinstance(network.inner, nn.Linear) and tuple(network.inner.weight.shape) == (24, 8)
    assert tuple(network.outer.weight.shape) == (2 * 2 * 1 * 8, 24)
    assert torch.allclose(
        network().flatten(1), network.outer(torch.tanh(network.inner(network.tokens)))
    )
    (prompt,) = strategy.ask()
    assert tuple(prompt.keys_values.shape) == (4, *strategy.objective.prefix_shape)
    assert (
        strategy.trainable
        == sum(p.numel() for p in network.parameters())
        > prompt.keys_values.numel()
    )
    assert make(reparametrise=False).trainable == prompt.keys_values.numel()


def test_what_it_asks_of_the_lm_is_charged_once():
    strategy = make()
    assert strategy.objective.ledger.spent == 0, "nothing before the first ask"
    strategy.objective.evaluate(prompts := strategy.ask())
    assert strategy.objective.ledger.spent == books_of(strategy.objective).scorer.budget(1) + 4
    assert prompts[0].keys_values.shape[0] == 4


def test_without_the_tokens_to_start_it_ends_in_good_order():
    given = objective(0)
    books_of(given).ledger.budget = 3
    with pytest.raises(BudgetExhausted, match="4 tokens are wanted"):
        PrefixTuning(given, seed=0).ask()


@pytest.mark.parametrize("reparametrise", [True, False])
def test_training_lowers_the_loss_to_near_the_optimum(reparametrise):
    given = objective(400)
    options = {"hidden": 16, "rate": 0.01} if reparametrise else {"rate": 0.1}
    strategy = PrefixTuning(
        given, seed=0, reparametrise=reparametrise, interval=4, batch=8, **options
    )
    start = float(given.evaluate(strategy.ask()).values[0])
    loop.search(
        PrefixTuning(given, seed=0, reparametrise=reparametrise, interval=4, batch=8, **options)
    )
    assert given.ranking[0].value < start - 0.5 * (start - books_of(given).scorer.optimum_value)


def test_the_global_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    make().ask()
    make(init="random").ask()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_size_of_no_network_is_refused():
    assert check_options("it", PrefixTuning, {"reparametrise": False})["hidden"] is None
    with pytest.raises(OptionError, match="'it': 'hidden' is the size of the network, and"):
        check_options("it", PrefixTuning, {"reparametrise": False, "hidden": 512})
    assert make().module.inner.out_features == 512
