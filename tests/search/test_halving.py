"""Halving finds the best of a few for the price of fewer, and forgets nothing that it knows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.records.scores import Scores
from promptsearch.search.halving import halve, rounds
from promptsearch.search.ranking import SELECTED


def run(losses, known, failing=()):
    """Halve over a table, and count what each contestant was asked for."""
    asked = np.zeros(losses.shape, dtype=int)

    def score(who, ids):
        asked[np.ix_(who, ids)] += 1
        part = losses[np.ix_(who, ids)].copy()
        failures = {i: "no" for i, contestant in enumerate(who) if contestant in failing}
        part[list(failures)] = np.nan
        return Scores(part, np.where(np.isnan(part), np.nan, part < 1), None, part.size, failures)

    return halve(known, np.arange(losses.shape[1]), score), asked


@given(st.integers(1, 40), st.integers(1, 300))
def test_rounds_cover_each_example_once_with_ever_fewer_contestants(contestants, examples):
    found = rounds(contestants, examples)
    assert np.concatenate([places for _, places in found]).tolist() == list(range(examples))
    counts = [count for count, _ in found]
    assert counts[0] == contestants and counts == sorted(counts, reverse=True)
    assert min(counts) >= min(contestants, SELECTED)
    for (count, _), after in zip(found, counts[1:], strict=False):
        assert after == max(SELECTED, -(-count // 2))


def test_the_price_of_eight_is_that_of_four_and_a_half():
    assert [(count, len(places)) for count, places in rounds(8, 128)] == [(8, 32), (4, 32), (3, 64)]
    assert [(count, len(places)) for count, places in rounds(3, 128)] == [(3, 128)]


def test_what_a_brute_force_ranking_drops_is_dropped_and_nothing_is_scored_twice():
    rng = np.random.default_rng(0)
    for _ in range(20):
        losses, known = rng.normal(1, 0.3, (11, 64)), rng.normal(1, 0.3, (11, 40))
        found, asked = run(losses, known)
        alive, seen = set(range(11)), 0
        for count, places in rounds(11, 64):
            means = np.hstack([known, losses[:, :seen]]).mean(1)
            alive = set(sorted(alive, key=lambda i: means[i])[:count])
            seen = int(places[-1]) + 1
        assert set(np.flatnonzero(np.isfinite(found.losses).all(1))) == alive
        assert asked.max() == 1 and np.array_equal(np.isfinite(found.losses), asked == 1)


@pytest.mark.parametrize("fresh", [8, 64])
def test_it_finds_the_better_prompt_more_often_than_the_fresh_examples_alone(fresh):
    """The search's own losses count, although the contestants were chosen by them."""
    rng = np.random.default_rng(1)
    pooled, alone = [], []
    for _ in range(400):
        quality = rng.normal(1, 0.05, 60)
        known = quality[:, None] + rng.normal(0, 0.3, (60, 64))
        best = known.mean(1).argsort()[:8]  # as a search chooses them
        losses = quality[best, None] + rng.normal(0, 0.3, (8, fresh))
        found, _ = run(losses, known[best])
        means = np.hstack([known[best], found.losses]).mean(1)
        pooled.append(quality[best[np.nanargmin(means)]])
        alone.append(quality[best[:SELECTED]][losses[:SELECTED].mean(1).argmin()])
    assert np.mean(pooled) < np.mean(alone) - 0.002


def test_one_that_fails_leaves_its_place_to_the_others():
    rng = np.random.default_rng(2)
    losses, known = rng.normal(1, 0.1, (8, 32)), rng.normal(1, 0.1, (8, 16))
    found, _ = run(losses, known - np.eye(8, 16) * 50, failing={3})  # all alike but for noise
    assert found.failures == {3: "no"} and np.isnan(found.losses[3]).all()
    assert np.isfinite(found.losses).all(1).sum() == SELECTED
    nothing, _ = run(losses, known, failing=set(range(8)))
    assert np.isnan(nothing.losses).all() and len(nothing.failures) == 8
