"""Rows drawn again: exact for corpus metrics, by groups, and within Monte Carlo error of peers."""

import numpy as np
import pytest
from scipy import stats

from promptsearch.resampling import (
    approximate_randomisation,
    bootstrap,
    drawn_rows,
    paired_bootstrap,
)
from promptsearch.statistics import Sample, interval, paired_test
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import measured
from promptsearch.tasks.metrics.metric import Answered

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "in", "red", "house"]


def mean(sums, rows):
    return sums[0] / rows


def ratio(sums, rows):
    return sums[0] / sums[1]


def texts(rng, rows, noise):
    """References, and outputs with a share of their words replaced."""
    references = [" ".join(rng.choice(WORDS, size=rng.integers(6, 14))) for _ in range(rows)]
    outputs = [
        " ".join(w if rng.random() > noise else rng.choice(WORDS) for w in text.split())
        for text in references
    ]
    return references, outputs


def test_a_draw_scores_as_the_drawn_rows_would():
    rng = np.random.default_rng(0)
    references, outputs = texts(rng, 30, 0.3)
    rows = [Answered(o, (r,)) for o, r in zip(outputs, references, strict=True)]
    metric = find_metric("bleu")
    found = measured(metric, rows)
    for counts in drawn_rows(30, None, 10, seed=1):
        taken = [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        assert len(taken) == 30
        sums = counts @ found.statistics
        assert found.score_of(sums, 30) == pytest.approx(metric.of(taken), rel=1e-12)


def test_groups_are_drawn_as_a_whole_and_as_many_as_there_are():
    groups = ["a", "b", "a", "c", "c", "c"]
    for counts in drawn_rows(6, groups, 50, seed=0):
        assert counts[0] == counts[2] and counts[3] == counts[4] == counts[5]
        assert counts[0] + counts[1] + counts[3] == 3
    with pytest.raises(ValueError, match="a group for each of 5 rows, got 6"):
        drawn_rows(5, groups, 3, seed=0)


def test_the_bootstrap_of_a_mean_is_near_students_interval():
    values = np.random.default_rng(2).normal(size=(1, 400))
    found = bootstrap(mean, values[0][:, None], draws=4000)
    wanted = interval(Sample(values, deterministic=True))
    assert found.mean == pytest.approx(wanted.mean)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.01)


def test_with_groups_of_equal_rows_the_bootstrap_is_that_of_the_groups():
    rng = np.random.default_rng(3)
    values = rng.normal(size=100)
    once = bootstrap(mean, values[:, None], seed=5)
    four = bootstrap(mean, np.repeat(values, 4)[:, None], groups=np.repeat(range(100), 4), seed=5)
    assert (four.low, four.high) == pytest.approx((once.low, once.high))


def test_runs_are_scored_on_the_same_draws_and_averaged():
    rng = np.random.default_rng(4)
    runs = rng.random((3, 50, 2)) + 0.5
    found = paired_bootstrap(ratio, runs, runs[0], draws=20, seed=7)
    counts = drawn_rows(50, None, 20, seed=7)
    by_hand = [
        np.mean([ratio(c @ run, 50) for run in runs]) - ratio(c @ runs[0], 50) for c in counts
    ]
    assert found.draws == pytest.approx(by_hand)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.25])
def test_p_values_of_means_are_near_those_of_students_test(shift):
    rng = np.random.default_rng(6)
    a = rng.normal(size=300)
    b = a * 0.5 + rng.normal(size=300) + shift
    wanted = stats.ttest_rel(a, b).pvalue
    one, other = a[:, None], b[:, None]
    for test in (paired_bootstrap, approximate_randomisation):
        assert test(mean, one, other, draws=4000).p == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize("test", [paired_bootstrap, approximate_randomisation])
def test_false_positives_are_about_5_percent_and_groups_matter(test):
    rng = np.random.default_rng(8)
    groups = np.repeat(range(40), 5)
    grouped = alone = 0
    for _ in range(150):
        # Two systems that are alike on average, with differences that a group shares.
        a = rng.normal(size=200) * 0.3 + np.repeat(rng.normal(size=40), 5)
        b = rng.normal(size=200) * 0.3 + np.repeat(rng.normal(size=40), 5)
        both = (ratio, np.stack([a + 5, a * 0 + 1], 1), np.stack([b + 5, b * 0 + 1], 1))
        grouped += test(*both, groups=groups, draws=200).p <= 0.05
        alone += test(*both, draws=200).p <= 0.05
    assert 1 <= grouped <= 17, "3 to 11 % of 150"
    assert alone > 40, "without groups, most of the chance is taken for a difference"


def test_a_system_does_not_differ_from_itself():
    same = np.random.default_rng(9).random((20, 2))
    for test in (paired_bootstrap, approximate_randomisation):
        found = test(ratio, same, same, draws=50)
        assert (found.difference, found.p) == (0, 1)


def test_systems_on_other_rows_are_refused():
    one, other = np.ones((5, 2)), np.ones((6, 2))
    with pytest.raises(ValueError, match=r"got \(5, 2\) and \(6, 2\)"):
        paired_bootstrap(ratio, one, other)
    with pytest.raises(ValueError, match="as many runs of both, got 1 and 2"):
        approximate_randomisation(ratio, one, np.ones((2, 5, 2)))
    with pytest.raises(ValueError, match="expected shape"):
        bootstrap(ratio, np.ones(5))


def test_the_paired_bootstrap_of_bleu_is_sacrebleus_within_monte_carlo_error():
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    rng = np.random.default_rng(10)
    references, one = texts(rng, 200, 0.25)
    other = [
        " ".join(w if rng.random() > 0.28 else rng.choice(WORDS) for w in text.split())
        for text in references
    ]
    draws = 2000
    metric = find_metric("bleu")
    systems = [
        measured(metric, [Answered(o, (r,)) for o, r in zip(outputs, references, strict=True)])
        for outputs in (one, other)
    ]
    first, second = (system.statistics for system in systems)
    mine = paired_bootstrap(systems[0].score_of, first, second, draws=draws)
    _, peers = PairedTest(
        [("one", one), ("other", other)], {"BLEU": BLEU()}, [references], "bs", draws
    )()
    theirs = dict(peers)["BLEU"]
    assert systems[0].score == pytest.approx(theirs[0].score, abs=1e-9)
    assert systems[1].score == pytest.approx(theirs[1].score, abs=1e-9)
    ends = [bootstrap(system.score_of, system.statistics, draws=draws) for system in systems]
    for own, peer in zip(ends, theirs, strict=True):
        assert (own.high - own.low) / 2 == pytest.approx(peer.ci, rel=0.08)
    # sacrebleu's p, from our draws: within three standard errors of a share of 2,000 draws.
    distances = np.abs(mine.draws)
    share = np.mean(distances - distances.mean() > abs(mine.difference))
    spread = 3 * np.sqrt(2 * max(share * (1 - share), 0.001) / draws)
    assert share == pytest.approx(theirs[1].p_value, abs=spread)
    assert 0.001 < theirs[1].p_value < 0.3, "a p of nothing would show nothing"
    exchanged = approximate_randomisation(systems[0].score_of, first, second, draws=draws)
    _, peers = PairedTest(
        [("one", one), ("other", other)], {"BLEU": BLEU()}, [references], "ar", draws
    )()
    peer = dict(peers)["BLEU"][1].p_value
    spread = 3 * np.sqrt(2 * max(peer * (1 - peer), 0.001) / draws)
    assert exchanged.p == pytest.approx(peer, abs=spread)


def test_clustered_errors_of_means_are_those_of_the_groups_sums():
    rng = np.random.default_rng(11)
    values = rng.normal(size=(1, 60)) + np.repeat(rng.normal(size=12), 5)
    groups = tuple(np.repeat(range(12), 5).tolist())
    found = interval(Sample(values, True, groups))
    # Groups of one size: the interval is Student's of the groups' means.
    means = values.reshape(12, 5).mean(1)
    low, high = stats.t.interval(0.95, 11, means.mean(), stats.sem(means))
    assert (found.low, found.high) == pytest.approx((low, high))
    alone = tuple(range(60))
    assert interval(Sample(values, True, alone)).half == pytest.approx(
        interval(Sample(values, True)).half
    )
    other = Sample(values[:, ::-1] * 0.5, True, groups)
    wanted = stats.ttest_rel(means, (values[:, ::-1] * 0.5).reshape(12, 5).mean(1)).pvalue
    assert paired_test("a", Sample(values, True, groups), "b", other).p == pytest.approx(wanted)


def test_one_group_tells_nothing_and_groups_must_agree():
    values = np.array([[0.2, 0.4, 0.9]])
    one = Sample(values, True, ("a", "a", "a"))
    assert np.isinf(interval(one).half)
    with pytest.raises(ValueError, match="expected the same groups"):
        paired_test("a", one, "b", Sample(values, True))


def test_clustered_intervals_hold_the_truth():
    rng = np.random.default_rng(12)
    groups = tuple(np.repeat(range(30), 6).tolist())
    hits = forgetful = 0
    for _ in range(400):
        values = rng.normal(size=(1, 180)) * 0.5 + np.repeat(rng.normal(size=30), 6)
        found = interval(Sample(values, True, groups))
        hits += found.low <= 0 <= found.high
        found = interval(Sample(values, True))
        forgetful += found.low <= 0 <= found.high
    assert 0.92 <= hits / 400 <= 0.98
    assert forgetful / 400 < 0.75
