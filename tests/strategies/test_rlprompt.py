import dataclasses
import itertools

import numpy as np
import pytest
import torch

from promptsearch import Evaluation
from promptsearch.errors import StrategyError
from promptsearch.records.ledger import Ledger
from promptsearch.scoring.answers import choice_scores
from promptsearch.search.loop import search
from promptsearch.search.metric_scorer import MetricScorer
from promptsearch.search.objective import Objective
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.rlprompt import Policy, RLPrompt, path_loss, rewards
from promptsearch.tasks.metrics.accuracy import Accuracy
from promptsearch.tasks.task import Task
from promptsearch.tasks.template import Template
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestRLPrompt(StrategyConformance):
    strategy = RLPrompt
    planted = "separable"


def policy(pool=4, width=8, hidden=16):
    """A policy that prefers some tokens."""
    generator = torch.Generator().manual_seed(0)
    made = Policy(torch.randn(pool, width, generator=generator), hidden, generator)
    with torch.no_grad():
        made.out.copy_(torch.randn(hidden, width, generator=generator, dtype=torch.float64))
    return made


# Soft Q-learning, on the tree of all prompts of three tokens.

POOL, LENGTH = 3, 3
EVERY = torch.tensor(list(itertools.product(range(POOL), repeat=LENGTH)))
REWARDS = torch.sin(5.0 * torch.arange(len(EVERY), dtype=torch.float64))


def soft_values():
    """Q of each token behind each beginning of a prompt, by backward induction."""
    found = {}
    values = {tuple(row.tolist()): r for row, r in zip(EVERY, REWARDS, strict=True)}
    for t in reversed(range(LENGTH)):
        for beginning in itertools.product(range(POOL), repeat=t):
            q = torch.stack([values[(*beginning, token)] for token in range(POOL)])
            found[beginning] = q
            values[beginning] = q.exp().mean().log()
    return found


def q_of(known):
    """Q above every prompt, shape `(prompts, length, pool)`."""
    rows = [[known[tuple(row[:t])] for t in range(LENGTH)] for row in EVERY.tolist()]
    return torch.stack([torch.stack(row) for row in rows])


def test_the_loss_is_zero_at_the_soft_optimum_of_a_tree_and_nowhere_near_it():
    known = soft_values()
    assert path_loss(q_of(known), q_of(known), EVERY, REWARDS) < 1e-20
    known[1, 2] = known[1, 2] + torch.tensor([0.3, 0.0, 0.0])
    assert path_loss(q_of(known), q_of(known), EVERY, REWARDS) > 1e-4


def test_the_soft_optimum_draws_prompts_as_their_rewards_say():
    log_pi = q_of(soft_values()).log_softmax(-1).gather(-1, EVERY[..., None])[..., 0].sum(1)
    assert torch.allclose(log_pi, REWARDS.log_softmax(0))


def test_the_loss_is_that_of_both_path_consistencies_written_out():
    generator = torch.Generator().manual_seed(0)
    shape = (len(EVERY), LENGTH, POOL)
    q, target = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    total = 0.0
    for i, row in enumerate(EVERY.tolist()):
        v = [float(target[i, t].exp().mean().log()) for t in range(LENGTH)] + [float(REWARDS[i])]
        gain = [float(q[i, t, z] - q[i, t].exp().mean().log()) for t, z in enumerate(row)]
        for t in range(LENGTH):
            total += (gain[t] - (v[t + 1] - v[t])) ** 2 / 2
            total += (sum(gain[t:]) - (v[LENGTH] - v[t])) ** 2 / 2
    found = path_loss(q, target, EVERY, REWARDS)
    assert found.item() == pytest.approx(total / len(EVERY), rel=1e-12)


def test_the_gap_is_the_piecewise_one_of_probabilities_and_a_tie_is_not_right():
    right = np.array([[0.9, 0.5], [0.3, np.nan]])  # (prompts, examples)
    scored = Evaluation(np.zeros(2), -np.log(right), right, None, np.arange(2), {}, 0, 0)
    found = rewards(scored, "gap")
    assert found[0] == pytest.approx((200 * 0.8 + 180 * 0.0) / 2) and np.isnan(found[1])
    wrong = dataclasses.replace(scored, losses=-np.log([[0.3, 0.6]]), values=np.zeros(1))
    assert rewards(wrong, "gap") == pytest.approx((180 * -0.4 + 200 * 0.2) / 2)


# The policy.


def test_before_the_first_reward_all_tokens_are_equally_probable():
    strategy = RLPrompt(planted_objective(pool=10, length=2), seed=0)
    assert not strategy.policy(torch.randn(5, 8).double()).any()


def test_prompts_are_drawn_as_often_as_they_are_probable_given_what_stands_before():
    objective = planted_objective(pool=3, length=2, budget=None)
    strategy = RLPrompt(objective, seed=0)
    with torch.no_grad():
        strategy.policy.out.copy_(2 * torch.randn(64, 8, generator=torch.manual_seed(1)))
    drawn = strategy.write(20_000, torch.Generator().manual_seed(1))
    pool = objective.space.pool
    expected = {}
    for a, b in itertools.product(range(3), repeat=2):
        states = objective.states([[], [int(pool[a])]]).double()
        p = strategy.policy(states).softmax(-1).detach()
        expected[a, b] = 20_000 * float(p[0, a] * p[1, b])
    assert max(expected.values()) > 3 * min(expected.values())
    for row, count in expected.items():
        assert abs(drawn.count(row) - count) < 5 * np.sqrt(count) + 1


@pytest.mark.parametrize("width", [8, 512])
def test_a_step_moves_probabilities_alike_for_states_of_any_width(width):
    generator = torch.Generator().manual_seed(0)
    made = Policy(0.02 * torch.randn(100, width, generator=generator) + 0.3, 64, generator)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    states = 30 * torch.randn(1, width, generator=generator, dtype=torch.float64)
    before = made(states).log_softmax(-1)[0, 5]
    (-before).backward()
    optimizer.step()
    assert 0.5 < (made(states).log_softmax(-1)[0, 5] - before).item() < 5


def test_each_beginning_is_read_and_paid_once():
    objective = planted_objective(pool=6, length=3, budget=None)
    strategy = RLPrompt(objective, seed=0)
    scored = 0
    for _ in range(3):
        prompts = strategy.ask()
        evaluation = objective.evaluate(prompts)
        scored += evaluation.price
        strategy.tell(prompts, evaluation)
    read = list(strategy.states)
    assert all(len(beginning) < 3 for beginning in read)
    assert objective.ledger.forward == scored + sum(len(beginning) + 1 for beginning in read)


def test_what_is_drawn_beside_the_policy_is_read_before_it_is_scored(monkeypatch):
    objective = planted_objective(pool=50, length=4, budget=None)
    strategy = RLPrompt(objective, seed=0)
    strategy.tell(prompts := strategy.ask(), objective.evaluate(prompts))
    known = strategy.rows[0]
    monkeypatch.setattr(strategy, "write", lambda count, generator: [known] * count)
    prompts = strategy.ask()
    assert strategy.rows != [known] and {strategy.rows[0][:t] for t in range(4)} < set(
        strategy.states
    )
    evaluation = objective.evaluate(prompts)
    spent = objective.ledger.spent
    strategy.tell(prompts, evaluation)
    assert objective.ledger.spent == spent


def told(change=lambda evaluation: evaluation, scorer=None, **options):
    """A strategy after one ask, Q of its prompts' last tokens before and after, the values."""
    objective = (scorer or PlantedScorer("separable")).objective()
    strategy = RLPrompt(objective, seed=0, batch=30, **options)
    prompts = strategy.ask()
    ids = [list(prompt.ids) for prompt in prompts]
    evaluation = change(objective.evaluate(prompts))

    def likelihood():
        tokens = torch.tensor(strategy.rows)
        states = torch.stack(
            [objective.states([row[:t] for row in ids]) for t in range(tokens.shape[1])], 1
        )
        log_p = strategy.policy(states.double()).log_softmax(-1)
        return log_p.gather(-1, tokens[..., None])[..., 0].sum(1).detach().numpy()

    before = likelihood()
    strategy.tell(prompts, evaluation)
    return strategy, before, likelihood(), evaluation.values


@pytest.mark.parametrize("reward", ["loss", "gap"])
def test_good_prompts_become_more_probable_and_bad_ones_less(reward):
    _, before, after, values = told(updates=40, reward=reward)
    gains = after - before
    assert gains[values.argmin()] > 0 > gains[values.argmax()]
    assert np.corrcoef(values, gains)[0, 1] < -0.5


def test_a_failed_prompt_is_no_reward():
    scorer = PlantedScorer("separable", failing=0.3)
    strategy, before, after, values = told(scorer=scorer, updates=40)
    failed = np.isinf(values)
    assert 0 < failed.sum() < len(values)
    assert (after - before)[failed].mean() < 0
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


def test_prompts_that_are_all_alike_teach_nothing():
    strategy, before, after, _ = told(
        lambda e: dataclasses.replace(e, values=np.full(len(e.values), 0.7))
    )
    assert np.array_equal(before, after) and not strategy.policy.out.any()


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
        greedy.append(scorer.space.prompt(strategy.write(1, None)[0]).key)
        return prompts

    strategy.ask = listen
    search(strategy)
    lines = objective.log.lines
    known = {
        p["key"]: np.mean(row)
        for line in lines
        for p, row in zip(line["prompts"], line["losses"], strict=True)
    }
    assert len(known) > 130 and set(greedy[1:-1]) <= set(known)
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
        ({"replay": 1}, "'replay' must be at least 2, got 1"),
        ({"reward": "accuracy"}, "option 'reward': .*'loss' or 'gap'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", RLPrompt, planted_objective(), 0, options)


def test_a_gap_between_texts_is_refused(monkeypatch):
    scorer = PlantedScorer("separable")
    examples = scorer.examples
    monkeypatch.setattr(
        scorer,
        "examples",
        lambda ids: [dataclasses.replace(each, choice=None) for each in examples(ids)],
    )
    with pytest.raises(StrategyError, match="'reward: gap' is between answers to choose from"):
        RLPrompt(scorer.objective(), seed=0, reward="gap")


def test_a_gap_where_a_metric_is_followed_is_refused():
    planted = PlantedScorer("separable")
    task = Task("it", Template.parse("{prompt} {text}{answer}"), (" yes", " no"), {}, "accuracy")
    followed = MetricScorer(planted, Accuracy(), task)
    made = {"scored": planted.scored, "training": planted.training}

    def run(reward):
        objective = Objective(followed, planted.space, Ledger(planted.budget(30)), **made)
        return search(RLPrompt(objective, seed=0, reward=reward))

    with pytest.raises(StrategyError, match="minus the metric 'accuracy'.*take 'reward: loss'"):
        run("gap")
    assert run("loss")
