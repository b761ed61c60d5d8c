import re
from dataclasses import replace

import numpy as np
import pytest

from promptsearch.report import load_results
from promptsearch.report.best_control import Candidate, against, cells
from promptsearch.report.measured import Scale
from promptsearch.report.notation import p_value
from promptsearch.report.summary import summarise
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
    assert said.endswith(
        " at most, each of the 2 others tested by itself). With 3 seeds, up to 63 % of further "
        "runs may still do what none of these did, such as fail."
    )


def test_a_tie_names_who_cannot_be_told_apart_and_what_would_have_shown():
    samples = {
        "random": sample(0.5),
        "optuna": sample(0.805),
        "evolution": sample(0.81),
        "p_tuning": sample(0.82, stream=1),
    }
    said = verdict(samples, Scale("accuracy"))
    assert said.startswith("The data cannot tell who wins: p_tuning leads with accuracy 0.8")
    assert "cannot be told from evolution and optuna (a difference of 0.0" in said
    assert said.endswith("would have shown).")


def test_what_would_have_shown_is_said_once_where_it_is_the_same_from_all():
    scores = sample(0.7, seeds=1, deterministic=True).scores
    worse = sample(0.69, seeds=1, deterministic=True)
    samples = {"manual": Sample(scores, True), "calibrated": worse, "exemplars": worse}
    said = verdict(samples, Scale("accuracy"))
    assert re.search(
        r"calibrated and exemplars \(a difference of 0\.\d{3} would have shown\)\.", said
    )


def test_of_many_rows_of_one_seed_some_are_named():
    samples = {f"s{k:02}": sample(0.5 + k / 100, seeds=1, stream=k) for k in range(12)}
    told = verdict(samples, Scale("accuracy")).split("One seed only of ")[1]
    assert told == "s00, s01, s02, s03, s04, s05, s06 and 5 others: " + (
        "the luck of the seed is not in this."
    )


def test_rows_that_are_far_behind_do_not_raise_the_bar_for_the_leader():
    noise = np.random.default_rng(11).normal(size=(5, 1, 100))
    noise -= noise.mean(axis=2, keepdims=True)
    samples = {
        name: Sample(row + (0.35 if name == "a" else 0), deterministic=True)
        for name, row in zip("abcde", noise, strict=True)
    }
    assert 0.005 < paired_test("a", samples["a"], "b", samples["b"]).p < 0.05
    assert verdict({name: samples[name] for name in "ab"}, Scale("score")).startswith("a wins")
    assert verdict(samples, Scale("score", bounds=(-9, 9))).startswith("a wins with score 0.350")


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
    assert "(their scores are the same)." in verdict(
        {"manual": same, "exhaustive": same}, Scale("accuracy")
    )


def test_one_strategy_has_nothing_to_be_compared_with():
    said = verdict({"random": sample(0.8)}, Scale("exact_match"))
    assert said.startswith("random reaches exact_match 0.")
    assert "no other strategy has finished" in said


def test_no_finished_run():
    assert verdict({}, Scale("accuracy"), failed={"a": 1}, unfinished=5) == (
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


def test_a_leader_below_the_floor_is_behind_it():
    said = verdict({"a": sample(0.2)}, Scale("accuracy"), floor=0.9)
    assert "Even the leader is behind always giving the most frequent answer (0.900)." in said
    assert "cannot be told from always" not in said


def test_a_single_group_is_no_single_example(make_study):
    study = make_study()
    study.study["tasks"]["reviews"]["groups"] = [0] * study.examples
    study.write_study()
    (task,) = summarise(load_results(study.fill().folder))
    assert "(a single group of test examples tells nothing)" in task.verdict


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


def candidates(**given):
    """Rows by label: what was sought (a control: nothing), what they were chosen by, and scores."""
    return [
        Candidate(label, sought or "words", not sought, bool(sought), selected, place, scores)
        for place, (label, (sought, selected, scores)) in enumerate(given.items())
    ]


def test_searches_are_held_against_the_best_control_and_both_are_chosen_without_the_test_split():
    rows = candidates(
        empty=("", 0.9, sample(0.75, seeds=1, deterministic=True)),
        written=("", 0.8, sample(0.6, seeds=1, deterministic=True)),  # worse on test
        random=("words", 0.7, sample(0.95)),  # better on test
        coordinate=("words", 0.6, sample(0.75)),
        lora=("weights", 0.5, sample(0.61, stream=3)),
        p_tuning=("vectors", 0.4, sample(0.3)),
    )
    found = against(rows, "select loss", 1.0)
    assert found.control == "written" and found.search == "p_tuning"
    assert [test.first for test in found.best.values()] == ["coordinate", "written", "lora"]
    by = found.best["words"]
    apart = rows[3].scores.mean - rows[1].scores.mean
    assert found.sentence.startswith(
        "Of the searches for words, coordinate beats the best control, written, by "
        f"{apart:.3f} ± {by.half:.3f} ({p_value(by.adjusted)}); of those for "
        "vectors, p_tuning is behind it"
    )
    told = found.sentence.split("of those for weights, lora cannot be told from it (+")[1]
    assert told.endswith("); all chosen by select loss, and tested together (Holm). ")
    alone = against([row for row in rows if row.sought == "words"], "select loss", 1.0)
    assert alone.best["words"].adjusted == by.p, "one that was named is corrected for nothing"
    held = {frozenset((t.first, t.second)): t for t in found.tests}
    assert len(held) == 4 and held[frozenset(("written", "coordinate"))].adjusted > by.p


def test_the_best_of_each_kind_are_tested_together():
    """Two kinds, each ahead by what a test alone would call a proof: together it is none."""
    noise = np.random.default_rng(11).normal(size=(2, 1, 100))
    noise -= noise.mean(axis=2, keepdims=True)
    control, ahead = Sample(noise[0], deterministic=True), Sample(noise[1] + 0.28, True)
    rows = candidates(manual=("", 0.9, control), a=("words", 0.5, ahead), b=("vectors", 0.5, ahead))
    assert against(rows[:2], "select loss", 9.0).won() == ["a"]
    assert against(rows, "select loss", 9.0).won() == []


def test_where_the_corrected_test_cannot_tell_it_says_with_which_p():
    """The interval beside it is not corrected, and may exclude 0."""
    noise = np.random.default_rng(11).normal(size=(2, 1, 100))
    noise -= noise.mean(axis=2, keepdims=True)
    control, ahead = Sample(noise[0], deterministic=True), Sample(noise[1] + 0.28, True)
    rows = candidates(manual=("", 0.9, control), a=("words", 0.5, ahead), b=("vectors", 0.5, ahead))
    found = against(rows, "select loss", 9.0)
    test = found.best["words"]
    assert test.difference > test.half and test.adjusted == 2 * test.p
    told = f"(+0.280 ± {test.half:.3f}; {p_value(test.adjusted)})"
    assert f"a cannot be told from the best control, manual {told}; " in found.sentence


def test_of_rows_that_are_level_on_the_select_split_the_first_of_the_study_is_chosen():
    """Whatever they reach on the test split, by which the rows of a report are ordered."""
    rows = candidates(
        empty=("", 0.9, sample(0.6)),
        manual=("", 0.9, sample(0.7)),
        random=("words", 0.5, sample(0.8)),
        genetic=("words", 0.5, sample(0.9)),
    )
    found = against(rows[::-1], "select accuracy", 1.0)
    assert (found.control, found.search) == ("empty", "random")
    assert found.row(found.best["words"]) == "random"


def test_equal_means_are_no_difference_with_a_sign():
    scores = sample(0.7, seeds=1, deterministic=True).scores
    other = Sample(scores[:, ::-1].copy(), deterministic=True)
    rows = candidates(manual=("", 0.9, Sample(scores, True)), random=("words", 0.9, other))
    found = against(rows, "select loss", 1.0)
    assert "(+0.000 ± " in found.sentence and cells(found)[0][1].startswith("+0.000 ± ")


def test_a_search_that_ends_at_the_control_has_its_scores():
    same = sample(0.7, seeds=1, deterministic=True)
    rows = candidates(manual=("", 0.9, same), grips=("words", 0.9, same))
    assert against(rows, "select loss", 1.0).sentence.startswith(
        "Of the searches for words, grips has the same scores as the best control, manual; "
    )


def test_runs_of_the_winner_that_failed_are_said_to_have_failed():
    samples = {"a": sample(0.9), "b": sample(0.5)}
    said = verdict(samples, Scale("accuracy"), failed={"a": 2, "b": 1})
    assert said.startswith("a wins") and "none of these did" not in said
    assert " 2 of 5 runs of a failed, and may do so again" in said
    assert said.endswith(" Not counted: 3 runs failed.")
    assert "none of these did" in verdict(samples, Scale("accuracy"), failed={"b": 1})


def test_what_beats_the_control_is_said_first_with_what_its_seeds_cannot_exclude():
    rows = candidates(
        manual=("", 0.9, sample(0.6, seeds=1, deterministic=True)),
        p_tuning=("vectors", 0.4, sample(0.9, seeds=5)),
        prompt_tuning=("vectors", 0.5, sample(0.9, seeds=5, stream=1)),
    )
    samples = {row.label: row.scores for row in rows}
    found = against(rows, "select accuracy", 1.0)
    said = verdict(samples, Scale("accuracy"), against=found)
    assert said.startswith("Of the searches for vectors, p_tuning beats the best control, manual")
    assert "; all chosen by select accuracy. The data cannot tell who wins: " in said
    assert "With 5 seeds, up to 45 % of further runs may still do what none of these did" in said


def test_without_a_control_or_without_anything_beside_it_nothing_is_held_against_it():
    control, search = candidates(
        manual=("", 0.9, sample(0.6)), p_tuning=("vectors", 0.4, sample(0.9))
    )
    assert against([control], "select loss", 1.0) is against([search], "select loss", 1.0) is None
    projected = replace(search, searches=False)
    found = against([control, projected], "select loss", 1.0)
    assert found.sentence == "" and found.search is None


def test_scores_of_which_few_differ_tell_nothing():
    few = sample(0.7, seeds=1, deterministic=True)
    scores = few.scores.copy()
    scores[0, np.flatnonzero(scores[0])[:5]] = 0
    said = verdict({"a": few, "b": Sample(scores, True)}, Scale("accuracy"))
    assert "(too few of their scores differ to tell)." in said
