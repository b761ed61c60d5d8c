"""Black-box tuning: the conformance suite, equation 3, and convergence within its reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch.errors import StrategyError
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.black_box_tuning import BlackBoxTuning
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestBlackBoxTuning(StrategyConformance):
    strategy = BlackBoxTuning
    planted = "separable"
    evaluations = 600  # CMA-ES learns the shape of the landscape first


def test_the_words_come_first_and_all_prompts_lie_in_one_subspace():
    objective = planted_objective(length=3)
    strategy = BlackBoxTuning(objective, seed=0, dimensions=2, population=6, text="w3 w4")
    (first,) = strategy.ask()
    assert torch.equal(first.vectors, objective.embeddings[torch.tensor([3, 4, 3])])
    strategy.tell([first], objective.evaluate([first]))
    steps = torch.stack([prompt.vectors - first.vectors for prompt in strategy.ask()])
    assert torch.linalg.matrix_rank(steps.flatten(1)) == 2


def test_a_step_of_one_moves_the_vectors_as_far_as_the_embeddings_are_spread():
    objective = planted_objective(length=8)
    strategy = BlackBoxTuning(objective, seed=1, dimensions=64, population=50, sigma=1.0)
    (first,) = strategy.ask()
    strategy.tell([first], objective.evaluate([first]))
    moved = torch.stack([prompt.vectors - first.vectors for prompt in strategy.ask()])
    assert float(moved.std()) == pytest.approx(float(objective.embeddings.std()), rel=0.15)


def test_it_converges_on_a_planted_prompt_that_lies_in_its_reach():
    """With as many dimensions as the prompt has numbers, the subspace is everything.

    The optimum comes near.
    """
    scorer = PlantedScorer("separable", length=1)
    objective = scorer.objective(scorer.budget(600))
    search(BlackBoxTuning(objective, seed=0, dimensions=8))
    first = np.mean(objective.log.lines[0]["losses"][0])
    assert objective.ranking[0].value - scorer.optimum_value < 0.01 * (first - scorer.optimum_value)
    assert isinstance(objective.ranking[0].prompt, SoftPrompt)


def test_failures_do_not_stop_it():
    scorer = PlantedScorer("separable", failing=0.3)
    objective = scorer.objective(scorer.budget(100))
    search(BlackBoxTuning(objective, seed=0, dimensions=4))
    assert objective.affordable(4) == 0 and np.isfinite(objective.ranking[0].value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 1}, "'dimensions' must be at least 2, got 1"),
        ({"population": 2}, "'population' must be at least 3, got 2"),
        ({"sigma": 0.0}, "'sigma' must be above 0, got 0.0"),
        ({"text": ""}, "'text' is empty"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", BlackBoxTuning, planted_objective(), 0, options)
