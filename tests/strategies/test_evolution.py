import numpy as np
import pytest

from promptsearch import UnknownName
from promptsearch.errors import StrategyError
from promptsearch.loop import search
from promptsearch.strategies.evolution import OPTIMIZERS, Evolution
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestEvolution(StrategyConformance):
    strategy = Evolution
    planted = "separable"


@pytest.mark.parametrize("kind", ["pairwise", "plateau"])
def test_beats_random_on_what_its_docstring_names(kind):
    class Case(StrategyConformance):
        strategy = Evolution
        planted = kind

    Case().test_says_what_it_beats_random_on()
    Case().test_beats_random_on_its_planted_objective()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_of_the_list_works_through_failures_and_is_deterministic(optimizer):
    def run():
        scorer = PlantedScorer("separable", failing=0.3)
        objective = scorer.objective(scorer.budget(100))
        search(Evolution(objective, seed=3, optimizer=optimizer))
        return objective

    first, second = run(), run()
    assert [line["prompts"] for line in first.log.lines] == [line["prompts"] for line in second.log.lines]
    assert first.affordable(4) == 0  # no optimizer of the list stops early
    assert first.ranking[0].value < first.ranking[-1].value


def test_first_candidates_are_uniform_over_the_pool_its_ends_included():
    objective = planted_objective(pool=10, length=1, budget=None)
    rows = [objective.space.indices(prompt)[0] for prompt in Evolution(objective, seed=0, batch=2000).ask()]
    counts = np.bincount(rows, minlength=10)
    middle = np.delete(counts, 5)  # the start is the middle of the pool
    assert (abs(middle - middle.mean()) < 5 * np.sqrt(middle.mean())).all()


def test_ends_when_the_whole_space_has_been_scored():
    objective = planted_objective(pool=3, length=1, budget=None)
    assert search(Evolution(objective, seed=0)) == "nothing left to propose"


def test_the_global_generator_is_left_as_it_was():
    before = np.random.get_state()[1].copy()
    scorer = PlantedScorer("separable")
    search(Evolution(scorer.objective(scorer.budget(50)), seed=0))
    assert (np.random.get_state()[1] == before).all()


def test_an_optimizer_outside_the_list_is_refused_with_a_suggestion():
    with pytest.raises(UnknownName, match=r"unknown optimizer 'TwoPointDE'\. Did you mean 'TwoPointsDE'\?"):
        Evolution(planted_objective(), seed=0, optimizer="TwoPointDE")


def test_an_empty_batch_is_refused():
    with pytest.raises(StrategyError, match="'batch' must be at least 1, got 0"):
        Evolution(planted_objective(), seed=0, batch=0)
