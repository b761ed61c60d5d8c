"""Weights: what belongs to what, and others in their place.

The model's own are there again afterwards, bit for bit.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack

import pytest
import torch
from torch.nn.functional import elu, layer_norm, relu
from transformers import OPTConfig, OPTForCausalLM

from promptsearch.errors import ModelError, PromptError
from promptsearch.models import LanguageModel
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model


@pytest.fixture(params=ARCHITECTURES)
def lm(request):
    return LanguageModel(*tiny_model(request.param, layers=3))


@pytest.fixture
def llama():
    return LanguageModel(*tiny_model("llama"))


def logits(lm):
    with torch.no_grad():
        return lm.model(input_ids=torch.arange(9)[None]).logits[0]


def other(lm, seed=0):
    """All weights, changed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: t + 0.1 * torch.randn(t.shape, generator=generator)
        for name, t in lm.weights.tensors.items()
    }


def adapters(lm, narrow=8, scale=0.3):
    generator, found = torch.Generator().manual_seed(0), {}
    for place in [place for parts in lm.weights.parts for place in parts]:
        shapes = {
            "down": (narrow, lm.weights.width),
            "down_bias": (narrow,),
            "up": (lm.weights.width, narrow),
        }
        for part, shape in {**shapes, "up_bias": (lm.weights.width,)}.items():
            found[f"{place}.adapter_{part}"] = scale * torch.randn(shape, generator=generator)
    return found


def test_every_layer_has_an_attention_and_an_mlp(lm):
    weights = lm.weights
    assert len(weights.layers) == 3 == len(weights.parts)
    assert sum(p.numel() for p in lm.model.parameters()) == weights.total
    for layer, (attention, mlp) in zip(weights.layers, weights.parts, strict=True):
        assert attention.startswith(f"{layer}.") and "att" in attention and mlp == f"{layer}.mlp"
    assert weights.width == lm.embeddings.shape[1]
    assert weights.below([weights.norm]) and all(
        "norm" in n or "ln_f" in n for n in weights.below([weights.norm])
    )
    inside = [name for layer in weights.layers for name in weights.below([layer])]
    assert len(set(inside)) == len(inside) and not set(inside) & set(weights.below([weights.norm]))


@pytest.mark.parametrize("before", [True, False])
def test_a_layer_may_hold_the_two_maps_of_its_mlp_itself(before):
    config = OPTConfig(
        vocab_size=512,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        do_layer_norm_before=before,
    )
    lm = LanguageModel(OPTForCausalLM(config), tiny_model("llama")[1])
    assert [tuple(name.rpartition(".")[2] for name in parts) for parts in lm.weights.parts] == [
        ("self_attn", "fc2")
    ] * 2
    assert lm.weights.norm == ("model.decoder.final_layer_norm" if before else "")
    plain = logits(lm)
    with lm.changed(adapters(lm)):
        assert not torch.allclose(logits(lm), plain)


def test_maps_are_the_linear_ones_with_the_sizes_that_they_have(lm):
    for name, (into, out) in lm.weights.maps.items():
        module = lm.model.get_submodule(name)
        assert module(torch.zeros(2, into)).shape == (2, out), name
    count = {"gpt2": 4}.get(lm.model.config.model_type, 7)
    assert len(lm.weights.maps) == 3 * count


def test_going_back_costs_the_layers_crossed_and_the_weights_reached(lm):
    weights = lm.weights
    assert weights.backward(weights.tensors) == pytest.approx(2)
    top = {
        name: weights.tensors[name] for name in weights.below([weights.layers[-1], weights.norm])
    }
    share = sum(t.numel() for t in top.values()) / weights.total
    assert weights.backward(top) == pytest.approx(1 / 3 + share)
    norm = {name: weights.tensors[name] for name in weights.below([weights.norm])}
    assert 0 < weights.backward(norm) < 0.01
    assert weights.backward({}) == 0
    added = adapters(lm)
    assert weights.backward(added) == pytest.approx(
        1 + sum(t.numel() for t in added.values()) / weights.total
    )
    highest = {name: t for name, t in added.items() if name.startswith(weights.layers[-1])}
    assert 1 / 3 < weights.backward(highest) < 0.4


def test_other_weights_are_those_of_a_model_that_has_them(lm):
    """Shared ones too.

    The embeddings of all these models but Llama's are the map to the vocabulary.
    """
    tensors = other(lm)
    changed = copy.deepcopy(lm.model)
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            parameter.copy_(tensors[name])
    before = logits(lm)
    with lm.changed(tensors):
        found = logits(lm)
    assert torch.equal(found, changed(input_ids=torch.arange(9)[None]).logits[0])
    assert not torch.allclose(found, before)
    assert torch.equal(logits(lm), before)


def test_the_own_weights_are_back_bit_for_bit_after_use_and_after_an_error(lm):
    objects = {name: id(p) for name, p in lm.model.named_parameters()}
    known, hooks = lm.hash, sum(len(m._forward_hooks) for m in lm.model.modules())
    tensors = {**other(lm), **adapters(lm)}
    with lm.changed(tensors):
        assert lm.integrity.digest() != known
        with pytest.raises(
            ModelError, match=f"the weights of the model .* were changed: their hash was {known}"
        ):
            lm.check_unchanged()
    with pytest.raises(KeyboardInterrupt), lm.changed(tensors):
        raise KeyboardInterrupt
    lm.check_unchanged()
    assert {name: id(p) for name, p in lm.model.named_parameters()} == objects
    assert sum(len(m._forward_hooks) for m in lm.model.modules()) == hooks


def test_adapters_are_the_formula_behind_attention_and_mlp(llama):
    """Against the layers taken apart by hand."""
    lm, tensors = llama, adapters(llama)

    def adapted(name, states):
        d, db, u, ub = (
            tensors[f"{name}.adapter_{part}"] for part in ("down", "down_bias", "up", "up_bias")
        )
        return states + relu(layer_norm(states, states.shape[-1:]) @ d.T + db) @ u.T + ub

    inner = lm.model.model
    with torch.no_grad():
        states = inner.embed_tokens(torch.arange(9)[None])
        angles = inner.rotary_emb(states, torch.arange(9)[None])
        mask = torch.full((9, 9), float("-inf")).triu(1)[None, None]
        for layer, (attention, mlp) in zip(inner.layers, lm.weights.parts, strict=True):
            attended = layer.self_attn(
                layer.input_layernorm(states), position_embeddings=angles, attention_mask=mask
            )[0]
            states = states + adapted(attention, attended)
            states = states + adapted(mlp, layer.mlp(layer.post_attention_layernorm(states)))
        expected = lm.model.lm_head(inner.norm(states))[0]
    with lm.changed(tensors):
        found = logits(lm)
    assert (found - expected).abs().max() < 1e-5 and not torch.allclose(found, logits(lm), atol=0.1)


def memories(lm, scale=0.3):
    layers, heads, _ = lm.gated_shape
    generator, found = torch.Generator().manual_seed(0), {}
    for attention, _ in lm.weights.parts:
        size = lm.weights.joined(attention) // heads
        shape = (heads, size, size)
        found[f"{attention}.memory"] = scale * torch.randn(shape, generator=generator)
    assert len(found) == layers
    return found


def test_memories_are_the_formula_in_each_head(lm):
    """Against what each head's M alone adds behind the map that joins the heads."""
    tensors, row = memories(lm), torch.arange(9)[None]

    def add(module, given, named, output):
        states = (given[0] if given else named["hidden_states"])[0]
        tensor, fused = tensors[f"{names[module]}.memory"], hasattr(module, "c_attn")
        made = (module.c_attn if fused else module.q_proj)(states)
        last = module.c_proj if fused else module.o_proj
        matrix = last.weight if fused else last.weight.T  # (numbers of all heads, width)
        size = tensor.shape[1]
        more = 0
        for head, memory in enumerate(tensor):
            own = slice(head * size, (head + 1) * size)
            more = more + elu(made[:, own]) @ memory @ matrix[own]
        return (output[0] + more[None], *output[1:])

    names = {lm.model.get_submodule(attention): attention for attention, _ in lm.weights.parts}
    with ExitStack() as hooks, torch.no_grad():
        for module in names:
            hooks.enter_context(module.register_forward_hook(add, with_kwargs=True))
        expected = lm.model(input_ids=row).logits[0]
    with lm.changed(tensors):
        found = logits(lm)
    assert (found - expected).abs().max() < 1e-4 and not torch.allclose(found, logits(lm), atol=0.1)
    lm.check_unchanged()


def test_a_copy_in_another_dtype_knows_the_weights_as_they_were(llama):
    fast = llama.to(torch.bfloat16)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(fast.weights.tensors[name], llama.weights.tensors[name])
    with fast.changed({name: torch.zeros_like(llama.weights.tensors[name])}):
        assert fast.model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
        assert llama.model.model.layers[0].mlp.up_proj.weight.abs().sum() > 0
    fast.check_unchanged()


def test_gradients_flow_back_to_what_was_put_in(lm):
    leaves = {
        name: tensor.clone().requires_grad_()
        for name, tensor in {**other(lm), **adapters(lm)}.items()
    }
    with lm.changed(leaves):
        loss = lm.model(input_ids=torch.arange(9)[None]).logits.square().mean()
    loss.backward()
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves.values())
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        (
            {"model.norm.weight": (7,)},
            r"'model.norm.weight' has shape \(32,\) in this model, got \(7,\)",
        ),
        ({"model.norm.wait": (32,)}, "the tensors model.norm.wait belong to nothing in this model"),
        ({"model.layers.0.self_attn.q_proj.lora_A": (2, 32)}, "q_proj.lora_A belong to nothing"),
        (
            {
                "model.layers.0.self_attn.q_proj.lora_A": (2, 31),
                "model.layers.0.self_attn.q_proj.lora_B": (32, 2),
            },
            r"q_proj.lora_A' has shape \(2, 32\) in this model, got \(2, 31\)",
        ),
        (
            {
                "model.layers.0.self_attn.q_proj.lora_B": (32, 3),
                "model.layers.0.self_attn.q_proj.lora_A": (2, 32),
            },
            r"q_proj.lora_B' has shape \(32, 2\) in this model, got \(32, 3\)",
        ),
        (
            {"model.layers.0.mlp.lora_A": (2, 32), "model.layers.0.mlp.lora_B": (32, 2)},
            "belong to nothing",
        ),
        (
            {"model.layers.0.self_attn.memory": (3, 8, 8)},
            r"self_attn.memory' has shape \(3, 0, 0\) in this model, got \(3, 8, 8\)",
        ),
        ({"model.layers.0.mlp.memory": (4, 8, 8)}, "belong to nothing"),
        (
            {f"model.norm.adapter_{p}": (1,) for p in ("down", "down_bias", "up", "up_bias")},
            "belong to nothing",
        ),
    ],
)
def test_what_does_not_fit_is_named(llama, tensors, complaint):
    with (
        pytest.raises(PromptError, match=complaint),
        llama.changed({name: torch.zeros(s) for name, s in tensors.items()}),
    ):
        pass
    llama.check_unchanged()


def test_a_model_of_unknown_form_is_named():
    model, tokenizer = tiny_model("llama")
    model.model.layers[0].extra = torch.nn.Linear(4, 4)
    with pytest.raises(ModelError, match="cannot tell the layers of LlamaForCausalLM apart"):
        LanguageModel(model, tokenizer).weights  # noqa: B018 - a property that refuses
