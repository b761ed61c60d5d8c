"""Layers one by one: passes that end and begin between them, and projections.

The model is afterwards as it was.
"""

import pytest
import torch

from promptsearch.errors import ModelError
from promptsearch.models import LanguageModel
from promptsearch.models.attention.forest import chains
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model

ROWS = (5, 9, 20)  # the last one is longer than Gemma's windows


@pytest.fixture(scope="module", params=ARCHITECTURES)
def lm(request):
    return LanguageModel(*tiny_model(request.param, layers=3))


def forest(lm, lengths=ROWS):
    return chains(lengths, lm.device)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_pass_in_two_parts_is_a_whole_one(lm, layer):
    embedded = lm.passes.embed(torch.arange(sum(ROWS)))
    with torch.inference_mode():
        whole = lm.passes.hidden(embedded, forest(lm))
        states = lm.passes.entering(layer, embedded, forest(lm))
        assert states.shape == embedded.shape
        assert torch.allclose(lm.passes.above(layer, states, forest(lm)), whole, atol=1e-6)
        if layer:
            assert not torch.allclose(
                lm.passes.above(layer, embedded, forest(lm)), whole, atol=1e-2
            )


def test_below_and_above_are_not_computed(lm):
    entered = []
    blocks = lm.passes.layers.blocks
    hooks = [
        block.register_forward_hook(lambda m, i, o, n=n: entered.append(n))
        for n, block in enumerate(blocks)
    ]
    real = [type(block).forward for block in blocks]
    embedded = lm.passes.embed(torch.arange(sum(ROWS)))
    lm.passes.entering(1, embedded, forest(lm))
    assert entered == [0]
    for hook in hooks:
        hook.remove()
    assert [type(block).forward for block in blocks] == real


def test_a_forward_of_its_own_comes_back(lm):
    """As models that are spread over devices have one."""
    block = lm.passes.layers.blocks[0]
    mine = block.forward = block.forward
    lm.passes.above(1, lm.passes.embed(torch.arange(sum(ROWS))), forest(lm))
    assert vars(block).pop("forward") is mine


def test_the_model_is_afterwards_as_it_was(lm):
    embedded = lm.passes.embed(torch.arange(sum(ROWS)))
    states = lm.passes.entering(2, embedded, forest(lm))
    with pytest.raises(RuntimeError):
        lm.passes.above(2, states[:, :5], forest(lm))
    for block in lm.passes.layers.blocks:
        assert (
            "forward" not in vars(block)
            and not block._forward_pre_hooks
            and not block._forward_hooks
        )
    ids = torch.tensor([lm.words[:6]])
    again = LanguageModel(*tiny_model(lm.model.config.model_type.removesuffix("_text"), layers=3))
    with torch.inference_mode():
        assert torch.equal(lm.model(input_ids=ids).logits, again.model(input_ids=ids).logits)


def test_projections_are_the_keys_and_values_of_a_token_at_position_zero(lm):
    ids = torch.tensor([lm.words[:1]])
    inputs = []
    hooks = [
        attention.register_forward_pre_hook(
            lambda m, given, named: inputs.append(
                (given[0] if given else named["hidden_states"])[0]
            ),
            with_kwargs=True,
        )
        for attention in lm.passes.layers.attentions
    ]
    with torch.no_grad():
        cache = lm.model(input_ids=ids, use_cache=True).past_key_values
    for hook in hooks:
        hook.remove()
    for layer, kept in enumerate(cache.layers):
        with torch.no_grad():
            keys, values = lm.passes.layers.project(layer, inputs[layer][None])
        assert torch.allclose(keys, kept.keys, atol=1e-6) and torch.allclose(
            values, kept.values, atol=1e-6
        )


def test_what_gated_prompts_may_have(lm):
    config = lm.model.config
    assert lm.gated_shape == (3, config.num_attention_heads, lm.embeddings.shape[1])


def test_a_pass_in_parts_that_is_not_the_whole_is_found_out():
    """A model whose second layer reads more than the states that enter it."""
    model, tokenizer = tiny_model("llama")
    below = []
    model.model.register_forward_pre_hook(lambda m, inputs: below.clear())
    model.model.layers[0].mlp.register_forward_hook(lambda m, inputs, out: below.append(out))
    model.model.layers[1].register_forward_hook(
        lambda m, inputs, out: out + below[0] if below else out
    )
    lm = LanguageModel(model, tokenizer, "strange")
    assert lm.passes.trees
    with pytest.raises(
        ModelError,
        match=(
            "'strange' takes no gated prompt: a pass through some of its layers, and then the "
            "others"
        ),
    ):
        lm.passes.layers  # noqa: B018 - a property that refuses
