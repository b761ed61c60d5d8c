"""Baselines of a prompt's size: IA3, BitFit and LayerNorm tuning, on a model of each family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch import LanguageModel, Weights
from promptsearch.errors import StrategyError
from promptsearch.search import loop
from promptsearch.strategies.bitfit import BitFit
from promptsearch.strategies.ia3 import IA3
from promptsearch.strategies.layernorm_tuning import LayerNormTuning
from promptsearch.study.arena import Arena
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import objective_on
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_masked import masked_tokenizer, tiny_masked
from promptsearch.testing.tiny_seq2seq import tiny_seq2seq

OPTIONS = {"interval": 2, "batch": 4, "rate": 0.01}
MODELS = {
    "llama": lambda: tiny_model("llama"),
    "gpt2": lambda: tiny_model("gpt2"),
    "bert": lambda: tiny_masked("bert"),
    "t5": lambda: tiny_seq2seq("t5"),
}


class Few(StrategyConformance):
    options = OPTIONS
    planted = None  # baselines, no searches among prompts
    few = 12


class TestIA3(Few):
    strategy = IA3


class TestBitFit(Few):
    strategy = BitFit


class TestLayerNormTuning(Few):
    strategy = LayerNormTuning
    # Its state is that of BitFit, a part of the LM's own weights.
    test_a_killed_run_goes_on_as_if_nothing_had_happened = None
    test_a_run_killed_after_every_evaluation_reaches_the_same_end = None


@pytest.fixture(scope="module", params=MODELS)
def arena(request, films):
    lm = LanguageModel(*MODELS[request.param](), name=request.param)
    return Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights")


def objective(arena):
    return objective_on(arena, 12_000)


@pytest.mark.parametrize("strategy", [IA3, BitFit, LayerNormTuning])
def test_it_starts_as_the_lm_itself_learns_and_leaves_the_lm(arena, strategy):
    given = objective(arena)
    searching = strategy(given, seed=0, interval=4, batch=8, rate=0.03)
    (first,) = searching.ask()
    start, same = given.evaluate([Weights({}), first]).losses
    assert np.abs(same - start).max() < 1e-5
    assert first.numbers == searching.trainable < arena.lm.parameters / 20
    loop.search(strategy(given, seed=0, interval=4, batch=8, rate=0.03))
    assert given.ranking[0].value < start.mean() - 0.01
    arena.check_unchanged()


def ends(strategy, arena):
    """The names of what it trains, without the layers' numbers."""
    tensors = strategy(objective(arena), seed=0).ask()[0].tensors
    return {".".join(p for p in name.split(".")[1:] if not p.isdigit()) for name in tensors}


def test_ia3_scales_keys_values_and_what_the_mlp_maps_last(arena):
    block = "block.layer"
    assert (
        ends(IA3, arena)
        == {
            "llama": {
                "layers.self_attn.k_proj.ia3_out",
                "layers.self_attn.v_proj.ia3_out",
                "layers.mlp.down_proj.ia3_in",
            },
            "gpt2": {"h.attn.c_attn.ia3_out", "h.mlp.c_proj.ia3_in"},
            "bert": {
                "encoder.layer.attention.self.key.ia3_out",
                "encoder.layer.attention.self.value.ia3_out",
                "encoder.layer.output.dense.ia3_in",
            },
            "t5": {
                f"{block}.SelfAttention.k.ia3_out",
                f"{block}.SelfAttention.v.ia3_out",
                f"{block}.EncDecAttention.k.ia3_out",
                f"{block}.EncDecAttention.v.ia3_out",
                f"{block}.DenseReluDense.wo.ia3_in",
            },
        }[arena.lm.name]
    )


def test_bitfit_trains_every_bias_of_a_layer_and_adds_those_of_maps_without_one(arena):
    own = arena.lm.weights
    tensors = BitFit(objective(arena), seed=0).ask()[0].tensors
    assert {f"{name}.bias" for name in own.maps} <= set(tensors)
    known = {n for n in own.below([*own.layers, *own.norms]) if n.endswith(".bias")}
    assert known == set(tensors) & set(own.tensors)
    assert {"llama": 0, "t5": 0}.get(arena.lm.name, len(known)) == len(known)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, own.tensors.get(name, torch.zeros_like(tensor)))


def test_layernorm_tuning_trains_all_norms_with_nothing_beside(arena):
    own = arena.lm.weights
    tensors = LayerNormTuning(objective(arena), seed=0).ask()[0].tensors
    assert all("norm" in n.lower() or ".ln_" in n for n in tensors)
    norms = [n for n in own.tensors if "norm" in n.lower() or ".ln_" in n]
    assert set(tensors) == {n for n in norms if not n.startswith("cls.")}


def test_a_model_whose_keys_are_not_known_is_refused(monkeypatch):
    given = PlantedScorer("separable").objective(10_000)
    monkeypatch.setattr("promptsearch.search.encoders.APART", ())
    with pytest.raises(StrategyError, match="cannot tell which maps .* k_proj, q_proj, up, v_proj"):
        IA3(given, seed=0)


def test_ia3_knows_the_maps_of_deberta(films):
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = DebertaV2Config(vocab_size=480, num_attention_heads=4, **sizes)
    lm = LanguageModel(DebertaV2ForMaskedLM(config), masked_tokenizer("bert"), name="deberta")
    arena = Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights")
    assert ends(IA3, arena) == {
        "encoder.layer.attention.self.key_proj.ia3_out",
        "encoder.layer.attention.self.value_proj.ia3_out",
        "encoder.layer.output.dense.ia3_in",
    }


def test_ia3_names_a_mixture_of_experts_whose_last_map_it_cannot_tell(films):
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    model, tokenizer = tiny_model("llama")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {"shared_expert_intermediate_size": 16, "num_experts": 2, "num_experts_per_tok": 1}
    config = Qwen2MoeConfig(vocab_size=model.config.vocab_size, **sizes)
    lm = LanguageModel(Qwen2MoeForCausalLM(config).eval(), tokenizer, name="experts")
    with pytest.raises(StrategyError, match="cannot tell which map of '.*mlp' is its last"):
        IA3(
            objective_on(
                Arena.build(films, lm, torch.float32, 2, lm.words, 8, kind="weights"), 12_000
            ),
            seed=0,
            **OPTIONS,
        )
