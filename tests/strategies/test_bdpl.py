import itertools

import numpy as np
import pytest
import torch

from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.bdpl import Bdpl, gradient, probabilities
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestBdpl(StrategyConformance):
    strategy = Bdpl
    planted = "separable"


def test_beats_random_on_a_plateau_too():
    class Case(StrategyConformance):
        strategy = Bdpl
        planted = "plateau"
        seeds = 5

    Case().test_says_what_it_beats_random_on()
    Case().test_beats_random_on_its_planted_objective()


def run(scorer, evaluations, asked=None, **options):
    """Objective and strategy after a run.

    `asked` receives of each ask the most probable prompt, the prompts and their keys.
    """
    objective = scorer.objective(scorer.budget(evaluations))
    strategy = Bdpl(objective, seed=0, **options)
    ask = strategy.ask

    def listen():
        best = scorer.space.prompt(strategy.logits.argmax(1))
        prompts = ask()
        if asked is not None:
            asked.append((best, prompts, [prompt.key for prompt in prompts]))
        return prompts

    strategy.ask = listen
    search(strategy)
    return objective, strategy


def scored(objective):
    """Mean loss by the prompt's key."""
    lines = objective.log.lines
    return {
        p["key"]: np.mean(row)
        for line in lines
        for p, row in zip(line["prompts"], line["losses"], strict=True)
    }


EXPLORE = 0.3
LOGITS = np.array([[0.0, 1.0, -np.inf, -2.0], [0.5, -1.0, 0.3, -np.inf]])
#: Every prompt of the candidates above, with some loss.
LOSSES = {row: np.sin(7.0 * i) for i, row in enumerate(itertools.product((0, 1, 3), (0, 1, 2)))}


def log_q(logits, rows, explore=EXPLORE):
    """The log-probability of prompts, shape `(prompts,)`, that autograd can follow."""
    candidates = torch.isfinite(logits)
    uniform = candidates / candidates.sum(1, keepdim=True)
    q = (1 - explore) * logits.softmax(-1) + explore * uniform
    return q[torch.arange(2), torch.tensor(rows)].log().sum(-1)


@pytest.mark.parametrize("explore", [0.0, EXPLORE])
def test_a_step_is_the_gradient_that_autograd_finds(explore):
    logits = torch.tensor(LOGITS, requires_grad=True)
    rows = [(0, 2), (1, 2), (1, 0), (3, 1)]
    losses = np.array([LOSSES[row] for row in rows])
    weights = torch.tensor(losses - losses.mean()) / 3
    (weights * log_q(logits, rows, explore)).sum().backward()
    expected = logits.grad.nan_to_num().numpy()
    assert np.allclose(gradient(LOGITS, rows, losses, explore), expected, atol=1e-12)


def test_over_all_draws_the_mean_of_the_step_is_the_gradient_of_the_expected_loss():
    rows = list(LOSSES)
    logits = torch.tensor(LOGITS, requires_grad=True)
    q = log_q(logits, rows).exp()
    assert q.sum().item() == pytest.approx(1)
    (q * torch.tensor(list(LOSSES.values()))).sum().backward()
    p = q.detach().numpy()
    mean = sum(
        p[i] * p[j] * gradient(LOGITS, [a, b], np.array([LOSSES[a], LOSSES[b]]), EXPLORE)
        for (i, a), (j, b) in itertools.product(enumerate(rows), repeat=2)
    )
    assert np.allclose(mean, logits.grad.nan_to_num().numpy(), atol=1e-12)


def test_steps_are_made_of_draws_alone_with_those_that_were_scored_before():
    objective = planted_objective(pool=8, length=3, budget=None)
    strategy = Bdpl(objective, seed=2, batch=8, rate=4.0, explore=0.2)
    values, greedy, repeats = {}, 0, 0
    for _ in range(30):
        prompts = strategy.ask()
        best = tuple(strategy.logits.argmax(1).tolist())
        drawn, before = list(strategy.drawn), strategy.logits.copy()
        greedy += best in strategy.rows and best not in drawn
        repeats += not set(drawn) <= set(strategy.rows)
        evaluation = objective.evaluate(prompts)
        values.update(zip(strategy.rows, evaluation.values, strict=True))
        strategy.tell(prompts, evaluation)
        own = gradient(before, drawn, np.array([values[row] for row in drawn]), 0.2)
        moved = before - strategy.logits
        # They differ by a positive scale alone.
        assert np.allclose(moved * np.abs(own).max(), own * np.abs(moved).max(), atol=1e-9)
        assert (moved * own).sum() > 0
    assert greedy and repeats


def test_zero_probability_gives_no_infinite_gradient():
    objective = planted_objective(pool=7, length=3, budget=None)
    strategy = Bdpl(objective, seed=0, explore=0.0)
    strategy.logits[:, 0] = 2_000.0  # in floating point all other tokens have the probability 0
    assert (probabilities(strategy.logits, 0.0)[:, 1:] == 0).all()
    strategy.rows = strategy.drawn = [(0, 0, 0), (1, 2, 3)]
    prompts = [objective.space.prompt(row) for row in strategy.rows]
    strategy.tell(prompts, objective.evaluate(prompts))
    assert np.isfinite(strategy.logits).all() and np.abs(strategy.logits[:, 1:]).max() < 100
    assert strategy.ask()


def test_what_was_proposed_is_no_alias_of_the_live_table():
    asked = []
    objective, strategy = run(PlantedScorer("separable"), 200, asked)
    for best, prompts, keys in asked:
        assert [prompt.key for prompt in prompts] == keys
        assert isinstance(best.ids, tuple)
    tops = {best.key for best, _, _ in asked}
    assert len(tops) > 3  # what is most probable did change meanwhile
    winner = objective.ranking[0]
    assert (
        PlantedScorer("separable").objective().evaluate([winner.prompt]).values[0] == winner.value
    )


def test_the_most_probable_prompt_is_scored_before_it_counts():
    asked = []
    objective, _ = run(PlantedScorer("separable"), 200, asked)
    known = scored(objective)
    for best, prompts, _ in asked[1:]:
        assert best == prompts[0] or best.key in known
    assert sum(best == prompts[0] for best, prompts, _ in asked[1:]) > 1


def test_the_winner_is_the_best_that_was_scored_and_not_the_last_iterate():
    last_was_worse = 0
    for seed in range(5):
        scorer = PlantedScorer("pairwise", seed=seed)
        objective, strategy = run(scorer, 100)
        known = scored(objective)
        assert objective.ranking[0].value == pytest.approx(min(known.values()))
        last = scorer.space.prompt(strategy.logits.argmax(1))
        last_was_worse += (
            scorer.objective().evaluate([last]).values[0] > objective.ranking[0].value + 1e-6
        )
    assert last_was_worse


def test_a_failed_prompt_loses_and_a_good_one_gains():
    scorer = PlantedScorer("separable", failing=0.5)
    objective = scorer.objective()
    strategy = Bdpl(objective, seed=0)
    prompts = strategy.ask()
    evaluation = objective.evaluate(prompts)
    strategy.tell(prompts, evaluation)
    gains = strategy.logits[0, [row[0] for row in strategy.rows]]
    tokens = [row[0] for row in strategy.rows]
    once = [i for i, token in enumerate(tokens) if tokens.count(token) == 1]
    failed = [i for i in once if i in evaluation.failures]
    assert failed and all(gains[i] < 0 for i in failed)
    assert (
        gains[np.argmin(np.where(np.isin(range(len(tokens)), once), evaluation.values, np.inf))] > 0
    )
    assert np.isfinite(strategy.logits).all()


def test_only_candidates_are_drawn_until_all_of_them_have_been_scored():
    objective = planted_objective(pool=50, length=2, budget=None)
    strategy = Bdpl(objective, seed=0, candidates=3, batch=4, explore=1.0)
    lists = [set(np.flatnonzero(row)) for row in np.isfinite(strategy.logits)]
    assert [len(tokens) for tokens in lists] == [3, 3] and lists[0] != lists[1]
    seen = []
    while len(seen) < 9:
        prompts = strategy.ask()
        strategy.tell(prompts, objective.evaluate(prompts))
        seen += [objective.space.indices(prompt) for prompt in prompts]
    assert all(a in lists[0] and b in lists[1] for a, b in seen)
    (outside,) = strategy.ask()
    strategy.tell([outside], objective.evaluate([outside]))
    assert not all(
        i in tokens for i, tokens in zip(objective.space.indices(outside), lists, strict=True)
    )
    assert np.isfinite(strategy.logits).sum() == 6


def test_nothing_is_proposed_twice_and_a_small_space_ends():
    objective = planted_objective(pool=4, length=3, budget=None)
    assert search(Bdpl(objective, seed=0)) == "nothing left to propose"
    keys = [prompt["key"] for line in objective.log.lines for prompt in line["prompts"]]
    assert len(keys) == len(set(keys)) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "'candidates' must be at least 1, got 0"),
        ({"batch": 1}, "'batch' must be at least 2, got 1"),
        ({"rate": 0.0}, "'rate' must be above 0, got 0"),
        ({"explore": 1.5}, "'explore' must be at most 1, got 1.5"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", Bdpl, planted_objective(), 0, options)


def test_draws_that_all_have_one_loss_do_not_move_the_scale():
    """They would make the next step as large as they are many."""
    for seed in range(4):
        scorer = PlantedScorer("separable", seed=seed, pool=30, length=2)
        _, strategy = run(scorer, 90, explore=0.0)
        assert np.abs(strategy.logits[np.isfinite(strategy.logits)]).max() < 50
