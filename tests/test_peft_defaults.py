"""The rows "as PEFT's" of `examples/defaults.yaml` start and compute as PEFT's own modules do."""

import peft
import pytest
import torch

from promptsearch.importing import load_named
from promptsearch.testing.planted import PlantedScorer


def strategy(name):
    """A class of `examples/peft_defaults.py`, as the study file names it."""
    return load_named(f"examples.peft_defaults:{name}")


@pytest.fixture
def objective():
    return PlantedScorer("separable").objective(10_000)


def test_the_encoder_is_that_of_peft(objective):
    ours = strategy("PTuning")(objective, seed=0, hidden=16).module
    length, width = ours().shape
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=length,
        token_dim=width,
        num_transformer_submodules=1,
        encoder_hidden_size=16,
    )
    theirs = peft.PromptEncoder(config)
    theirs.mlp_head.load_state_dict(ours.mlp_head.state_dict())
    with torch.no_grad():
        theirs.embedding.weight.copy_(ours.tokens())
        assert torch.equal(theirs(torch.arange(length)), ours())


@pytest.mark.parametrize("name", ["PromptTuning", "PrefixTuning"])
def test_numbers_start_from_a_standard_normal_distribution(objective, name):
    made = [strategy(name)(objective, seed=seed) for seed in range(40)]
    drawn = torch.cat([each.module().detach().flatten() for each in made])
    assert drawn.std() == pytest.approx(1, abs=0.05) and drawn.mean() == pytest.approx(0, abs=0.05)
    assert made[0].options.rate == 0.00005
