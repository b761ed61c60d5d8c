"""The FLOPs of a forward pass by its sizes, against those that torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, MixtralConfig

from promptsearch.models.flops import flops_of
from promptsearch.testing.tiny import ARCHITECTURES, tiny_model
from promptsearch.testing.tiny_masked import PACKED_ARCHITECTURES, tiny_masked
from promptsearch.testing.tiny_seq2seq import SEQ2SEQ_ARCHITECTURES, tiny_seq2seq


def counted(model, tokens, **more):
    model.set_attn_implementation("eager")
    ids = torch.ones(1, tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, **more)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", [*ARCHITECTURES, *PACKED_ARCHITECTURES])
def test_a_token_and_a_position_cost_what_torch_counts(name):
    make = tiny_model if name in ARCHITECTURES else tiny_masked
    model, _ = make(name)
    flops = flops_of(model)
    for tokens in (1, 12):
        expected = tokens * (flops.token + tokens * flops.position)
        assert counted(model, tokens) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", SEQ2SEQ_ARCHITECTURES)
def test_half_of_an_encoder_decoder_model_counts(name):
    model, _ = tiny_seq2seq(name)
    ids, tokens = torch.ones(1, 12, dtype=torch.long), 24
    found = counted(model, 12, decoder_input_ids=ids) / tokens
    # With as many tokens on either side, the mean is that of a token.
    assert found == pytest.approx(flops_of(model).token, rel=0.25)


def test_of_experts_those_count_that_a_token_goes_to():
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    model = AutoModelForCausalLM.from_config(config)
    dense = MixtralConfig(**{**config.to_dict(), "num_local_experts": 2})
    router = 2 * 2 * 32 * (8 - 2)  # FLOPs of the choice among six more, in two layers
    assert flops_of(model).token - flops_of(AutoModelForCausalLM.from_config(dense)).token == router
