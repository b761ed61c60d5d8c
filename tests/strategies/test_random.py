import numpy as np
import pytest

from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.random import Random
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestRandom(StrategyConformance):
    strategy = Random
    planted = None  # it is the floor


@pytest.mark.parametrize("batch", [1, 5, 16, 1000])
def test_a_small_space_is_exhausted_without_a_repeat(batch):
    objective = planted_objective(pool=3, length=3, budget=None)
    strategy = Random(objective, seed=0, batch=batch)
    proposed = []
    while asked := strategy.ask():
        assert len(asked) <= batch
        proposed += asked
    assert len(proposed) == len(set(proposed)) == 27
    assert search(Random(objective, seed=0, batch=batch)) == "nothing left to propose"


def test_tokens_are_uniform_over_pool_and_positions():
    objective = planted_objective(pool=10, length=3, budget=None)
    asked = Random(objective, seed=0, batch=900).ask()
    rows = np.array([objective.space.indices(prompt) for prompt in asked])  # (prompts, length)
    counts = np.stack([np.bincount(column, minlength=10) for column in rows.T])
    assert (abs(counts - 90) < 5 * np.sqrt(90)).all()


def test_the_price_of_a_run_is_that_of_its_prompts():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(40))
    search(Random(objective, seed=0))
    assert (
        sum(len(line["prompts"]) for line in objective.log.lines) == 40
        and objective.ledger.left == 0
    )


def test_an_empty_batch_is_refused():
    with pytest.raises(StrategyError, match="'batch' must be at least 1, got 0"):
        make_strategy("it", Random, planted_objective(), 0, {"batch": 0})
