from dataclasses import replace

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from promptsearch import Ask
from promptsearch.errors import StrategyError
from promptsearch.search import gaussian_process as gp
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies import bayesian
from promptsearch.strategies.bayesian import Bayesian
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestBayesian(StrategyConformance):
    strategy = Bayesian
    options = {"candidates": 1000}
    planted = "pairwise"
    evaluations = 120


class TestBayesianOnAllExamples(StrategyConformance):
    strategy = Bayesian
    options = {"examples": 1.0, "batch": 16, "candidates": 1000}
    evaluations = 150
    seeds = 5


def rows_of(rng, count, pool=9, length=3):
    return rng.integers(pool, size=(count, length))


def unit(rng, pool=9, width=4):
    vectors = rng.normal(size=(pool, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("slope", [1.0, 5.0])
def test_interactions_are_weighted_means_over_positions_and_pairs(slope):
    """Against the sums written out."""
    rng = np.random.default_rng(0)
    vectors, a, b = unit(rng), rows_of(rng, 5, length=4), rows_of(rng, 6, length=4)
    one, two, every = gp.Kernel(0.6, 0.3, slope).orders(a, b, vectors)
    share = [
        slope ** (position / 3) for position in range(4)
    ]  # the last one says `slope` times as much as the first
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            like = [
                0.6 * (p == q) + 0.4 * np.exp((vectors[p] @ vectors[q] - 1) / 0.3)
                for p, q in zip(x, y, strict=True)
            ]
            pairs, said = zip(
                *[(like[p] * like[q], share[p] * share[q]) for p in range(4) for q in range(p)],
                strict=True,
            )
            expected = [
                np.average(like, weights=share),
                np.average(pairs, weights=said),
                np.prod(like),
            ]
            np.testing.assert_allclose([one[i, j], two[i, j], every[i, j]], expected)


def test_a_prompt_is_wholly_like_itself_and_the_kernel_is_positive():
    rng = np.random.default_rng(1)
    rows = np.unique(rows_of(rng, 60), axis=0)
    for weights in gp.WEIGHTS:
        process = gp.Process(gp.Kernel(0.2, 1.0, 5.0), weights, 0.1, len(rows))
        kernel = process.covariance(rows, rows, unit(rng))
        np.testing.assert_allclose(np.diag(kernel), 1)
        assert np.linalg.eigvalsh(kernel).min() > -1e-9


@pytest.mark.parametrize(("position", "slope"), [(0, 0.2), (2, 5.0)])
def test_the_end_that_decides_the_losses_is_found(position, slope):
    rng = np.random.default_rng(5)
    rows = np.unique(rows_of(rng, 80), axis=0)
    losses = rng.normal(size=9)[rows[:, position]] + 0.1 * rng.normal(size=len(rows))
    assert gp.fit(rows, losses, unit(rng)).kernel.slope == slope


def test_expected_improvement_is_that_of_scikit_learns_process():
    """The same kernel in another implementation, and the improvement by sampling."""
    rng = np.random.default_rng(2)
    vectors, rows, among = unit(rng), np.unique(rows_of(rng, 20), axis=0), rows_of(rng, 8)
    losses = rng.normal(size=len(rows))
    model = gp.Process(gp.Kernel(0.6, 0.3, 5.0), (0.3, 0.5, 0.2), 0.1, len(rows))

    class Ours(Kernel):
        def __init__(self):
            """scikit-learn reads the parameters from here."""

        def __call__(self, a, b=None, eval_gradient=False):
            a, b = a.astype(int), (a if b is None else b).astype(int)
            return model.covariance(a, b, vectors)

        def diag(self, a):
            return np.ones(len(a))

        def is_stationary(self):
            return False

    scaled = (losses - losses.mean()) / losses.std()
    theirs = GaussianProcessRegressor(Ours(), alpha=0.1, optimizer=None).fit(rows, scaled)
    mean, deviation = theirs.predict(among, return_std=True)
    kernel = Ours()(rows) + 0.1 * np.eye(len(rows))
    deviation = deviation * np.sqrt(scaled @ np.linalg.solve(kernel, scaled) / len(rows))
    drawn = rng.normal(mean, deviation, size=(200_000, len(among)))
    expected = np.maximum(scaled.min() - drawn, 0).mean(0)
    np.testing.assert_allclose(
        bayesian.expected_improvement(*model.predict(rows, losses, among, vectors), scaled.min()),
        expected,
        atol=0.005,
    )


def test_the_few_examples_are_those_that_speak_for_all():
    """Half of the examples are noise, the others move with the prompts.

    None of the noise is taken.
    """
    rng = np.random.default_rng(3)
    height = rng.normal(size=(30, 1))
    losses = np.concatenate(
        [
            height + 0.01 * rng.normal(size=(30, 8)),
            3 * rng.normal(size=(30, 2)) - 3 * rng.normal(size=(30, 2)),
        ],
        1,
    )
    losses[:, 9] = -losses[:, 8]  # so that the noise adds nothing to the mean
    assert set(bayesian.followers(losses, 4).tolist()) <= set(range(8))
    assert bayesian.followers(losses, 10).tolist() == list(range(10))
    assert len(bayesian.followers(losses[:0], 3)) == 3  # all prompts failed: any will do


def test_few_prompts_are_scored_on_all_examples_and_only_the_promising_ones():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(60))
    strategy = Bayesian(objective, seed=0, first=8, batch=8, full=0.2)
    partial, whole, ranks = {}, [], []
    ask, tell = strategy.ask, strategy.tell

    def spy():
        asked = ask()
        if not isinstance(asked, Ask):
            waiting = sorted(set(partial) - set(whole), key=partial.__getitem__)
            ranks.extend(waiting.index(prompt) / len(waiting) for prompt in asked if partial)
            whole.extend(asked)
        return asked

    def hear(prompts, evaluation):
        if len(evaluation.examples) < len(objective.scored):
            partial.update(zip(prompts, evaluation.values, strict=True))
        tell(prompts, evaluation)

    strategy.ask, strategy.tell = spy, hear
    search(strategy)
    assert len(ranks) > 2 and len(partial) > 3 * len(ranks)
    assert max(ranks) < 0.2  # the few examples say nearly the same as all


class Split(PlantedScorer):
    """Tokens at the last place, the upper half of the pool, are bad on all examples but few."""

    few: tuple[int, ...] = ()

    def score(self, prompts, examples):
        scores = super().score(prompts, examples)
        upper = [self.space.indices(prompt)[-1] >= len(self.space.pool) // 2 for prompt in prompts]
        worse = np.outer(upper, ~np.isin(examples, self.few))
        return replace(scores, losses=scores.losses + worse)


def test_what_the_few_examples_do_not_show_is_learned_from_those_scored_on_all(monkeypatch):
    scorer = Split("separable", pool=20, length=3)
    few = np.arange(4)
    scorer.few = tuple(scorer.scored[few].tolist())
    monkeypatch.setattr(bayesian, "followers", lambda losses, count: few)
    objective = scorer.objective(scorer.budget(60))
    strategy = Bayesian(objective, seed=0, candidates=500)
    upper = []
    ask = strategy.ask

    def spy():
        asked = ask()
        if isinstance(asked, Ask):
            upper.append(np.mean([objective.space.indices(p)[-1] >= 10 for p in asked.prompts]))
        return asked

    strategy.ask = spy
    search(strategy)
    assert np.mean(upper) < 0.25  # by chance it would be half, by the few examples as well


class LongExamples(PlantedScorer):
    """What all prompts share, and the first ask pays, costs as much as hundreds of prompts."""

    def lead(self, examples):
        return np.full(len(examples), 1_000)


def test_what_the_first_ask_pays_for_all_keeps_no_prompt_from_being_scored_on_all():
    scorer = LongExamples("separable", pool=20, length=3)
    objective = scorer.objective(scorer.budget(60))
    search(Bayesian(objective, seed=0, candidates=100))
    whole = [len(line["prompts"]) for line in objective.log.lines if line["examples"] == "score_on"]
    assert whole[0] == 16 and sum(whole[1:]) >= 2


@pytest.mark.parametrize("evaluations", [24, 30, 50])
def test_a_small_budget_without_a_race_scores_promising_prompts_on_all_examples(evaluations):
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(evaluations))
    search(Bayesian(objective, seed=0, candidates=100))
    whole = [len(line["prompts"]) for line in objective.log.lines if line["examples"] == "score_on"]
    assert whole[0] == 16 and 2 <= sum(whole[1:]) <= 6
    first = {prompt["key"] for prompt in objective.log.lines[0]["prompts"]}
    assert objective.ranking[0].prompt.key not in first


def test_prompts_that_a_race_drops_early_do_not_use_up_the_share_of_all_examples():
    scorer = PlantedScorer("separable", examples=256)
    objective = scorer.objective(scorer.budget(40), race=True)
    strategy = Bayesian(objective, seed=0, candidates=100, full=0.3)
    scores = {True: 0, False: 0}
    tell = strategy.tell

    def hear(prompts, evaluation):
        whole = len(evaluation.examples) == len(objective.scored)
        scores[whole] += np.isfinite(evaluation.losses).sum()
        tell(prompts, evaluation)

    strategy.tell = hear
    search(strategy)
    assert 0.15 < scores[True] / sum(scores.values()) < 0.45


class Metric(PlantedScorer):
    """Losses below 0, as where a search follows a metric."""

    def score(self, prompts, examples):
        scores = super().score(prompts, examples)
        return replace(scores, losses=scores.losses - 5)


def test_losses_below_0_are_learned_from():
    scorer = Metric("separable", pool=20, length=3)
    objective = scorer.objective(scorer.budget(60))
    search(Bayesian(objective, seed=0, candidates=500))
    drawn = scorer.score(scorer.space.sample(np.random.default_rng(0), 500), objective.scored)
    assert objective.ranking[0].value < drawn.losses.mean(1).min()


class Closed(PlantedScorer):
    """Shows no embeddings, as a model behind an endpoint."""

    @property
    def embeddings(self):
        raise StrategyError("no embeddings")


def test_without_embeddings_tokens_are_the_same_or_not():
    objective = Closed("separable").objective(None)
    vectors = Bayesian(objective, seed=0).vectors
    assert vectors.shape == (len(objective.space.pool), 0)
    rng = np.random.default_rng(4)
    rows = np.unique(rows_of(rng, 40), axis=0)
    model = gp.fit(rows, rng.normal(size=len(rows)), vectors)
    one, two, every = gp.Kernel(model.kernel.same, model.kernel.distance, 1.0).orders(
        rows, rows, vectors
    )
    same = rows[:, None] == rows[None]
    np.testing.assert_allclose(one, same.mean(2))
    np.testing.assert_allclose(every, same.all(2))


def test_without_embeddings_it_still_beats_random_draws():
    scorer = Closed("separable", pool=20)
    objective = scorer.objective(scorer.budget(100))
    search(Bayesian(objective, seed=0))
    drawn = PlantedScorer("separable", pool=20).score(
        scorer.space.sample(np.random.default_rng(0), 100), objective.scored
    )
    assert objective.ranking[0].value < drawn.losses.mean(1).min()


def test_neighbours_of_each_other_are_asked_for_last():
    ordered = np.array([[0, 0, 0], [0, 0, 1], [5, 5, 0], [5, 5, 5]])
    assert bayesian.apart(ordered, 2) == [(0, 0, 0), (5, 5, 0)]
    assert bayesian.apart(ordered, 4) == [(0, 0, 0), (5, 5, 0), (0, 0, 1), (5, 5, 5)]


def test_a_small_space_is_scored_whole_and_then_it_ends():
    objective = planted_objective(pool=3, length=2, budget=None)
    assert search(Bayesian(objective, seed=0)) == "nothing left to propose"
    assert (
        len(
            {
                data["key"]
                for line in objective.log.lines
                if line["examples"] == "score_on"
                for data in line["prompts"]
            }
        )
        == 9
    )


@pytest.mark.parametrize(
    "options",
    [
        {"first": 0},
        {"batch": 0},
        {"candidates": 0},
        {"examples": 0.0},
        {"examples": 1.1},
        {"full": 0.0},
    ],
)
def test_numbers_out_of_their_range_are_refused(options):
    with pytest.raises(StrategyError, match=f"'{next(iter(options))}' must be"):
        make_strategy("it", Bayesian, planted_objective(), 0, options)
