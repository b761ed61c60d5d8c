"""Racing against full scoring: the best survives, and nothing unscored wins.

The worst are paid for in part.
"""

import numpy as np
import pytest
from scipy import stats

from promptsearch.errors import BudgetExhausted
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.cache import ScoreCache
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.records.scores import Scores
from promptsearch.search.objective import Objective
from promptsearch.search.race import BLOCK, LEVEL, race
from promptsearch.testing.planted import PlantedScorer

EXAMPLES = np.arange(128)


def table(rng, count, spread):
    """Losses of prompts of different quality.

    Each example is hard or easy for all of them, and a little for each.
    """
    quality = rng.normal(0, spread, count)
    return (
        1
        + quality[:, None]
        + rng.normal(0, 0.5, len(EXAMPLES))
        + rng.normal(0, 0.2, (count, len(EXAMPLES)))
    )


def run(losses, incumbent=None, budget=10**9):
    spent = []

    def score(who, ids):
        spent.append(len(who) * len(ids))
        part = losses[np.ix_(who, ids)]
        return Scores(part, (part < 1).astype(float), None, part.size)

    outcome = race(
        len(losses),
        EXAMPLES,
        incumbent,
        score,
        lambda who, ids, later: who[: max(0, (budget - sum(spent) - len(later)) // len(ids))],
    )
    return outcome, sum(spent)


def test_the_best_survives_as_often_as_promised_and_the_price_falls():
    rng = np.random.default_rng(0)
    lost, spent = 0, 0
    for _ in range(300):
        losses = table(rng, 32, 0.2)
        outcome, price = run(losses)
        best = losses.mean(1).argmin()
        lost += bool(np.isnan(outcome.scores.losses[best]).any())
        spent += price
        assert outcome.finished
    assert lost / 300 < LEVEL
    assert spent < 0.5 * 300 * losses.size


def test_among_equal_prompts_the_winner_is_as_good_as_the_best():
    """Where all are equally good, one that happens to be best may be dropped.

    It is dropped for one that is not significantly worse.
    """
    rng = np.random.default_rng(1)
    worse = 0
    for _ in range(300):
        losses = table(rng, 16, 0.0)
        outcome, _ = run(losses)
        winner, best = int(outcome.values.argmin()), int(losses.mean(1).argmin())
        if winner != best:
            worse += (
                stats.ttest_rel(losses[winner], losses[best], alternative="greater").pvalue < 0.05
            )
    assert worse / 300 < LEVEL


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_look_drops_a_prompt_as_good_as_the_incumbent_as_seldom_as_promised(correlation):
    """Against a given leader with the same mean over all examples."""
    rng = np.random.default_rng(5)
    first_look = dropped = 0
    for _ in range(2000):
        first, second = rng.normal(0, 1, (2, len(EXAMPLES)))
        losses = 5 + np.stack([first, correlation * first + np.sqrt(1 - correlation**2) * second])
        losses -= losses.mean(1, keepdims=True)
        outcome, _ = run(losses[:1], incumbent=losses[1])
        first_look += outcome.seen == BLOCK
        dropped += bool(np.isnan(outcome.scores.losses[0]).any())
    assert 0.85 * LEVEL < first_look / 2000 < 1.15 * LEVEL
    assert dropped / 2000 < 3 * LEVEL, "four looks at the same examples are not four tests"


@pytest.mark.parametrize(
    ("examples", "ends"),
    [(8, [8]), (16, [8, 16]), (40, [8, 16, 32, 40]), (128, [8, 16, 32, 64, 128])],
)
def test_each_look_sees_twice_what_the_last_one_saw(examples, ends):
    seen = []

    def score(who, ids):
        seen.append(len(ids))
        return Scores(np.ones((len(who), len(ids))), np.ones((len(who), len(ids))), None, 0)

    outcome = race(3, np.arange(examples), None, score, lambda who, ids, later: who)
    assert np.cumsum(seen).tolist() == ends and outcome.seen == examples


def test_values_rank_the_finished_first_and_estimate_the_others():
    losses = table(np.random.default_rng(2), 32, 0.3)
    outcome, _ = run(losses)
    full = np.isfinite(outcome.scores.losses).all(1)
    assert 0 < full.sum() < 32
    assert np.allclose(outcome.values[full], losses[full].mean(1))
    leader = losses[full][losses[full].mean(1).argmin()]
    for i in np.flatnonzero(~full):
        seen = np.isfinite(outcome.scores.losses[i])
        assert seen.sum() % BLOCK == 0 and seen[: seen.sum()].all()
        assert outcome.values[i] == pytest.approx(
            max(leader.mean(), leader.mean() + (losses[i] - leader)[seen].mean())
        )
    assert (
        outcome.values.argmin() == losses[full].mean(1).argmin()
        if full.all()
        else full[outcome.values.argmin()]
    )


def test_an_incumbent_stops_worse_prompts_at_the_first_look():
    rng = np.random.default_rng(3)
    losses = table(rng, 8, 0.0) + 2
    outcome, spent = run(losses, incumbent=losses[0] - 2)
    assert spent == 8 * BLOCK and not np.isfinite(outcome.scores.losses).all(1).any()
    assert (outcome.values >= (losses[0] - 2).mean()).all() and np.isfinite(outcome.values).all()


def test_a_budget_that_ends_within_a_race_finishes_the_leaders():
    losses = table(np.random.default_rng(4), 8, 0.0)
    outcome, spent = run(losses, budget=8 * BLOCK + 2 * (128 - BLOCK) + 5)
    assert not outcome.finished and spent <= 8 * BLOCK + 2 * (128 - BLOCK) + 5
    full = np.isfinite(outcome.scores.losses).all(1)
    seen = int(np.isfinite(outcome.scores.losses[~full]).sum(1).max())
    assert 0 < full.sum() < 8
    means = outcome.scores.losses[:, :seen].mean(1)  # NaN for those that were dropped before
    assert set(np.flatnonzero(full)) == set(means.argsort()[: full.sum()])
    nothing, spent = run(losses, budget=127)
    assert spent == 0 and not nothing.finished and np.isinf(nothing.values).all()


def test_a_failure_leaves_the_race_with_nothing_but_its_reason():
    losses = np.tile(table(np.random.default_rng(5), 1, 0.0), (4, 1))
    losses[1, 40] = np.nan

    def score(who, ids):
        part = losses[np.ix_(who, ids)].copy()
        failures = {i: "not finite" for i in range(len(who)) if np.isnan(part[i]).any()}
        return Scores(
            part, (part < 1).astype(float), np.stack([part, -part], -1), part.size, failures
        )

    outcome = race(4, EXAMPLES, None, score, lambda who, ids, later: who)
    assert outcome.scores.failures == {1: "not finite"} and np.isinf(outcome.values[1])
    assert np.isnan(outcome.scores.losses[1]).all() and np.isnan(outcome.scores.choices[1]).all()
    assert np.isfinite(outcome.scores.losses[[0, 2, 3]]).all()


def objective(scorer, budget, folder=None, race=True):
    return Objective(
        scorer,
        scorer.space,
        Ledger(budget),
        scored=np.arange(64),
        training=np.arange(64, 80),
        log=RunLog(folder),
        race=race,
    )


def ask(scorer, seed, count=24):
    return scorer.space.sample(np.random.default_rng(seed), count)


def test_an_objective_that_races_finds_the_same_best_for_less(tmp_path):
    scorer = PlantedScorer("separable", examples=80, noise=0.02)
    full, raced = objective(scorer, None, race=False), objective(scorer, None, tmp_path)
    for seed in range(3):
        prompts = [*ask(scorer, seed), *([scorer.optimum] if seed == 1 else [])]
        a, b = full.evaluate(prompts), raced.evaluate(prompts)
        assert b.price <= a.price and b.losses.shape == a.losses.shape
        assert np.nanmax(np.abs(a.losses - b.losses)) < 1e-9, "what was scored was scored right"
    assert full.ranking[0].prompt == raced.ranking[0].prompt == scorer.optimum
    assert raced.ledger.spent < 0.6 * full.ledger.spent
    assert all(np.isfinite(raced.evaluate([r.prompt]).losses).all() for r in raced.ranking), (
        "only whole rows are ranked"
    )
    again = objective(scorer, None, tmp_path)
    scorer.score = None  # nothing may be scored anew
    for seed in range(3):
        prompts = [*ask(scorer, seed), *([scorer.optimum] if seed == 1 else [])]
        found = again.evaluate(prompts)
        assert found.losses.shape == (len(prompts), 64)
    assert again.ledger == raced.ledger and [r.value for r in again.ranking] == [
        r.value for r in raced.ranking
    ]


def test_a_race_that_the_budget_ends_is_booked_and_ends_the_run_when_replayed_too(tmp_path):
    scorer = PlantedScorer("separable", examples=80, noise=0.5)
    prompts = ask(scorer, 0)
    budget = objective(scorer, None, race=False).price(prompts) // 8
    first, again = objective(scorer, budget, tmp_path), None
    with pytest.raises(BudgetExhausted):
        first.evaluate(prompts)
    assert 0 < first.ledger.spent <= budget and first.ranking
    again = objective(scorer, budget, tmp_path)
    with pytest.raises(BudgetExhausted):
        again.evaluate(prompts)
    assert again.ledger == first.ledger and [r.prompt for r in again.ranking] == [
        r.prompt for r in first.ranking
    ]


def words(count, first=0):
    return TextPrompt(" ".join(f"w{i}" for i in range(first, first + count)))


def test_a_text_that_is_too_long_for_what_is_left_ends_no_race_of_shorter_ones(tmp_path):
    scorer = PlantedScorer("separable", examples=80, noise=0.5)
    long, short = words(200), [words(4, first) for first in range(0, 32, 4)]
    budget, told = objective(scorer, None).price(short), []
    assert budget < objective(scorer, None).price([long])
    for _ in range(2):  # the second time, all is replayed
        raced = objective(scorer, budget, tmp_path)
        told.append(raced.evaluate([long, *short]))
        assert raced.ledger.spent <= budget
        with pytest.raises(BudgetExhausted, match="1 prompts were asked for and 0 could be paid"):
            raced.evaluate([words(300)])
        scorer.score = None
    first, again = told
    assert "costs more than what was left" in first.failures[0] and np.isinf(first.values[0])
    assert np.isnan(first.losses[0]).all() and np.isfinite(first.values[1:]).any()
    assert repr(again) == repr(first)


def test_a_dropped_prompt_asked_for_again_costs_nothing():
    scorer = PlantedScorer("separable", examples=80)
    raced = objective(scorer, None)
    raced.evaluate([scorer.optimum])
    far = next(p for p in ask(scorer, 1, 8) if isinstance(p, HardPrompt))
    first = raced.evaluate([far])
    assert np.isnan(first.losses).any() and raced.evaluate([far]).price == 0
    assert first.values[0] > raced.ranking[0].value


def test_a_race_decides_the_same_with_a_full_cache(tmp_path):
    """Scores come back from the cache with six decimals.

    Fresh ones must be rounded before anything is decided by them.
    """

    class Confident(PlantedScorer):
        """Losses so small that six decimals make many of them equal."""

        def score(self, prompts, examples):
            scores = super().score(prompts, examples)
            return Scores(
                scores.losses * 1e-6, scores.metric, None, scores.computed, scores.failures
            )

    def raced():
        scorer = Confident("separable", noise=0.3, examples=64)
        log = RunLog()
        cache = ScoreCache(tmp_path / "scores.sqlite")
        objective = Objective(
            scorer,
            scorer.space,
            Ledger(10**6),
            scored=scorer.scored,
            training=scorer.training,
            log=log,
            cache=cache,
            race=True,
        )
        rng = np.random.default_rng(0)
        for _ in range(4):
            objective.evaluate(scorer.space.sample(rng, 16))
        cache.close()
        return [
            {k: v for k, v in line.items() if k not in ("seconds", "ledger", "computed")}
            for line in log.lines
        ], (
            objective.ledger.forward,
            objective.ledger.cached,
        )

    (cold, (price, _)), (warm, (again, cached)) = raced(), raced()
    assert cached > 0 and warm == cold and price == again


def test_replaying_a_race_that_ended_early_pays_for_what_it_saw(tmp_path):
    """All contestants fail in the first block.

    So the inputs of the other blocks are still to be paid.
    """

    class Fails(PlantedScorer):
        def score(self, prompts, examples):
            scores = super().score(prompts, examples)
            return Scores(
                scores.losses * np.nan,
                scores.metric * np.nan,
                None,
                scores.computed,
                dict.fromkeys(range(len(prompts)), "no"),
            )

    def raced(scorer, log):
        return Objective(
            scorer,
            scorer.space,
            Ledger(10**6),
            scored=scorer.scored,
            training=scorer.training,
            log=log,
            race=True,
        )

    scorer = Fails("separable", examples=128)
    prompts = scorer.space.sample(np.random.default_rng(0), 4)
    first = raced(scorer, RunLog(tmp_path))
    first.evaluate(prompts)
    left = first.price(prompts)
    second = raced(scorer, RunLog(tmp_path))
    second.evaluate(prompts)
    assert second.ledger.forward == first.ledger.forward and second.price(prompts) == left
