"""Faster products of float32: the same numbers within rounding, and nothing left behind."""

import pytest
import torch

from promptsearch.models import LanguageModel
from promptsearch.testing.tiny import tiny_model


def test_logits_are_the_same_within_rounding_and_the_layers_are_as_they_were(lm):
    ids = torch.tensor([lm.encode("The capital of France is Paris. A good movie.")])
    with torch.inference_mode():
        before = lm.model(input_ids=ids).logits
        with lm.passes.fast():
            within = lm.model(input_ids=ids).logits
        after = lm.model(input_ids=ids).logits
    assert torch.allclose(within, before, atol=1e-5)
    assert torch.equal(after, before)
    assert not any("forward" in vars(module) for module in lm.model.modules())


def test_weights_and_hooks_that_change_within_take_effect(tiny):
    layer = next(m for m in tiny.model.modules() if type(m) is torch.nn.Linear)
    inputs = torch.ones(2, layer.in_features)
    with tiny.passes.fast(), torch.inference_mode():
        doubled = layer.register_forward_hook(lambda module, given, output: 2 * output)
        found = layer(inputs)
        doubled.remove()
        plain = layer(inputs)
    assert torch.allclose(found, 2 * plain)


def test_the_layers_are_as_they_were_after_an_error(tiny):
    with pytest.raises(KeyError), tiny.passes.fast():
        raise KeyError
    assert not any("forward" in vars(module) for module in tiny.model.modules())


def test_other_dtypes_go_on_as_before():
    lm = LanguageModel(*tiny_model("llama"), name="tiny").to(torch.bfloat16)
    with lm.passes.fast():
        assert not any("forward" in vars(module) for module in lm.model.modules())
