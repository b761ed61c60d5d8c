"""LoRA: the conformance suite, where it is added, where it starts, and its scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import DistilBertConfig, DistilBertForMaskedLM

from promptsearch import LanguageModel, Weights
from promptsearch.errors import StrategyError
from promptsearch.search import loop
from promptsearch.strategies.lora import Lora
from promptsearch.study.arena import Arena
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import objective_on
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model
from promptsearch.testing.tiny_masked import masked_tokenizer


class TestLora(StrategyConformance):
    strategy = Lora
    options = {"interval": 2, "batch": 4, "rate": 0.01, "rank": 2}
    planted = None  # a baseline, no search among prompts
    few = 30


@pytest.fixture(scope="module", params=ARCHITECTURES)
def arena(request, films):
    lm = LanguageModel(*tiny_model(request.param))
    return Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights")


def test_it_starts_as_the_lm_itself(arena):
    given = objective_on(arena)
    (prompt,) = Lora(given, seed=0).ask()
    assert (
        np.abs(given.evaluate([prompt]).losses - given.evaluate([Weights({})]).losses).max() < 1e-5
    )


def test_it_changes_queries_and_values_as_peft_does_by_default(arena):
    import warnings

    import peft

    strategy = Lora(objective_on(arena), seed=0, rank=3)
    model, _ = tiny_model(arena.lm.model.config.model_type.removesuffix("_text"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(model, peft.LoraConfig(r=3, task_type="CAUSAL_LM"))
    shapes = {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): tuple(
            parameter.shape
        )
        for name, parameter in theirs.named_parameters()
        if "lora_" in name
    }
    tensors = strategy.ask()[0].tensors
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    assert strategy.trainable == sum(tensor.numel() for tensor in tensors.values())


def test_the_scale_is_alpha_over_rank_and_belongs_to_b(arena):
    strategy = Lora(objective_on(arena), seed=0, rank=4, alpha=12.0)
    with torch.no_grad():
        strategy.module.b[0].fill_(1.0)
    tensors = strategy.ask()[0].tensors
    first = strategy.module.names[0]
    assert (tensors[f"{first}.lora_B"] == 3.0).all()
    assert torch.equal(tensors[f"{first}.lora_A"], strategy.module.a[0].detach())


def test_other_maps_can_be_named(arena):
    kinds = {name.rpartition(".")[2] for name in arena.lm.weights.maps}
    one = sorted(kinds)[-1]
    tensors = Lora(objective_on(arena), seed=0, targets=[one]).ask()[0].tensors
    assert {name.split(".")[-2] for name in tensors} == {one}
    with pytest.raises(
        StrategyError,
        match=f"'targets' has 'q_prj'; the linear maps in this model's layers are .*{one}",
    ):
        Lora(objective_on(arena), seed=0, targets=["q_prj"])
    with pytest.raises(StrategyError, match="'targets' is empty: name linear maps"):
        Lora(objective_on(arena), seed=0, targets=[])


def test_maps_of_other_names_are_known(films, monkeypatch):
    config = DistilBertConfig(vocab_size=480, dim=32, hidden_dim=64, n_layers=2, n_heads=4)
    lm = LanguageModel(DistilBertForMaskedLM(config), masked_tokenizer("bert"), name="distilbert")
    given = objective_on(Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights"))
    names = {name.split(".")[-2] for name in Lora(given, seed=0).ask()[0].tensors}
    assert names == {"q_lin", "v_lin"}
    monkeypatch.setattr("promptsearch.search.encoders.APART", ())
    with pytest.raises(StrategyError, match="name them under 'targets'; those .* are k_lin, lin1"):
        Lora(given, seed=0)


def test_training_lowers_the_loss_and_leaves_the_lm(arena):
    given = objective_on(arena, budget=60_000)
    start = float(given.evaluate([Weights({})]).values[0])
    loop.search(Lora(given, seed=0, interval=4, batch=8, rate=0.02))
    assert given.ranking[0].value < start - 0.05
    arena.check_unchanged()


def test_the_global_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    Lora(PlantedScorer("separable").objective(10_000), seed=0).ask()
    assert torch.equal(torch.get_rng_state(), state)
