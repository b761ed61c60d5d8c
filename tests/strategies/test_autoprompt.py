"""AutoPrompt.

The conformance suite, its step against brute force, and the mistakes of the released code.
"""

from __future__ import annotations

import numpy as np
import pytest

from promptsearch import Ask, HardPrompt
from promptsearch.errors import StrategyError
from promptsearch.search import loop
from promptsearch.search.options import check_options
from promptsearch.strategies.autoprompt import AutoPrompt
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer


class TestAutoPrompt(StrategyConformance):
    strategy = AutoPrompt
    options = {"batch": 4}
    planted = "separable"


class TestFromAWinner(StrategyConformance):
    strategy = AutoPrompt
    options = {"batch": 4}
    seeds = 5

    def start(self, objective, seed):
        return objective.space.sample(np.random.default_rng([seed, 5]), 1)[0]


def made(scorer=None, **options):
    scorer = scorer or PlantedScorer("separable")
    return scorer, AutoPrompt(scorer.objective(), seed=0, **{"batch": 4, **options})


def step(strategy):
    """One ask and its tell."""
    asked = strategy.ask()
    prompts, examples = (asked.prompts, asked.examples) if isinstance(asked, Ask) else (asked, None)
    strategy.tell(prompts, evaluation := strategy.objective.evaluate(prompts, examples))
    return asked, evaluation


def test_all_candidates_are_the_best_of_all_exchanges_where_the_loss_is_linear(monkeypatch):
    """Brute force over every token of the position.

    With a linear loss the gradient tells the truth.
    """
    scorer, strategy = made(candidates=5)
    weights = np.random.default_rng(3).normal(size=(4, 8))

    def linear(vectors):
        return (vectors * vectors.new_tensor(weights)).sum((-1, -2)) + 9

    monkeypatch.setattr(scorer, "landscape", linear)
    (present,), _ = step(strategy)
    asked, _ = step(strategy)
    (place,) = {
        i for prompt in asked.prompts[1:] for i in range(4) if prompt.ids[i] != present.ids[i]
    }
    every = [
        HardPrompt([*present.ids[:place], token, *present.ids[place + 1 :]])
        for token in scorer.space.pool
        if token != present.ids[place]
    ]
    losses = scorer.score(every, np.asarray(asked.examples)).losses.mean(1)
    assert list(asked.prompts[1:]) == [every[i] for i in np.argsort(losses)[:5]]


def test_a_step_keeps_the_best_of_present_prompt_and_candidates():
    scorer, strategy = made()
    step(strategy)
    for _ in range(12):
        asked, evaluation = step(strategy)
        if isinstance(asked, Ask):
            assert strategy.present == asked.prompts[int(np.argmin(evaluation.values))]


def test_candidates_are_accepted_on_the_examples_that_the_present_prompt_was_scored_on():
    """Trap: a candidate on an easy minibatch beside the present prompt's loss on a hard one."""
    _, strategy = made()
    present = step(strategy)[0][0]
    asked, evaluation = step(strategy)
    assert isinstance(asked, Ask) and asked.prompts[0] == present
    assert np.isfinite(evaluation.losses).all() and evaluation.losses.shape == (
        len(asked.prompts),
        4,
    )


def minibatches(monkeypatch, examples, batch):
    """The examples that gave the gradient and those that decided, in each of some steps."""
    scorer = PlantedScorer("separable", examples=examples)
    strategy = AutoPrompt(scorer.objective(), seed=0, batch=batch)
    gave, loss = [], scorer.loss  # only the gradient asks for it

    def noted(numbers, ids, *rest):
        gave.append(set(ids.tolist()))
        return loss(numbers, ids, *rest)

    monkeypatch.setattr(scorer, "loss", noted)
    decided = [asked.examples for asked, _ in map(step, [strategy] * 20) if isinstance(asked, Ask)]
    assert len(decided) > 3
    return list(zip(gave, map(list, decided), strict=True))


def test_other_examples_decide_than_those_that_gave_the_gradient(monkeypatch):
    for gave, decided in minibatches(monkeypatch, examples=24, batch=6):
        assert len(gave) == len(decided) == 6 and not gave & set(decided)


def test_where_there_are_fewer_examples_than_in_a_minibatch_each_is_read_and_paid_once(monkeypatch):
    for gave, decided in minibatches(monkeypatch, examples=24, batch=16):
        assert gave == set(decided) == set(range(12, 24)) and len(decided) == 12


def test_where_each_minibatch_is_all_examples_no_prompt_is_paid_on_them_twice():
    _, strategy = made(PlantedScorer("separable", examples=24), batch=16)
    for _ in range(12):
        step(strategy)
    lines = [x for x in strategy.objective.log.lines if x["examples"] != "score_on"]
    keys = [prompt["key"] for line in lines for prompt in line["prompts"]]
    assert len(lines) > 3 and len(keys) == len(set(keys))


def test_the_present_prompt_is_never_replaced_by_a_worse_one():
    """Trap: noise and a position where every candidate is worse."""
    scorer = PlantedScorer("separable")
    strategy = AutoPrompt(scorer.objective(), seed=0, batch=4)
    strategy.present = scorer.optimum
    for _ in range(20):
        step(strategy)
        assert strategy.present == scorer.optimum


def test_every_new_prompt_is_scored_on_all_of_score_on_so_that_it_can_win():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(60))
    strategy = AutoPrompt(objective, seed=0, batch=4)
    loop.search(strategy)
    scored = {
        p["key"]
        for line in objective.log.lines
        if line["examples"] == "score_on"
        for p in line["prompts"]
    }
    losses = [item.value for item in objective.ranking]
    assert len(scored) > 3 and losses[0] < losses[-1]
    minibatches = [
        line["examples"] for line in objective.log.lines if line["examples"] != "score_on"
    ]
    assert all(set(ids) <= set(scorer.training.tolist()) for ids in minibatches)


def test_no_special_token_is_a_candidate():
    """Trap: the tokens with the largest gradient are often none that a prompt may hold."""
    scorer, strategy = made()
    pool = set(scorer.space.pool.tolist())
    for _ in range(10):
        asked, _ = step(strategy)
        assert all(set(p.ids) <= pool for p in (asked.prompts if isinstance(asked, Ask) else asked))


def test_starts_from_a_text_and_refuses_tokens_outside_the_pool():
    scorer = PlantedScorer("separable")
    inside, other = (f"w{i}" for i in scorer.space.pool[:2])
    outside = next(i for i in range(200) if i not in set(scorer.space.pool.tolist()))
    (prompt,) = AutoPrompt(scorer.objective(), seed=0, text=f"{inside} {other}").ask()
    assert prompt.ids == tuple(scorer.space.pool[[0, 1, 0, 1]].tolist())
    with pytest.raises(StrategyError, match=f"not in the pool of 100: 'w{outside}'"):
        AutoPrompt(scorer.objective(), seed=0, text=f"{inside} w{outside}")
    with pytest.raises(StrategyError, match="empty"):
        AutoPrompt(scorer.objective(), seed=0, text="  ")


def test_starts_from_the_winner_of_another_run():
    scorer = PlantedScorer("separable")
    objective = scorer.objective()
    objective.start = scorer.optimum
    assert AutoPrompt(objective, seed=0).ask() == [scorer.optimum]
    with pytest.raises(StrategyError, match="give one of them"):
        AutoPrompt(objective, seed=0, text="w1")


@pytest.mark.parametrize("options", [{"candidates": 0}, {"batch": 0}])
def test_refuses_options_out_of_range(options):
    with pytest.raises(StrategyError, match="must be at least 1, got 0"):
        check_options("autoprompt", AutoPrompt, options)
