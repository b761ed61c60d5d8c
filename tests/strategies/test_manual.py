import pytest

from promptsearch import TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.options import check_options
from promptsearch.strategies.manual import Manual
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestManual(StrategyConformance):
    strategy = Manual
    options = {"prompts": ["w1 w2", ["good", "or bad?"]]}


def scored(objective):
    return [tuple(prompt["texts"]) for line in objective.log.lines for prompt in line["prompts"]]


def test_scores_the_given_prompts_in_their_order_and_the_empty_one_last():
    objective = planted_objective(budget=None)
    assert search(Manual(objective, seed=0, prompts=["b", ["a", "c"]])) == "nothing left to propose"
    assert scored(objective) == [("b",), ("a", "c"), ("",)]


def test_without_the_empty_prompt():
    objective = planted_objective(budget=None)
    search(Manual(objective, seed=0, prompts=["b"], empty=False))
    assert scored(objective) == [("b",)]


def test_the_best_text_wins():
    scorer = PlantedScorer("separable")
    objective = scorer.objective()
    best = scorer.space.decode(scorer.optimum.ids)
    search(Manual(objective, seed=0, prompts=["some words", best, "other words"]))
    assert objective.ranking[0].prompt == TextPrompt(best)
    assert objective.ranking[0].value == pytest.approx(scorer.optimum_value, abs=1e-5)


def test_a_small_budget_reaches_for_the_first_prompts():
    prompts = [TextPrompt("a b"), TextPrompt("c d")]
    objective = planted_objective(budget=planted_objective(budget=None).price(prompts))
    search(Manual(objective, seed=0, prompts=["a b", "c d", "e f"]))
    assert scored(objective) == [("a b",), ("c d",)]


def test_nothing_to_score_is_refused():
    with pytest.raises(StrategyError, match="it has nothing to score: give 'prompts'"):
        check_options("manual", Manual, {"prompts": [], "empty": False})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"prompts": "text"}, "expected a list"), ({"empty": "perhaps"}, "expected true or false")],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(StrategyError, match=message):
        check_options("manual", Manual, options)
