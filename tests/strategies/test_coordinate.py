import numpy as np
import pytest

from promptsearch import HardPrompt
from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.coordinate import Coordinate
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestCoordinate(StrategyConformance):
    strategy = Coordinate
    planted = "separable"


@pytest.mark.parametrize("kind", ["pairwise", "plateau"])
def test_beats_random_on_what_its_docstring_names(kind):
    class Case(StrategyConformance):
        strategy = Coordinate
        planted = kind
        seeds = 5

    Case().test_says_what_it_beats_random_on()
    Case().test_beats_random_on_its_planted_objective()


def asks(objective):
    """The token ids of each ask, shape `(prompts, length)` each."""
    return [np.array([prompt["ids"] for prompt in line["prompts"]]) for line in objective.log.lines]


def test_one_round_over_all_tokens_solves_a_separable_landscape():
    """Each token counts by itself: after all tokens at each position nothing is left to improve."""
    scorer = PlantedScorer("separable", pool=40, length=4)
    objective = scorer.objective(scorer.budget(1 + 4 * 39))
    search(Coordinate(objective, seed=0, tries=None))
    assert objective.ranking[0].prompt == scorer.optimum


@pytest.mark.parametrize("tries", [None, 5])
def test_each_ask_changes_one_position_of_the_best_prompt_of_the_descent(tries):
    scorer = PlantedScorer("pairwise", pool=20, length=3)
    objective = scorer.objective(scorer.budget(150))
    search(Coordinate(objective, seed=2, tries=tries))
    current, value, positions = None, np.inf, []
    for line, rows in zip(objective.log.lines, asks(objective), strict=True):
        values = np.mean(line["losses"], axis=1)
        if current is None or len(rows) == 1 and (rows[0] != current).sum() > 1:  # a descent begins
            current, value, positions = rows[0], values[0], []
            continue
        (changed,) = {tuple(np.flatnonzero(row != current)) for row in rows}
        assert len(changed) == 1 and len(rows) <= (tries or 19)
        positions.append(changed[0])
        if values.min() < value:
            current, value = rows[values.argmin()], values.min()
        if (
            len(positions) == 3
        ):  # of a first round at least, no position has been tried out: each comes once
            assert sorted(positions) == [0, 1, 2]


def test_it_goes_on_elsewhere_from_a_local_optimum_and_nowhere_else():
    scorer = PlantedScorer("deceptive", pool=8, length=3, seed=3)
    objective = scorer.objective()
    assert search(Coordinate(objective, seed=1, tries=3)) == "nothing left to propose"
    known, current, restarts = {}, None, 0
    for line, rows in zip(objective.log.lines, asks(objective), strict=True):
        ids = [tuple(row) for row in rows.tolist()]
        values = np.mean(line["losses"], axis=1)
        if (
            current is None
            or len(ids) == 1
            and sum(a != b for a, b in zip(ids[0], current, strict=True)) > 1
        ):
            if current is not None:
                restarts += 1
                for at in range(3):
                    for token in objective.space.pool.tolist():
                        changed = (*current[:at], token, *current[at + 1 :])
                        assert changed in known, "it gave up before all neighbours were tried"
            current = ids[0]
        known.update(zip(ids, values, strict=True))
        best = ids[int(values.argmin())]
        current = best if known[best] < known[current] else current
    assert restarts > 0 and len(known) == objective.space.size == sum(map(len, asks(objective)))


def test_an_equal_loss_is_no_improvement():
    objective = planted_objective(pool=10, length=2)
    strategy = Coordinate(objective, seed=0, tries=4)
    (start,) = strategy.ask()
    evaluation = objective.evaluate([start])
    strategy.tell([start], evaluation)
    for _ in range(3):
        asked = strategy.ask()
        flat = objective.evaluate(asked)
        flat.values[:] = evaluation.values[0]
        strategy.tell(asked, flat)
        assert strategy.current == start.ids


def test_tokens_that_were_not_tried_at_a_position_come_first():
    """On a plateau of 40 tokens at 2 positions, 8 at a time.

    Five visits to a position try all of them.
    """
    objective = planted_objective(pool=40, length=2, budget=None)
    strategy = Coordinate(objective, seed=0, tries=8)
    tried = [set(), set()]
    value = 1.0
    for _ in range(1 + 10):
        asked = strategy.ask()
        evaluation = objective.evaluate(asked)
        value /= 2  # always better: the rest of the prompt changes with every ask
        evaluation.values[:] = value
        strategy.tell(asked, evaluation)
        if len(asked) > 1:
            (at,) = [i for i in range(2) if len({prompt.ids[i] for prompt in asked}) > 1]
            tried[at] |= {prompt.ids[at] for prompt in asked}
    assert [len(some) for some in tried] == pytest.approx(
        [40, 40], abs=2
    )  # but for tokens that were the current one


def test_it_starts_from_a_text():
    scorer = PlantedScorer("separable", length=3)
    ids = scorer.space.pool[[5, 7, 5]].tolist()
    objective = scorer.objective(scorer.budget(30))
    search(Coordinate(objective, seed=0, text=scorer.space.decode(ids)))
    assert asks(objective)[0].tolist() == [ids]
    assert objective.ranking[0].value < np.mean(objective.log.lines[0]["losses"])


def test_a_text_with_tokens_outside_the_pool_is_refused_and_names_them():
    scorer = PlantedScorer("separable", length=3)
    inside = int(scorer.space.pool[0])
    out, other = sorted(set(range(200)) - set(scorer.space.pool.tolist()))[:2]
    with pytest.raises(
        StrategyError, match=rf"not in the pool of 100: 'w{other}', 'w{out}'\. Leave them out"
    ):
        Coordinate(scorer.objective(), seed=0, text=f"w{other} w{inside} w{out} w{other}")


def test_a_text_is_repeated_to_the_length_and_an_empty_one_is_refused():
    scorer = PlantedScorer("separable", length=3)
    first = int(scorer.space.pool[0])
    assert list(Coordinate(scorer.objective(), seed=0, text=f"w{first}").ask()) == [
        HardPrompt([first] * 3)
    ]
    with pytest.raises(StrategyError, match="'text' is empty"):
        Coordinate(scorer.objective(), seed=0, text="")


def test_it_starts_from_the_winner_of_another_run():
    scorer = PlantedScorer("separable", length=3)
    objective = scorer.objective()
    objective.start = scorer.space.prompt([5, 7, 5])
    assert list(Coordinate(objective, seed=0).ask()) == [objective.start]


def test_a_descent_leaves_a_failed_prompt():
    scorer = PlantedScorer("separable", failing=0.5)
    for seed in range(5):
        objective = scorer.objective(scorer.budget(60))
        search(Coordinate(objective, seed=seed))
        assert isinstance(objective.ranking[0].prompt, HardPrompt) and np.isfinite(
            objective.ranking[0].value
        )


def test_no_tries_are_refused():
    with pytest.raises(StrategyError, match="'tries' must be at least 1, got 0"):
        make_strategy("it", Coordinate, planted_objective(), 0, {"tries": 0})
