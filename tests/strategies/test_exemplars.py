from dataclasses import replace

import numpy as np
import pytest

from promptsearch import TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.records.ledger import Ledger
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.exemplars import Exemplars
from promptsearch.study.config import parse_config
from promptsearch.study.prepare import prepare
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestExemplars(StrategyConformance):
    strategy = Exemplars
    options = {"shots": 2}


class TestExemplarsOfRandomLabels(TestExemplars):
    options = {"shots": 2, "labels": "random"}


def scored(objective):
    return [prompt["texts"][0] for line in objective.log.lines for prompt in line["prompts"]]


def test_random_takes_one_set_of_examples_that_are_not_scored_on():
    objective = planted_objective()
    assert (
        search(Exemplars(objective, seed=0, shots=3, choose="random")) == "nothing left to propose"
    )
    (text,) = scored(objective)
    shown = text.splitlines()
    assert len(shown) == 3
    assert set(shown) <= set(objective.demonstrations(objective.training))
    assert not set(shown) & set(objective.demonstrations(objective.scored))


def test_loss_draws_other_sets_until_the_budget_is_spent():
    objective = planted_objective(budget=20_000)
    search(Exemplars(objective, seed=0, shots=2))
    assert len(set(scored(objective))) > 10
    assert isinstance(objective.ranking[0].prompt, TextPrompt)
    assert objective.ranking[0].value == min(
        np.mean(row) for line in objective.log.lines for row in line["losses"]
    )


def test_a_demonstration_is_the_filled_template_with_its_answer(tiny, films):
    config = parse_config(
        {
            "name": "s",
            "model": "m",
            "task": "capitals",
            "budget": 50_000,
            "seeds": 1,
            "score_on": 8,
            "length": 2,
            "strategies": ["random"],
        }
    )
    arena = prepare(config, tiny, films).arena(films)
    objective = Objective(
        arena.searching, arena.space, Ledger(None), scored=arena.scored, training=np.arange(8, 40)
    )
    (text,) = objective.demonstrations([9])
    example = films.splits["search"].examples[9]
    assert text == f"{example.fields['text']} It was{example.answer}"
    search(Exemplars(objective, seed=0, shots=2, choose="random"))
    (line,) = objective.log.lines
    assert line["failures"] == {}, "exemplars join with the template"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 0}, "'shots' must be at least 1, got 0"),
        ({"batch": 0}, "'batch' must be at least 1, got 0"),
        ({"shots": 99}, "99 shots were asked for, but only 16 examples are not scored on"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", Exemplars, planted_objective(), 0, options)


def test_random_labels_stand_behind_the_same_examples():
    right, drawn = planted_objective(), planted_objective()
    search(Exemplars(right, seed=0, shots=8, choose="random"))
    search(Exemplars(drawn, seed=0, shots=8, choose="random", labels="random"))
    shown = [[each.rsplit(" ", 1) for each in scored(o)[0].splitlines()] for o in (right, drawn)]
    assert [text for text, _ in shown[0]] == [text for text, _ in shown[1]]
    assert {label for _, label in shown[1]} == {label for _, label in shown[0]} == {"yes", "no"}
    assert shown[0] != shown[1]


class WithOptions(PlantedScorer):
    """Has answers to choose from that differ by row."""

    def examples(self, ids):
        return [replace(e, options=(e.answer, f" {e.id}")) for e in super().examples(ids)]


def test_a_random_label_is_one_of_the_rows_own():
    objective = WithOptions("separable").objective()
    search(Exemplars(objective, seed=0, shots=16, choose="random", labels="random"))
    known = objective.examples(objective.training)
    own = {f"{e.fields['text']}{label}" for e in known for label in e.options}
    shown = scored(objective)[0].splitlines()
    assert set(shown) <= own and any(line[-1].isdigit() for line in shown)


def test_labels_are_drawn_for_the_set_that_is_best_with_right_ones():
    """Among draws of labels, those would win that happen to be right."""
    objective = planted_objective(budget=20_000)
    search(Exemplars(objective, seed=0, shots=2, labels="random"))
    *tried, last = objective.log.lines
    half, right = objective.scored[: len(objective.scored) // 2], {}
    for line in tried:
        assert line["examples"] == half.tolist()
        for prompt, losses in zip(line["prompts"], line["losses"], strict=True):
            right[prompt["texts"][0]] = np.nanmean(losses)
    best = min(right, key=right.__getitem__)
    (shown,) = [prompt["texts"][0] for prompt in last["prompts"]]
    inputs = [[each.rsplit(" ", 1)[0] for each in text.splitlines()] for text in (best, shown)]
    assert inputs[0] == inputs[1] and len(right) > 10
    assert [ranked.prompt for ranked in objective.ranking] == [TextPrompt(shown)]
    assert objective.ledger.left < objective.ledger.spent / 4
