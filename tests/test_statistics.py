"""Intervals and tests against simulations, and by hand.

And against scipy where it knows the special case.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from promptsearch.statistics import (
    Sample,
    cannot_exclude,
    compare_all,
    compare_leader,
    compare_with,
    holm,
    interval,
    jackknife,
    paired_test,
    rank,
)


def scores(rng, seeds, examples, difficulty, *, seed_sd, noise=0.5, mean=0.0):
    """Common value + luck of the seed + difficulty of the example + noise.

    Shape `(seeds, examples)`.
    """
    return (
        mean
        + seed_sd * rng.normal(size=(seeds, 1))
        + difficulty
        + noise * rng.normal(size=(seeds, examples))
    )


def coverage(seeds, *, seed_sd, deterministic=False, repeats=600, examples=100):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(repeats):
        found = interval(
            Sample(
                scores(rng, seeds, examples, rng.normal(size=examples), seed_sd=seed_sd),
                deterministic,
            )
        )
        hits += found.low <= 0 <= found.high
    return hits / repeats


@pytest.mark.parametrize(
    ("seeds", "seed_sd"), [(5, 0.0), (5, 0.1), (5, 0.3), (3, 0.1), (3, 0.3), (2, 0.3)]
)
def test_a_95_percent_interval_holds_the_truth_in_about_95_percent_of_simulations(seeds, seed_sd):
    assert 0.93 <= coverage(seeds, seed_sd=seed_sd) <= 0.98


def test_an_interval_that_forgets_the_seeds_misses_the_truth():
    assert coverage(3, seed_sd=0.3, deterministic=True) < 0.8


def test_coverage_of_accuracies():
    rng = np.random.default_rng(1)
    truth = stats.norm.cdf(0.8 / np.sqrt(1 + 0.2**2 + 0.5**2))
    hits = 0
    for _ in range(600):
        right = scores(rng, 4, 100, rng.normal(size=100), seed_sd=0.2, mean=0.8) > 0
        found = interval(Sample(right.astype(float)), (0, 1))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 600 <= 0.98


@pytest.mark.parametrize(
    ("seeds", "seed_sd"), [((3, 3), 0.3), ((5, 5), 0.3), ((5, 3), 0.1), ((3, 3), 0.0)]
)
def test_false_positives_under_the_null_are_at_most_about_5_percent(seeds, seed_sd):
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(800):
        difficulty = rng.normal(size=100)
        a, b = (Sample(scores(rng, count, 100, difficulty, seed_sd=seed_sd)) for count in seeds)
        found += paired_test("a", a, "b", b).p <= 0.05
    assert found / 800 <= 0.065
    assert found / 800 >= 0.015, "a test that never rejects would pass as well"


def test_pairing_finds_a_difference_that_is_small_beside_the_difficulty_of_examples():
    rng = np.random.default_rng(3)
    difficulty = 5 * rng.normal(size=200)
    a = Sample(scores(rng, 3, 200, difficulty, seed_sd=0.02, mean=0.3))
    b = Sample(scores(rng, 3, 200, difficulty, seed_sd=0.02))
    assert paired_test("a", a, "b", b).p < 0.01
    assert interval(a).low < interval(b).high, "unpaired, the two intervals overlap widely"


def test_the_interval_by_hand():
    # Examples' means 1, 3, 5: s2 = 4, over 3. Seeds' means 2, 4: s2 = 2, over 2, and no noise.
    found = interval(Sample(np.array([[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]])))
    assert found.mean == 3
    by_examples, by_seeds = stats.t.ppf(0.975, 2) ** 2 * 4 / 3, stats.t.ppf(0.975, 1) ** 2
    assert found.half == pytest.approx(np.sqrt(by_examples + by_seeds))
    assert found.high - found.mean == pytest.approx(found.mean - found.low)


def test_the_noise_of_examples_is_counted_once():
    """Without luck of the seed, the two parts together are the variance of the mean."""
    rng = np.random.default_rng(14)
    parts = [
        Sample(rng.normal(size=(3, 40)), groups=groups)
        for groups in (None, tuple(k // 4 for k in range(40)))
        for _ in range(300)
    ]
    for own in (parts[:300], parts[300:]):
        alone = np.mean([s.scores.mean(axis=1).var(ddof=1) / 3 for s in own])
        assert alone == pytest.approx(1 / 120, rel=0.15)
        # What is left is cut off at 0, so it is more than nothing.
        assert np.mean([s.seed_part.variance for s in own]) < 0.6 * alone


def test_without_seeds_the_interval_and_the_test_are_those_of_student():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(1, 40)), rng.normal(size=(1, 40))
    low, high = stats.t.interval(0.95, 39, a.mean(), stats.sem(a[0]))
    found = interval(Sample(a, deterministic=True))
    assert (found.low, found.high) == pytest.approx((low, high))
    test = paired_test("a", Sample(a, True), "b", Sample(b, True))
    assert test.p == pytest.approx(stats.ttest_rel(a[0], b[0]).pvalue)


def test_where_all_examples_are_alike_the_test_is_that_of_cochran_and_cox_over_the_seeds():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=4), rng.normal(1, 2, size=4)
    test = paired_test("a", Sample(np.tile(a[:, None], 50)), "b", Sample(np.tile(b[:, None], 50)))
    t = abs(a.mean() - b.mean()) / np.sqrt(a.var(ddof=1) / 4 + b.var(ddof=1) / 4)
    assert test.p == pytest.approx(2 * stats.t.sf(t, 3))


def test_one_seed_of_a_strategy_that_draws_is_flagged():
    row = np.random.default_rng(6).normal(size=(1, 30))
    drawn, fixed = Sample(row), Sample(row, deterministic=True)
    assert not interval(drawn).covers_seeds
    assert interval(fixed).covers_seeds
    assert interval(drawn).half == interval(fixed).half
    assert not paired_test("a", drawn, "b", fixed).covers_seeds
    assert interval(Sample(np.repeat(row, 2, axis=0))).covers_seeds


def test_scores_that_are_no_numbers_are_refused_by_name():
    known, failed = Sample(np.array([[0.4, 0.5]])), Sample(np.array([[0.4, np.nan]]))
    for pair in ({"a": known, "b": failed}, {"b": failed, "a": known}):
        with pytest.raises(ValueError, match="expected finite scores of b"):
            compare_leader(pair)


def test_identical_scores_promise_no_difference():
    same = Sample(np.array([[1.0, 0.0, 1.0]]), deterministic=True)
    (test,) = compare_leader({"a": same, "b": same}, 1.0)
    assert test.detectable == np.inf


def test_groups_differ_where_what_tells_their_answers_apart_does():
    scores = Sample(np.array([[0.1, 0.2, 0.3, 0.4]]), True, (0, 0, 1, 1), np.zeros((1, 4, 2)))
    other = Sample(np.zeros((1, 4)), True, (0, 0, 1, 1), np.eye(4)[None, :, :2])
    assert paired_test("a", scores, "b", other).differing == 1


@pytest.mark.parametrize(("differing", "told"), [(0, False), (5, False), (6, True), (200, True)])
def test_a_variance_of_0_is_no_proof(differing, told):
    """All examples speak for the same one: that is as sure as the sign test, and no surer."""
    one, other = np.ones((1, differing)), np.zeros((1, differing))
    if differing == 0:
        one = other = np.ones((1, 20))
    (test,) = compare_leader({"a": Sample(one, True), "b": Sample(other, True)})
    signs = stats.binomtest(differing, differing).pvalue if differing else 1.0
    assert test.p == pytest.approx(signs) and test.p > 0
    assert test.significant == told == (0 < test.difference >= test.detectable)


def test_few_examples_that_differ_are_no_proof_however_many_agree():
    rows = np.ones((2, 1, 1000))
    rows[1, 0, :5] = 0
    a, b = (Sample(row, True) for row in rows)
    assert paired_test("a", a, "b", b).p == pytest.approx(stats.binomtest(5, 5).pvalue)
    rows[1, 0, 5:8] = 0
    assert paired_test("a", a, "b", Sample(rows[1], True)).p < 0.01
    groups = tuple(k // 2 for k in range(1000))  # eight texts of four passages
    both = [Sample(row, True, groups) for row in rows]
    assert paired_test("a", both[0], "b", both[1]).p == pytest.approx(stats.binomtest(4, 4).pvalue)


def test_a_single_example_tells_nothing():
    one = Sample(np.array([[0.7], [0.9]]))
    assert np.isinf(interval(one).half)
    assert interval(one, (0, 1)).low == 0
    assert paired_test("a", one, "b", Sample(np.array([[0.1], [0.2]]))).p == 1


def test_the_better_strategy_comes_first_and_the_difference_is_not_negative():
    worse, better = Sample(np.zeros((2, 10))), Sample(np.random.default_rng(7).random((2, 10)))
    test = paired_test("worse", worse, "better", better)
    assert (test.first, test.second) == ("better", "worse")
    assert test.difference == pytest.approx(better.mean)


def test_different_examples_are_refused():
    with pytest.raises(ValueError, match="same test examples, got 10 of a and 9 of b"):
        paired_test("a", Sample(np.zeros((1, 10))), "b", Sample(np.zeros((1, 9))))


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_no_certainty(right):
    found = interval(Sample(np.full((3, 50), float(right))), (0, 1))
    exact = stats.binomtest(50 * right, 50).proportion_ci()
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_an_interval_stays_within_its_bounds():
    values = np.ones((1, 20))
    values[0, 0] = 0
    assert interval(Sample(values)).high > 1
    assert interval(Sample(values), (0, 1)).high == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1, 1])
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_p_values_and_bonferroni(p):
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_pair_is_significant_exactly_if_its_difference_reaches_what_is_detectable(seed):
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=60)
    samples = {
        name: Sample(scores(rng, 3, 60, difficulty, seed_sd=0.05, mean=rng.normal() / 3))
        for name in "abcde"
    }
    tests = compare_all(samples)
    assert len(tests) == 10
    assert [t.first for t in tests[:4]] == [rank(samples)[0]] * 4
    leader = compare_leader(samples)
    assert [(t.second, t.p) for t in leader] == [(t.second, t.p) for t in tests[:4]]
    one = compare_with("c", ["a", "b"], samples)
    assert [t.adjusted for t in one] == pytest.approx(holm([t.p for t in one]))
    for test in [*tests, *leader, *one]:
        assert test.significant == (test.difference >= test.detectable)


def test_no_difference_above_the_range_of_the_metric_is_detectable():
    rng = np.random.default_rng(12)
    samples = {
        name: Sample(np.clip(rng.normal(0.5, 0.4, size=(2, 1)) + np.zeros((2, 9)), 0, 1))
        for name in "ab"
    }
    assert 1 < compare_leader(samples)[0].detectable < np.inf
    assert np.isinf(compare_leader(samples, 1.0)[0].detectable)
    assert np.isinf(compare_all(samples, 1.0)[0].detectable)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_what_so_many_seeds_cannot_exclude_is_the_limit_of_clopper_and_pearson(seeds):
    limit = stats.binomtest(0, seeds, alternative="less").proportion_ci(0.95).high
    assert cannot_exclude(seeds) == pytest.approx(limit)


def test_the_jackknife_of_a_mean_gives_the_values_themselves():
    rng = np.random.default_rng(8)
    values = rng.integers(3, size=40).astype(float)
    assert jackknife(lambda sums, rows: sums[0] / rows, values[:, None]) == pytest.approx(values)


def counted(metric):
    """A metric of labels and predictions among three, as statistics and a score."""

    def statistics(labels, predictions):
        return np.eye(9)[3 * labels + predictions]

    def score(sums, rows):
        pairs = np.repeat(np.arange(9), sums.astype(int))
        return metric(pairs // 3, pairs % 3)

    return statistics, score


def macro_f1(labels, predictions):
    return f1_score(labels, predictions, average="macro")


@pytest.mark.parametrize("metric", [macro_f1, balanced_accuracy_score])
def test_the_jackknife_has_the_metric_as_its_mean_and_the_error_of_a_bootstrap(metric):
    rng = np.random.default_rng(9)
    labels = rng.choice(3, size=150, p=[0.6, 0.3, 0.1])
    predictions = np.where(rng.random(150) < 0.75, labels, rng.integers(3, size=150))
    statistics, score = counted(metric)
    found = jackknife(score, statistics(labels, predictions))
    assert found.mean() == pytest.approx(metric(labels, predictions))
    draws = [metric(labels[take], predictions[take]) for take in rng.integers(150, size=(300, 150))]
    assert stats.sem(found) == pytest.approx(np.std(draws), rel=0.15)


def test_the_jackknife_leaves_each_example_out_once():
    rng = np.random.default_rng(11)
    values = rng.random((12, 2)) + 0.5
    found = jackknife(lambda sums, rows: sums[0] / sums[1], values)
    whole = values[:, 0].sum() / values[:, 1].sum()
    rest = [np.delete(values, i, axis=0).sum(0) for i in range(12)]
    without = np.array([first / second for first, second in rest])
    assert found == pytest.approx(whole + 11 * (without.mean() - without))
    assert (
        jackknife(lambda sums, rows: sums[0] / sums[1], values[:1]) == values[0, 0] / values[0, 1]
    )
