import itertools

import numpy as np
import pytest
import torch

from promptsearch import TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.beam import Beam
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.landscape import Landscape
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestBeam(StrategyConformance):
    strategy = Beam
    planted = "separable"


@pytest.mark.parametrize("kind", ["pairwise", "plateau"])
def test_beats_random_on_what_its_docstring_names(kind):
    class Case(StrategyConformance):
        strategy = Beam
        planted = kind
        seeds = 5

    Case().test_says_what_it_beats_random_on()
    Case().test_beats_random_on_its_planted_objective()


def scored(objective):
    """The texts of all prompts in their order, hard ones too, as tuples of token ids."""
    found = []
    for line in objective.log.lines:
        for prompt in line["prompts"]:
            words = " ".join(prompt["texts"]).split() if "texts" in prompt else []
            found.append(
                tuple(prompt["ids"]) if "ids" in prompt else tuple(int(word[1:]) for word in words)
            )
    return found


def textbook(scorer, width):
    """All tokens behind each of the best beginnings, depth by depth.

    Returns all that is scored, and the best of it.
    """
    beams, depths = [()], []
    for _ in range(scorer.space.length):
        children = [(*beam, token) for beam in beams for token in scorer.space.pool.tolist()]
        values = scorer.score(
            [scorer.space.beginning(ids) for ids in children], scorer.scored
        ).losses.mean(1)
        beams = [children[i] for i in np.argsort(values)[:width]]
        depths.append((set(children), beams))
    return depths


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("kind", ["separable", "pairwise"])
def test_with_enough_budget_it_is_the_textbooks_beam_search(kind, width):
    scorer = PlantedScorer(kind, pool=12, length=3, noise=0.1)
    depths = textbook(scorer, width)
    count = sum(len(children) for children, _ in depths)
    objective = scorer.objective()
    strategy = Beam(objective, seed=0, width=width, batch=5)
    while len(strategy.values) < count:  # the first search, and nothing of the wider one behind it
        asked = strategy.ask()
        strategy.tell(asked, objective.evaluate(asked))
    assert set(scored(objective)) == set.union(*(children for children, _ in depths))
    assert scored(objective)[-1] in depths[-1][0]
    best = min(
        (item for item in strategy.values if len(item) == 3), key=strategy.values.__getitem__
    )
    assert best == depths[-1][1][0]


def test_a_shorter_prompt_may_win():
    """A text is filled up with zeros: with these in the best prompt, each token makes it worse."""
    scorer = PlantedScorer("separable", pool=2, length=4)
    nothing = torch.zeros_like(scorer.landscape.planted)
    scorer.landscape = Landscape("separable", nothing, nothing)
    objective = scorer.objective()
    search(Beam(objective, seed=0))
    best = objective.ranking[0].prompt
    assert isinstance(best, TextPrompt) and scorer.length(best) == 1


def test_each_depth_of_a_large_pool_gets_an_equal_share_and_the_best_beginning_half_of_it():
    scorer = PlantedScorer("separable", pool=500, length=4)
    objective = scorer.objective(scorer.budget(160))
    search(Beam(objective, seed=0, width=3))
    prompts = scored(objective)
    depths = [[ids for ids in prompts if len(ids) == depth] for depth in (1, 2, 3, 4)]
    assert [len(depth) for depth in depths] == pytest.approx(
        [40, 45, 48, 50], abs=5
    )  # short ones cost less, and leave more
    for depth in depths[1:]:
        parts = sorted(
            (
                len(list(group))
                for _, group in itertools.groupby(sorted(depth), key=lambda ids: ids[:-1])
            ),
            reverse=True,
        )
        assert parts[:3] == pytest.approx([len(depth) / 2, len(depth) / 4, len(depth) / 4], abs=2)
    assert objective.affordable(4) == 0 and len(set(prompts)) == len(prompts)


def test_what_is_left_widens_the_search_to_the_whole_space_and_scores_nothing_twice():
    objective = planted_objective("pairwise", pool=6, length=3, budget=None)
    assert search(Beam(objective, seed=0, width=1)) == "nothing left to propose"
    prompts = scored(objective)
    assert len(prompts) == len(set(prompts)) and sum(len(ids) == 3 for ids in prompts) == 6**3


def test_failed_beginnings_are_not_gone_on_from_while_others_are_there():
    scorer = PlantedScorer("separable", pool=30, length=2, failing=0.5)
    objective = scorer.objective()
    strategy = Beam(objective, seed=0, batch=30)
    first = strategy.ask()
    evaluation = objective.evaluate(first)
    assert evaluation.failures
    strategy.tell(first, evaluation)
    strategy.ask()
    good = {ids for ids, value in strategy.values.items() if np.isfinite(value)}
    assert len(strategy.beams) == 4 and set(strategy.beams) <= good


@pytest.mark.parametrize("option", ["width", "batch"])
def test_options_below_one_are_refused(option):
    with pytest.raises(StrategyError, match=f"'{option}' must be at least 1, got 0"):
        make_strategy("it", Beam, planted_objective(), 0, {option: 0})
