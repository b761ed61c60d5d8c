"""The planted objectives have the optimum and the landscapes that they promise."""

import itertools
from typing import get_args

import numpy as np
import pytest
import torch

from promptsearch import GatedPrompt, HardPrompt, PrefixPrompt, SoftPrompt, TextPrompt, TunedPrompt
from promptsearch.testing.planted import Kind, PlantedScorer, planted_objective

KINDS = get_args(Kind)
ALL = np.arange(32)


def means(scorer, prompts):
    """Mean loss of each prompt over `score_on`, in nats."""
    return scorer.score(prompts, scorer.scored).losses.mean(1)


def soft(scorer, prompt):
    return SoftPrompt(scorer.embeddings[list(prompt.ids)])


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_planted_prompt_is_the_only_best_one(kind, noise):
    scorer = PlantedScorer(kind, pool=7, length=3, noise=noise)
    prompts = [scorer.space.prompt(row) for row in itertools.product(range(7), repeat=3)]
    values = means(scorer, prompts)
    best = np.argsort(values)
    assert prompts[best[0]] == scorer.optimum
    assert values[best[0]] == pytest.approx(scorer.optimum_value, abs=1e-9)
    assert values[best[1]] > values[best[0]] + 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_all_kinds_walk_on_the_same_landscape(kind):
    scorer = PlantedScorer(kind)
    hard = scorer.space.sample(np.random.default_rng(0), 5)
    texts = [TextPrompt(scorer.space.decode(prompt.ids)) for prompt in hard]
    expected = scorer.score(hard, ALL).losses
    np.testing.assert_allclose(
        scorer.score([soft(scorer, p) for p in hard], ALL).losses, expected, atol=1e-7
    )
    np.testing.assert_allclose(scorer.score(texts, ALL).losses, expected, atol=1e-7)
    prefixes = [PrefixPrompt(scorer.keys_values(p.ids)) for p in hard]
    np.testing.assert_allclose(scorer.score(prefixes, ALL).losses, expected, atol=1e-7)
    gates = torch.tensor(
        [[0.5, 1.5], [0.0, 0.0]]
    )  # of two layers and two heads: what the upper one holds does not count
    vectors = [scorer.embeddings[list(p.ids)] for p in hard]
    gated = [GatedPrompt(torch.stack([2 * v, torch.ones_like(v)], 1), gates) for v in vectors]
    np.testing.assert_allclose(scorer.score(gated, ALL).losses, expected, atol=1e-7)
    part = {
        "a.x": torch.full((4, 8), 0.25),
        "b.x": torch.full((2, 4, 8), 0.5),
    }  # laid on each other: 1.25 everywhere
    tuned = [TunedPrompt({"vectors": v - 1.25, **part}) for v in vectors] + [
        TunedPrompt({"vectors": vectors[0]})
    ]
    np.testing.assert_allclose(scorer.score(tuned, ALL).losses, [*expected, expected[0]], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_differentiable_loss_is_the_score_and_its_gradient_is_right(kind):
    scorer = PlantedScorer(kind)
    start = soft(scorer, scorer.space.sample(np.random.default_rng(0), 1)[0]).vectors
    batch = np.array([3, 17, 4])
    score = scorer.score([SoftPrompt(start)], batch).losses.mean()
    assert float(scorer.loss(start, batch)) == pytest.approx(score, abs=1e-6)
    vectors = start.double().requires_grad_()
    torch.autograd.gradcheck(lambda v: scorer.loss(v, batch), vectors)
    rows = (
        torch.randn(4, *scorer.prefix_shape, generator=torch.Generator().manual_seed(0))
        .double()
        .requires_grad_()
    )
    torch.autograd.gradcheck(lambda r: scorer.loss(r, batch), rows)
    deep = [
        t.double().requires_grad_()
        for t in (
            torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(1)),
            torch.ones(2, 2),
        )
    ]
    torch.autograd.gradcheck(lambda *numbers: scorer.loss(numbers, batch), tuple(deep))
    both = [
        torch.randn(s, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
        for s in ((4, 8), (3, 5))
    ]
    torch.autograd.gradcheck(lambda v, w: scorer.loss({"vectors": v, "a.x": w}, batch), tuple(both))


def test_losses_differ_by_example_and_order_prompts_alike():
    scorer = PlantedScorer("separable")
    losses = scorer.score(scorer.space.sample(np.random.default_rng(0), 20), ALL).losses
    assert (losses.std(axis=1) > 0.05).all()
    orders = np.argsort(losses, axis=0)  # (prompts, examples)
    assert (orders == orders[:, :1]).all()


def test_noise_makes_examples_prefer_different_prompts():
    scorer = PlantedScorer("separable", noise=0.5)
    losses = scorer.score(scorer.space.sample(np.random.default_rng(0), 20), ALL).losses
    orders = np.argsort(losses, axis=0)
    assert (orders != orders[:, :1]).any()


def mixed_difference(scorer, rows):
    """f(a, b) - f(a', b) - f(a, b') + f(a', b') over the first two positions.

    0 where they do not interact.
    """
    a, b = rows
    corners = [a, [b[0], *a[1:]], [a[0], b[1], *a[2:]], [b[0], b[1], *a[2:]]]
    values = means(scorer, [scorer.space.prompt(row) for row in corners])
    return values @ [1, -1, -1, 1]


@pytest.mark.parametrize(
    ("kind", "interacts"), [("separable", False), ("plateau", False), ("pairwise", True)]
)
def test_positions_interact_only_where_they_should(kind, interacts):
    scorer = PlantedScorer(kind)
    rng = np.random.default_rng(0)
    found = [abs(mixed_difference(scorer, rng.integers(100, size=(2, 4)))) for _ in range(20)]
    assert (np.median(found) > 0.05) == interacts and (max(found) < 1e-9) == (not interacts)


def test_neighbours_in_the_embeddings_have_similar_losses():
    scorer = PlantedScorer("separable", length=1)
    prompts = [scorer.space.prompt([i]) for i in range(100)]
    values = means(scorer, prompts)
    pool = scorer.embeddings[torch.from_numpy(scorer.space.pool.copy())]
    nearest = (torch.cdist(pool, pool) + 9 * torch.eye(100)).argmin(1).numpy()
    to_neighbour = abs(values - values[nearest]).mean()
    to_anyone = abs(values - np.roll(values, 31)).mean()
    assert to_neighbour < 0.7 * to_anyone


def test_on_the_deceptive_landscape_descent_ends_at_the_decoy():
    ends = []
    for seed in range(5):
        scorer = PlantedScorer("deceptive", seed=seed)
        vectors = torch.nn.Parameter(torch.zeros(4, 8))
        optimizer = torch.optim.Adam([vectors], lr=0.01)
        for _ in range(300):
            optimizer.zero_grad()
            scorer.loss(vectors, scorer.scored).backward()
            optimizer.step()
        ends.append(means(scorer, [SoftPrompt(vectors)])[0] - scorer.optimum_value)
    assert (
        min(ends) > 0.2 and max(ends) < 0.35
    )  # the decoy is 0.25 nats above the optimum, times the examples' scales


def test_on_the_plateau_most_tokens_are_equally_wrong():
    scorer = PlantedScorer("plateau", length=1)
    values = means(scorer, [scorer.space.prompt([i]) for i in range(100)])
    assert (values.max() - values < 0.05 * (values.max() - values.min())).mean() > 0.8


def test_a_budget_buys_the_evaluations_that_it_says():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(30))
    assert objective.affordable(4) == 30
    objective.evaluate(scorer.space.sample(np.random.default_rng(0), 30))
    assert objective.ledger.left == 0


def test_indices_and_token_ids_differ():
    space = PlantedScorer("separable").space
    assert (space.pool != np.arange(100)).mean() > 0.9


def test_about_the_wanted_share_of_prompts_fails_visibly_and_never_the_optimum():
    scorer = PlantedScorer("separable", failing=0.3)
    prompts = [*scorer.space.sample(np.random.default_rng(0), 200), scorer.optimum]
    scores = scorer.score(prompts, ALL)
    assert 40 <= len(scores.failures) <= 80 and 200 not in scores.failures
    assert sorted(scores.failures) == np.flatnonzero(np.isnan(scores.losses).all(1)).tolist()
    assert np.isnan(scores.metric[list(scores.failures)]).all()
    assert PlantedScorer("separable", failing=1.0).score([scorer.optimum], ALL).failures == {}


def test_the_seed_decides_everything():
    one, same, other = (PlantedScorer("separable", seed=seed) for seed in (0, 0, 1))
    assert one.optimum == same.optimum and torch.equal(one.embeddings, same.embeddings)
    assert one.optimum != other.optimum and one.signature != other.signature


def test_the_shorthand_plants_what_the_scorer_knows(tmp_path):
    objective = planted_objective("pairwise", seed=3, pool=20, length=2, folder=tmp_path)
    scorer = PlantedScorer("pairwise", seed=3, pool=20, length=2)
    evaluation = objective.evaluate([scorer.optimum])
    assert evaluation.values[0] == pytest.approx(scorer.optimum_value, abs=1e-5)
    assert (tmp_path / "evaluations.jsonl").exists()


def test_texts_of_any_length_are_scored_and_priced_by_their_words():
    scorer = PlantedScorer("separable")
    texts = [TextPrompt(""), TextPrompt("one"), TextPrompt(["one two", "three four five six"])]
    assert [scorer.length(text) for text in texts] == [0, 1, 6]
    assert np.isfinite(scorer.score(texts, ALL).losses).all()
    assert scorer.length(HardPrompt([1, 2, 3])) == 3


def test_examples_are_examples():
    example = PlantedScorer("separable").examples(np.array([5]))[0]
    assert (example.id, example.answer, example.choice) == (
        5,
        " no",
        1,
    ) and "text" in example.fields
