"""P-tuning.

The conformance suite for each encoder, the architecture of the paper, and the LM tuned with the
prompt.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from promptsearch import LanguageModel, Objective, TunedPrompt
from promptsearch.errors import OptionError, StrategyError
from promptsearch.records.ledger import Ledger
from promptsearch.search import loop
from promptsearch.search.objective import SELECTED
from promptsearch.search.options import check_options
from promptsearch.search.plugins import find_strategy, make_strategy
from promptsearch.strategies.p_tuning import PTuning, PTuningLM
from promptsearch.study.arena import Arena
from promptsearch.study.described import describe
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.tiny import tiny_model


class TestLstm(StrategyConformance):
    strategy = PTuning
    options = {"encoder": "lstm", "interval": 2, "batch": 4, "rate": 0.02, "hidden": 16}
    planted = "separable"
    seeds = 5
    few = 30


class TestMlp(StrategyConformance):
    strategy = PTuning
    options = {"encoder": "mlp", "interval": 2, "batch": 4, "rate": 0.02, "hidden": 16}
    planted = "separable"
    seeds = 5
    few = 30


class TestNone(StrategyConformance):
    strategy = PTuning
    options = {"encoder": "none", "interval": 2, "batch": 4, "rate": 0.05}
    planted = "separable"
    seeds = 5
    few = 30


class TestWithTheLM(StrategyConformance):
    strategy = PTuningLM
    options = {
        "encoder": "mlp",
        "interval": 2,
        "batch": 4,
        "rate": 0.02,
        "rate_lm": 0.002,
        "hidden": 16,
    }
    planted = "separable"
    seeds = 5
    few = 30


def make(**options):
    scorer = PlantedScorer("separable")
    return PTuning(scorer.objective(scorer.budget(40)), seed=0, **options)


def test_the_lstm_encoder_is_that_of_the_paper():
    encoder = make(encoder="lstm", hidden=24).module
    assert isinstance(encoder.lstm, nn.LSTM)
    assert (encoder.lstm.num_layers, encoder.lstm.bidirectional, encoder.lstm.hidden_size) == (
        2,
        True,
        12,
    )
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
    assert tuple(prompt.vectors.shape) == (
        strategy.objective.space.length,
        strategy.objective.embeddings.shape[1],
    )
    assert (
        strategy.trainable
        == sum(p.numel() for p in strategy.module.parameters())
        > prompt.vectors.numel()
    )


def test_the_global_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    make(encoder="lstm")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def arena(films):
    lm = LanguageModel(*tiny_model("llama"))
    return Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="tuned")


@pytest.fixture(scope="module")
def slots(arena):
    return Arena.build(arena.task, arena.lm, torch.float32, 2, arena.lm.words, 8)


def on(arena, budget=100_000):
    return Objective(
        arena.searching,
        arena.space,
        Ledger(budget),
        scored=arena.scored,
        training=np.arange(8, 40),
        finalists=PTuningLM.finalists,
    )


def test_the_strategy_is_found_by_its_name():
    assert find_strategy("p_tuning_lm") is PTuningLM and find_strategy("p_tuning") is PTuning


def test_it_starts_where_p_tuning_does_with_the_lm_itself(arena, slots):
    (soft,), (both,) = PTuning(on(slots), seed=4).ask(), PTuningLM(on(arena), seed=4).ask()
    assert torch.equal(both.vectors, soft.vectors)
    assert both == TunedPrompt({"vectors": soft.vectors, **arena.lm.weights.tensors})


def test_its_steps_are_those_of_a_plain_training_loop(arena):
    """Three steps of AdamW with two rates and one clipping on the same minibatches.

    By transformers and torch alone.
    """
    strategy = PTuningLM(on(arena), seed=3, rate=0.01, rate_lm=0.001, batch=4, interval=3, hidden=8)
    strategy.schedule = lambda step: 1 - step / 4
    encoder = copy.deepcopy(strategy.module.prompt)
    (start,) = prompts = strategy.ask()
    strategy.tell(prompts, strategy.objective.evaluate(prompts))
    (found,) = strategy.ask()
    lm, rng = arena.lm, np.random.default_rng(3)
    model = copy.deepcopy(lm.model).requires_grad_(True)
    rates = (0.01, 0.001)
    optimizer = torch.optim.AdamW(
        [{"params": list(part.parameters())} for part in (encoder, model)], weight_decay=0.0
    )
    choices = [lm.encode(f" {answer}")[0] for answer in ("bad", "good")]
    for step in range(3):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * strategy.schedule(step)
        examples, vectors = arena.task.splits["search"].examples, encoder()
        loss = torch.tensor(0.0)
        for i in rng.choice(np.arange(8, 40), size=4, replace=False):
            ids = lm.encode(f" {examples[i].fields['text']} It was")
            row = torch.cat([vectors, model.get_input_embeddings()(torch.tensor(ids))])[None]
            loss = (
                loss
                - model(inputs_embeds=row)
                .logits[0, -1, choices]
                .log_softmax(-1)[examples[i].choice]
                / 4
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*encoder.parameters(), *model.parameters()], 1.0)
        optimizer.step()
    assert not lm.lead, "else it stood before the vectors"
    for name, theirs in (("vectors", encoder()), *model.named_parameters()):
        # As of fine-tuning: a parameter whose gradient is next to nothing goes up or down by a
        # whole step.
        far = (found.tensors[name] - theirs).abs() > (1e-3 if name == "vectors" else 1e-4)
        assert far.float().mean() < 0.01, name
        assert not torch.equal(found.tensors[name], start.tensors[name]), name
    lm.check_unchanged()


def test_encoder_and_lm_go_at_rates_of_their_own(arena):
    """The first step of AdamW moves each parameter that has a gradient by its rate."""
    strategy = PTuningLM(on(arena), seed=0, rate=0.01, rate_lm=0.0004, hidden=8)
    strategy.schedule = lambda step: 0.5
    before = [parameter.detach().clone() for parameter in strategy.module.parameters()]
    strategy.train()
    moved = [
        float((p.detach() - b).abs().max())
        for p, b in zip(strategy.module.parameters(), before, strict=True)
    ]
    count = len(list(strategy.module.prompt.parameters()))
    assert max(moved[:count]) == pytest.approx(0.005, rel=0.01) and max(
        moved[count:]
    ) == pytest.approx(0.0002, rel=0.01)


def test_it_pays_forward_and_backward_of_fine_tuning_with_the_vectors(arena):
    given, ids = on(arena), np.array([9, 12])
    numbers = {"vectors": torch.zeros(2, 32, requires_grad=True)}
    numbers |= {
        name: tensor.clone().requires_grad_() for name, tensor in arena.lm.weights.tensors.items()
    }
    given.loss(numbers, ids)
    tokens = int(arena.searching.context(ids).sum()) + len(ids) * 2
    assert (given.ledger.forward, given.ledger.backward, given.ledger.computed) == (
        tokens,
        2 * tokens,
        3 * tokens,
    )


def test_training_lowers_the_loss_keeps_few_finalists_and_leaves_the_lm(arena):
    given = on(arena, budget=60_000)
    strategy = PTuningLM(given, seed=0, interval=4, batch=8, rate=0.01, rate_lm=0.003, hidden=8)
    loop.search(strategy)
    losses = [np.mean(line["losses"][0]) for line in given.log.lines]
    assert (
        given.ranking[0].value < losses[0] - 0.1
        and len(losses) > 5
        and len(given.ranking) == SELECTED
    )
    assert (
        strategy.training.unit == "tensors"
        and len(strategy.training.reached) == len(arena.lm.weights.tensors) + 1
    )
    arena.check_unchanged()


def test_what_is_tuned_and_what_is_stored(arena, slots):
    strategy = PTuningLM(on(arena), seed=0, hidden=8)
    (prompt,) = strategy.ask()
    weights = sum(p.numel() for p in arena.lm.model.parameters())
    assert strategy.trainable == weights + PTuning(on(slots), seed=0, hidden=8).trainable
    assert prompt.numbers == weights + 2 * 32
    assert (
        describe(arena, prompt)["text"] == f"[2 vectors and {weights:,} changed or added weights]"
    )


def test_it_saves_no_state(tmp_path):
    scorer = PlantedScorer("separable")
    loop.search(PTuningLM(scorer.objective(scorer.budget(40)), seed=0), tmp_path)
    assert not (tmp_path / "state.safetensors").exists()


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_of_the_lm_that_is_none_is_refused(rate):
    scorer = PlantedScorer("separable")
    with pytest.raises(StrategyError, match="'rate_lm' must be (above 0|a finite number), got"):
        make_strategy("it", PTuningLM, scorer.objective(), 0, {"rate_lm": rate})


@pytest.mark.parametrize("strategy", [PTuning, PTuningLM])
def test_the_width_of_no_encoder_is_refused(strategy):
    assert check_options("it", strategy, {"encoder": "none"})["hidden"] is None
    with pytest.raises(OptionError, match="'it': 'hidden' is the width of the encoder, and"):
        check_options("it", strategy, {"encoder": "none", "hidden": 8})
