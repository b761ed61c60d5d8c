"""P-tuning: the conformance suite for each encoder, and the architecture of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from promptsearch.strategies.p_tuning import PTuning
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer


class TestLstm(StrategyConformance):
    strategy = PTuning
    options = {"encoder": "lstm", "interval": 2, "batch": 4, "rate": 0.02, "hidden": 16}
    planted = "separable"


class TestMlp(StrategyConformance):
    strategy = PTuning
    options = {"encoder": "mlp", "interval": 2, "batch": 4, "rate": 0.02, "hidden": 16}
    planted = "separable"


class TestNone(StrategyConformance):
    strategy = PTuning
    options = {"encoder": "none", "interval": 2, "batch": 4, "rate": 0.05}
    planted = "separable"


def make(**options):
    scorer = PlantedScorer("separable")
    return PTuning(scorer.objective(scorer.budget(40)), seed=0, **options)


def test_the_lstm_encoder_is_that_of_the_paper():
    encoder = make(encoder="lstm", hidden=24)._encoder
    assert isinstance(encoder.lstm, nn.LSTM)
    assert (encoder.lstm.num_layers, encoder.lstm.bidirectional, encoder.lstm.hidden_size) == (2, True, 12)
    assert [type(layer) for layer in encoder.mlp] == [nn.Linear, nn.ReLU, nn.Linear]
    # Each vector depends on every pseudo token, to its left and to its right.
    vectors = encoder()
    for vector in vectors:
        (gradient,) = torch.autograd.grad(vector.sum(), encoder.tokens, retain_graph=True)
        assert (gradient.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("encoder", ["lstm", "mlp", "none"])
def test_vectors_start_at_the_spread_of_the_embeddings(encoder):
    strategy = make(encoder=encoder)
    spread = strategy.ask()[0].vectors.std() / strategy.objective.embeddings.std()
    assert float(spread) == pytest.approx(1, abs=0.05)


def test_the_encoder_is_dropped_only_vectors_are_proposed():
    strategy = make(encoder="lstm")
    (prompt,) = strategy.ask()
    assert tuple(prompt.vectors.shape) == (strategy.objective.space.length, strategy.objective.embeddings.shape[1])
    assert strategy.trainable == sum(p.numel() for p in strategy._encoder.parameters()) > prompt.vectors.numel()


def test_the_global_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    make(encoder="lstm")
    assert torch.equal(torch.get_rng_state(), state)
