from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.genetic import Genetic, mutation, tournament, uniform_crossover
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestGenetic(StrategyConformance):
    strategy = Genetic
    planted = "separable"


class TestGeneticWithNeighbours(StrategyConformance):
    strategy = Genetic
    options = {"neighbours": 5, "immigrants": 0.2}
    planted = "separable"
    seeds = 5


@pytest.mark.parametrize("kind", ["pairwise", "plateau"])
def test_beats_random_on_what_its_docstring_names(kind):
    class Case(StrategyConformance):
        strategy = Genetic
        planted = kind
        seeds = 5

    Case().test_says_what_it_beats_random_on()
    Case().test_beats_random_on_its_planted_objective()


def step(strategy, change=lambda values: values):
    """One generation; the values that it is told, changed."""
    asked = strategy.ask()
    if not asked:
        return []
    evaluation = strategy.objective.evaluate(asked)
    strategy.tell(asked, replace(evaluation, values=change(evaluation.values)))
    return [prompt.ids for prompt in asked]


def test_index_computed_before_a_reordering():
    """ClaPS stored a prompt at an index that a sort had made another's.

    Here each member's value is its own.
    """
    objective = planted_objective("pairwise", budget=None)
    strategy = Genetic(objective, seed=0)
    told = {}
    for _ in range(20):
        asked = strategy.ask()
        evaluation = objective.evaluate(asked)
        strategy.tell(asked, evaluation)
        told.update(zip([prompt.ids for prompt in asked], evaluation.values, strict=True))
        assert all(member.value == told[member.ids] for member in strategy.members)
        assert [member.value for member in strategy.members] == sorted(told.values())[
            :16
        ]  # (mu + lambda): the best of all


def test_crossover_that_returns_one_parent_whole():
    """ClaPS' never mixed tokens.

    Here a child of parents that differ in two tokens or more is neither of them.
    """
    rng = np.random.default_rng(0)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=6, max_size=6))
    def holds(pairs):
        mother, father = map(tuple, zip(*pairs, strict=True))
        child = uniform_crossover(mother, father, rng)
        assert all(token in pair for token, pair in zip(child, pairs, strict=True))
        if sum(a != b for a, b in pairs) >= 2:
            assert child not in (mother, father)

    holds()


def test_crossover_takes_every_position_from_either_parent():
    rng = np.random.default_rng(0)
    children = np.array([uniform_crossover((0,) * 5, (1,) * 5, rng) for _ in range(4000)])
    assert children.mean(0) == pytest.approx([0.5] * 5, abs=0.04)


def test_position_0_never_mutated():
    """On T5, ClaPS never changed the first token.

    Here each position changes in one child of `length`, more or less.
    """
    scorer = PlantedScorer("separable", pool=100, length=5)
    rng, ids = np.random.default_rng(0), scorer.optimum.ids

    def other(token):
        return int(rng.choice(scorer.space.pool))

    changed = np.array([np.not_equal(mutation(ids, other, rng), ids) for _ in range(5000)]).sum(0)
    expected = 5000 / 5 * 0.99  # a token may be drawn again
    assert changed == pytest.approx([expected] * 5, rel=0.12)


def test_a_mutation_draws_from_the_whole_pool_its_ends_included():
    objective = planted_objective(pool=10, length=1)
    strategy = Genetic(objective, seed=0)
    ids, rng = (int(objective.space.pool[3]),), np.random.default_rng(1)
    counts = np.unique(
        [mutation(ids, strategy.other, rng) for _ in range(5000)], return_counts=True
    )[1]
    assert len(counts) == 10 and stats.chisquare(counts).pvalue > 1e-4


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(2, 40), st.integers(0, 3))
def test_length_drift(length, pool, neighbours):
    """ClaPS decoded and encoded each generation.

    Here every prompt has the space's length, from its pool, to the end.
    """
    objective = planted_objective(pool=pool, length=length, budget=None)
    strategy = Genetic(objective, seed=0, neighbours=neighbours, immigrants=0.0)
    for _ in range(6):
        for ids in step(strategy):
            assert len(ids) == length and set(ids) <= set(objective.space.pool.tolist())


def test_duplicates_rescored():
    """EvoPrompt scores the same child again and again.

    Here no prompt is proposed twice, to the end of a small space.
    """
    objective = planted_objective(pool=6, length=3, budget=None)
    assert search(Genetic(objective, seed=0)) == "nothing left to propose"
    keys = [prompt["key"] for line in objective.log.lines for prompt in line["prompts"]]
    assert len(keys) == len(set(keys)) == 6**3


def test_roulette_with_negative_fitness():
    """EvoPrompt's wheel breaks on fitness of zero or below: here only the order counts."""
    runs = []
    for change in (lambda v: v, lambda v: v - 1000, lambda v: 0 * v + np.exp(50 * v)):
        strategy = Genetic(planted_objective("pairwise", budget=None), seed=0)
        runs.append([step(strategy, change) for _ in range(15)])
    assert all(run == runs[0] for run in runs)


def test_better_members_become_parents_more_often():
    strategy = Genetic(planted_objective(budget=None), seed=0, tournament=3)
    step(strategy)
    places = {member.ids: i for i, member in enumerate(strategy.members)}
    rng = np.random.default_rng(0)
    counts = np.bincount(
        [places[tournament(strategy.members, 3, rng).ids] for _ in range(20_000)], minlength=16
    )
    n = 16
    expected = [
        ((n - i) / n) ** 3 - ((n - i - 1) / n) ** 3 for i in range(n)
    ]  # the least of three draws
    assert counts / 20_000 == pytest.approx(expected, abs=0.012)
    assert all(a != b for a, b in (strategy.parents() for _ in range(200)))


def test_at_equal_losses_the_new_ones_survive():
    strategy = Genetic(planted_objective(budget=None), seed=0)
    step(strategy, lambda values: 0 * values)
    new = step(strategy, lambda values: 0 * values)
    assert {member.ids for member in strategy.members} >= set(new) and len(strategy.members) == 16


def test_failed_prompts_do_not_survive_and_a_generation_that_failed_is_followed_by_random_ones():
    strategy = Genetic(planted_objective(budget=None), seed=0)
    step(strategy, lambda values: values + np.inf)
    assert strategy.members == [] and len(step(strategy)) == 8
    assert len(strategy.members) == 8
    step(strategy, lambda values: np.where(np.arange(8) % 2, np.inf, values))
    assert len(strategy.members) == 12 and all(
        np.isfinite(member.value) for member in strategy.members
    )


def test_immigrants_are_a_share_of_the_children():
    """Offspring of a population of one token at each position is this token but for mutations.

    Immigrants are not.
    """
    objective = planted_objective(pool=100, length=8, budget=None)
    strategy = Genetic(objective, seed=0, immigrants=0.25, children=400)
    step(strategy)
    token = int(objective.space.pool[0])
    strategy.members = [replace(member, ids=(token,) * 8) for member in strategy.members]
    strangers = [ids for ids in step(strategy) if ids.count(token) < 3]
    assert len(strangers) / 400 == pytest.approx(0.25, abs=0.08)


def test_mutations_stay_among_the_neighbours():
    objective = planted_objective(pool=50, length=2)
    strategy = Genetic(objective, seed=0, neighbours=3)
    token = int(objective.space.pool[7])
    found = {strategy.other(token) for _ in range(200)}
    assert found == set(objective.space.neighbours([token], 3)[0].tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 1}, "'population' must be at least 2, got 1"),
        ({"children": 0}, "'children' must be at least 1, got 0"),
        ({"tournament": 0}, "'tournament' must be at least 1, got 0"),
        ({"neighbours": -1}, "'neighbours' must be at least 0, got -1"),
        ({"immigrants": 1.5}, "'immigrants' must be at most 1, got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", Genetic, planted_objective(), 0, options)
