import itertools
import logging
import re
from typing import get_args

import pytest

from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.exhaustive import Exhaustive
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import Kind, PlantedScorer, planted_objective


class TestExhaustive(StrategyConformance):
    strategy = Exhaustive
    options = {"partial": True, "batch": 8}
    planted = None  # the yardstick, not a search that is ranked


def test_walks_the_whole_space_in_lexicographic_order():
    objective = planted_objective(pool=4, length=3, budget=None)
    assert search(Exhaustive(objective, seed=0, batch=7)) == "nothing left to propose"
    scored = [tuple(prompt["ids"]) for line in objective.log.lines for prompt in line["prompts"]]
    assert scored == list(itertools.product(sorted(objective.space.pool.tolist()), repeat=3))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_finds_the_optimum_of_any_landscape_with_exactly_the_budget_that_it_needs(kind):
    scorer = PlantedScorer(kind, pool=7, length=3, noise=0.2)
    objective = scorer.objective(scorer.budget(7**3))
    search(Exhaustive(objective, seed=0))
    assert objective.ranking[0].prompt == scorer.optimum
    assert objective.ledger.left == 0


def test_says_the_size_and_the_cost_before_it_starts(caplog):
    objective = planted_objective(pool=12, length=3, budget=None)
    with caplog.at_level(logging.INFO, "promptsearch.strategies.exhaustive"):
        strategy = Exhaustive(objective, seed=0)
    (message,) = caplog.messages
    assert "12 tokens at 3 positions make 1,728 prompts" in message
    search(strategy)
    assert (
        int(re.search(r"cost ([\d,]+) LM tokens", message)[1].replace(",", ""))
        == objective.ledger.spent
    )


def test_a_space_beyond_the_budget_is_refused_with_size_price_and_ways_out():
    scorer = PlantedScorer("separable", pool=10, length=2)
    with pytest.raises(StrategyError) as error:
        Exhaustive(scorer.objective(scorer.budget(99)), seed=0)
    for part in (
        "100 prompts",
        f"{scorer.budget(100):,} LM tokens",
        "99 of them",
        "smaller pool",
        "larger budget",
        "'partial'",
    ):
        assert part in str(error.value)


def test_what_is_set_aside_for_selection_counts():
    scorer = PlantedScorer("separable", pool=10, length=2)
    with pytest.raises(StrategyError, match="99 of them"):
        Exhaustive(scorer.objective(scorer.budget(100), reserve=lambda lengths: 1), seed=0)


def test_a_space_beyond_all_numbers_is_refused_even_without_a_budget():
    with pytest.raises(StrategyError, match="inf that may be spent"):
        Exhaustive(planted_objective(pool=1000, length=30, budget=None), seed=0)


def test_partial_scores_as_many_as_the_budget_reaches_for():
    scorer = PlantedScorer("separable", pool=10, length=2)
    objective = scorer.objective(scorer.budget(42))
    search(Exhaustive(objective, seed=0, partial=True))
    assert sum(len(line["prompts"]) for line in objective.log.lines) == 42


def test_an_empty_batch_is_refused():
    with pytest.raises(StrategyError, match="'batch' must be at least 1, got 0"):
        make_strategy("it", Exhaustive, planted_objective(pool=2, length=1), 0, {"batch": 0})
