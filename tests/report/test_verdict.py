import numpy as np
import pytest

from promptsearch.report.measured import Scale
from promptsearch.report.verdict import verdict
from promptsearch.statistics import Sample, paired_test


def sample(mean, *, seeds=3, deterministic=False, examples=200, stream=0):
    """Right and wrong answers around a mean, with little luck of the seed."""
    rng = np.random.default_rng([stream, int(1000 * mean)])
    difficulty = np.random.default_rng(5).random(examples)
    return Sample(
        (difficulty + 0.1 * rng.normal(size=(seeds, examples)) < mean).astype(float), deterministic
    )


def test_a_winner_is_named_with_its_margin():
    samples = {
        "random": sample(0.6),
        "p_tuning": sample(0.9),
        "manual": sample(0.5, seeds=1, deterministic=True),
    }
    said = verdict(samples, Scale("accuracy"))
    margin = samples["p_tuning"].mean - samples["random"].mean
    assert said.startswith(
        f"p_tuning wins with accuracy {samples['p_tuning'].mean:.3f}, {margin:.3f} ahead of "
        "random (p = "
    )
    assert said.endswith("corrected for 3 comparisons).")


def test_a_tie_names_who_cannot_be_told_apart_and_what_would_have_shown():
    samples = {
        "random": sample(0.5),
        "optuna": sample(0.80),
        "evolution": sample(0.81),
        "p_tuning": sample(0.82, stream=1),
    }
    said = verdict(samples, Scale("accuracy"))
    assert said.startswith("The data cannot tell who wins: p_tuning leads with accuracy 0.8")
    assert "cannot be told from evolution and optuna (a difference of 0.0" in said
    assert "would have shown, corrected for 6 comparisons)." in said


def test_the_more_strategies_the_larger_the_lead_must_be():
    noise = np.random.default_rng(11).normal(size=(5, 1, 100))
    noise -= noise.mean(axis=2, keepdims=True)
    samples = {
        name: Sample(row + (0.35 if name == "a" else 0), deterministic=True)
        for name, row in zip("abcde", noise, strict=True)
    }
    assert 0.005 < paired_test("a", samples["a"], "b", samples["b"]).p < 0.05
    assert verdict({name: samples[name] for name in "ab"}, Scale("score")).startswith("a wins")
    assert verdict(samples, Scale("score")).startswith("The data cannot tell who wins: a leads")


def test_what_would_have_shown_is_the_critical_difference():
    samples = {"a": sample(0.80), "b": sample(0.79)}
    said = verdict(samples, Scale("accuracy"))
    shown = float(said.split("a difference of ")[1].split()[0])
    shift = np.zeros_like(samples["a"].scores)
    for move, outcome in ((-0.001, "cannot tell"), (+0.001, "a wins")):
        shift[:] = shown + move - (samples["a"].mean - samples["b"].mean)
        assert outcome in verdict(
            {"a": Sample(samples["a"].scores + shift), "b": samples["b"]}, Scale("accuracy")
        )


def test_the_same_scores_cannot_be_told_apart():
    same = sample(0.7, seeds=1, deterministic=True)
    assert "(their scores are the same, " in verdict(
        {"manual": same, "exhaustive": same}, Scale("accuracy")
    )


def test_one_strategy_has_nothing_to_be_compared_with():
    said = verdict({"random": sample(0.8)}, Scale("exact_match"))
    assert said.startswith("random reaches exact_match 0.")
    assert "no other strategy has finished" in said


def test_no_finished_run():
    assert verdict({}, Scale("accuracy"), failed=1, unfinished=5) == (
        "No run has finished: there is nothing to compare. Not counted: 1 run failed, 5 runs not "
        "made yet."
    )


def test_one_seed_is_said_to_hide_the_luck_of_the_seed():
    samples = {"p_tuning": sample(0.9, seeds=1), "manual": sample(0.5, seeds=1, deterministic=True)}
    assert verdict(samples, Scale("accuracy")).endswith(
        " One seed only of p_tuning: the luck of the seed is not in this."
    )


@pytest.mark.parametrize(("mean", "told"), [(0.9, True), (0.53, False)])
def test_a_leader_that_is_not_above_the_floor_is_called_so(mean, told):
    said = verdict({"a": sample(mean), "b": sample(0.4)}, Scale("accuracy"), floor=0.51)
    assert (
        "cannot be told from always giving the most frequent answer (0.510)" not in said
    ) == told


def test_a_single_test_example():
    assert "a single test example tells nothing" in verdict(
        {"a": sample(0.9, examples=1), "b": sample(0.1, examples=1)}, Scale("accuracy")
    )


def test_of_many_ties_some_are_named_and_the_others_counted():
    samples = {f"s{k:02}": sample(0.7, stream=k) for k in range(12)}
    said = verdict(samples, Scale("accuracy"))
    told = said.split("cannot be told from ")[1].split(" (")[0]
    assert told.count(", ") == 6 and told.endswith(" and 4 others")


def test_a_difference_that_cannot_be_is_not_promised():
    """Two seeds that disagree wholly: not even all against nothing would have shown."""
    wild = np.repeat([[0.0], [1.0]], 200, axis=1)
    samples = {
        "a": Sample(wild),
        "b": Sample(wild[::-1].copy()),
        **{f"s{k}": sample(0.5, seeds=2, stream=k) for k in range(3)},
    }
    said = verdict(samples, Scale("accuracy"))
    assert "too much" in said
    assert not any(
        float(part.split()[0]) > 1 for part in said.split("of ")[1:] if part[0].isdigit()
    )
