import numpy as np
import pytest

from promptsearch import UnknownName
from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
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
    assert [line["prompts"] for line in first.log.lines] == [
        line["prompts"] for line in second.log.lines
    ]
    assert first.affordable(4) == 0  # no optimizer of the list stops early
    assert first.ranking[0].value < first.ranking[-1].value


def test_first_candidates_are_uniform_over_the_pool_its_ends_included():
    objective = planted_objective(pool=10, length=1, budget=None)
    rows = [
        objective.space.indices(prompt)[0]
        for prompt in Evolution(objective, seed=0, batch=2000).ask()
    ]
    counts = np.bincount(rows, minlength=10)
    middle = np.delete(counts, 5)  # the start is the middle of the pool
    assert (abs(middle - middle.mean()) < 5 * np.sqrt(middle.mean())).all()


def test_the_first_prompts_are_random_and_the_next_ones_mutate_the_best_of_them():
    scorer = PlantedScorer("separable", pool=50)
    objective = scorer.objective()
    strategy = Evolution(objective, seed=0, batch=12, first=12)
    first = strategy.ask()
    rows = np.array([scorer.space.indices(prompt) for prompt in first])
    assert len(set(first)) == 12 and all(len(set(column)) > 6 for column in rows.T)
    evaluation = objective.evaluate(first)
    strategy.tell(first, evaluation)
    best = rows[evaluation.values.argmin()]
    changed = [(scorer.space.indices(prompt) != best).sum() for prompt in strategy.ask()]
    assert (
        np.mean(changed) < 2.5
    )  # 4 tokens, each redrawn with probability 1/4; a random prompt differs in nearly all


def test_without_first_prompts_it_starts_from_the_middle_of_the_pool():
    objective = planted_objective(pool=10, length=3)
    (start,) = Evolution(objective, seed=0, batch=1, first=0).ask()
    assert objective.space.indices(start).tolist() in ([4, 4, 4], [5, 5, 5])


def test_ends_when_the_whole_space_has_been_scored():
    objective = planted_objective(pool=3, length=1, budget=None)
    assert search(Evolution(objective, seed=0)) == "nothing left to propose"


def test_the_global_generator_is_left_as_it_was():
    before = np.random.get_state()[1].copy()
    scorer = PlantedScorer("separable")
    search(Evolution(scorer.objective(scorer.budget(50)), seed=0))
    assert (np.random.get_state()[1] == before).all()


def test_an_optimizer_outside_the_list_is_refused_with_a_suggestion():
    with pytest.raises(
        UnknownName, match=r"unknown optimizer 'TwoPointDE'\. Did you mean 'TwoPointsDE'\?"
    ):
        make_strategy("it", Evolution, planted_objective(), 0, {"optimizer": "TwoPointDE"})


@pytest.mark.parametrize(("option", "least"), [("batch", 1), ("first", 0)])
def test_numbers_that_are_too_small_are_refused(option, least):
    with pytest.raises(
        StrategyError, match=f"'{option}' must be at least {least}, got {least - 1}"
    ):
        make_strategy("it", Evolution, planted_objective(), 0, {option: least - 1})
