import dataclasses
import itertools

import numpy as np
import pytest
import torch

from promptsearch.errors import StrategyError
from promptsearch.scoring.answers import choice_scores
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.rlprompt import Policy, RLPrompt
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestRLPrompt(StrategyConformance):
    strategy = RLPrompt
    planted = "separable"


def test_beats_random_on_pairwise_too():
    class Case(StrategyConformance):
        strategy = RLPrompt
        planted = "pairwise"

    Case().test_says_what_it_beats_random_on()
    Case().test_beats_random_on_its_planted_objective()


def policy(pool=4, length=3, width=8, hidden=16):
    """A policy that prefers some prompts."""
    generator = torch.Generator().manual_seed(0)
    made = Policy(torch.randn(pool, width, generator=generator), length, hidden, generator)
    with torch.no_grad():
        made.out.copy_(torch.randn(hidden, width, generator=generator, dtype=torch.float64))
    return made


def test_probabilities_and_entropy_are_those_of_all_prompts_counted_out():
    made = policy()
    rows = torch.tensor(list(itertools.product(range(4), repeat=3)))
    log_p = made(rows)[0]
    p = log_p.exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12) and p.max() > 3 / 64
    conditional = torch.stack([made(row[None])[1] for row in rows])
    assert (p * conditional).sum().item() == pytest.approx(-(p * log_p).sum().item(), abs=1e-12)


def test_prompts_are_drawn_as_often_as_they_are_probable():
    made = policy()
    drawn = made.generate(20_000, torch.Generator().manual_seed(1))
    rows = list(itertools.product(range(4), repeat=3))
    expected = 20_000 * made(torch.tensor(rows))[0].exp().detach().numpy()
    counts = np.array([drawn.count(row) for row in rows])
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected) + 1).all()


def test_a_token_depends_on_the_one_before():
    made = policy()
    rows = torch.tensor([[0, 2, 1], [1, 2, 1]])
    before = made.tokens[rows[:, 0]]
    first, second = made.log_probabilities(before, made.places[1]).exp()
    assert (first - second).abs().max() > 0.01


def test_before_the_first_reward_all_prompts_are_equally_probable():
    strategy = RLPrompt(planted_objective(pool=10, length=2), seed=0)
    log_p = strategy.policy(torch.tensor(list(itertools.product(range(10), repeat=2))))[0]
    assert torch.allclose(log_p, torch.full((100,), -np.log(100), dtype=torch.float64))


def told(change=lambda evaluation: evaluation, scorer=None, **options):
    """A strategy after one step, its prompts' log-probabilities before and after, the values."""
    objective = (scorer or PlantedScorer("separable")).objective()
    strategy = RLPrompt(objective, seed=0, **options)
    prompts = strategy.ask()
    rows = torch.tensor(strategy.rows)
    evaluation = change(objective.evaluate(prompts))
    before = strategy.policy(rows)[0].detach()
    strategy.tell(prompts, evaluation)
    return strategy, before, strategy.policy(rows)[0].detach(), evaluation.values


def test_a_step_makes_good_prompts_more_probable_and_bad_ones_less():
    _, before, after, values = told(entropy=0.0)
    assert (
        after[values.argmin()] > before[values.argmin()]
        and after[values.argmax()] < before[values.argmax()]
    )
    assert np.corrcoef(values, (after - before).numpy())[0, 1] < -0.5


def test_a_failed_prompt_is_no_reward():
    strategy, before, after, values = told(
        scorer=PlantedScorer("separable", failing=0.3), entropy=0.0
    )
    failed = np.isinf(values)
    assert 0 < failed.sum() < len(values)
    assert (after - before).numpy()[failed].mean() < 0
    assert all(torch.isfinite(parameter).all() for parameter in strategy.policy.parameters())


def test_only_the_order_and_proportion_of_the_rewards_count():
    plain, scaled = (
        told(
            lambda e, scale=scale, shift=shift: dataclasses.replace(
                e, values=scale * e.values + shift
            )
        )[0]
        for scale, shift in ((1, 0), (1_000, 5))
    )
    assert torch.allclose(plain.policy.out, scaled.policy.out, atol=1e-9)


def test_steps_where_all_prompts_are_alike_teach_nothing():
    strategy, before, after, _ = told(
        lambda e: dataclasses.replace(e, values=np.full(len(e.values), 0.7))
    )
    assert torch.equal(before, after) and not strategy.policy.out.any()


def test_tokens_whose_embeddings_are_near_learn_from_each_other():
    strategy, *_ = told(entropy=0.0)
    with torch.no_grad():
        gains = strategy.policy.log_probabilities(
            torch.zeros(8, dtype=torch.float64), strategy.policy.places[0]
        )
    near = (
        torch.cdist(strategy.policy.tokens, strategy.policy.tokens)
        .fill_diagonal_(torch.inf)
        .argmin(-1)
    )
    assert np.corrcoef(gains, gains[near])[0, 1] > 0.3


@pytest.mark.parametrize("width", [8, 64, 512])
def test_a_step_moves_probabilities_alike_for_embeddings_of_any_width(width):
    generator = torch.Generator().manual_seed(0)
    made = Policy(0.02 * torch.randn(100, width, generator=generator) + 0.3, 3, 64, generator)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    row = torch.tensor([[5, 6, 7]])
    before = made(row)[0]
    (-before.sum()).backward()
    optimizer.step()
    assert 2 < (made(row)[0] - before).item() < 10


def test_an_exact_tie_is_not_counted_as_right():
    _, correct, _ = choice_scores(
        torch.tensor([[0.5, 0.5], [0.6, 0.4]]).log(), torch.tensor([0, 0])
    )
    assert correct.tolist() == [False, True]


def test_the_most_probable_prompt_is_scored_and_the_best_one_wins():
    scorer = PlantedScorer("pairwise")
    objective = scorer.objective(scorer.budget(150))
    strategy = RLPrompt(objective, seed=0)
    ask, greedy = strategy.ask, []

    def listen():
        prompts = ask()
        greedy.append(scorer.space.prompt(strategy.policy.generate(1)[0]).key)
        return prompts

    strategy.ask = listen
    search(strategy)
    lines = objective.log.lines
    known = {
        p["key"]: np.mean(row)
        for line in lines
        for p, row in zip(line["prompts"], line["losses"], strict=True)
    }
    assert len(known) == 150 and set(greedy[1:-1]) <= set(known)
    assert objective.ranking[0].value == pytest.approx(min(known.values()))


def test_nothing_is_proposed_twice_and_a_small_space_ends():
    objective = planted_objective(pool=4, length=3, budget=None)
    assert search(RLPrompt(objective, seed=0)) == "nothing left to propose"
    keys = [prompt["key"] for line in objective.log.lines for prompt in line["prompts"]]
    assert len(keys) == len(set(keys)) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 1}, "'batch' must be at least 2, got 1"),
        ({"hidden": 0}, "'hidden' must be at least 1, got 0"),
        ({"rate": -1.0}, "'rate' must be above 0, got -1"),
        ({"entropy": -0.1}, "'entropy' must be at least 0, got -0.1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", RLPrompt, planted_objective(), 0, options)
