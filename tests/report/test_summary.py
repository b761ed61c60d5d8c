import io

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import f1_score

from promptsearch.records.sealed import write_record
from promptsearch.report import load_results, print_report
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.summary import summarise
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import choice_rows


def summary(study):
    (task,) = summarise(load_results(study.folder))
    return task


def test_rows_are_ranked_by_the_mean_test_metric_and_carry_means_over_seeds(make_study):
    study = make_study().fill()
    task = summary(study)
    assert [row.label for row in task.rows] == [
        "p_tuning",
        "prompt_tuning",
        "evolution",
        "optuna",
        "random",
        "manual",
    ]
    row = task.rows[0]
    runs = [study.result("reviews", "p_tuning", seed) for seed in range(3)]
    assert row.metric.mean == pytest.approx(np.mean([run["test"]["metric"] for run in runs]))
    assert row.loss.mean == pytest.approx(np.mean([run["test"]["loss"] for run in runs]))
    assert row.gap == pytest.approx(np.mean([run["gap"] for run in runs]))
    assert row.spent == pytest.approx(np.mean([run["spent"] for run in runs]))
    assert row.share == pytest.approx(5760 / 134_515_008)
    assert " p_tuning wins with " in task.verdict
    assert task.clear


def test_the_shown_prompt_is_of_the_seed_with_the_least_select_loss_not_of_the_best_on_test(
    make_study,
):
    study = make_study(strategies=("random",))
    for seed, (select, test) in enumerate([(0.5, 0.9), (0.4, 0.6), (0.6, 0.7)]):
        result = study.result("reviews", "random", seed, select={"loss": select, "metric": test})
        result["test"].update(metric=test, loss=1 - test)
        study.write(result)
    assert summary(study).rows[0].best.seed == 1


def cached(study, label, seed, share):
    """Write a run that found a share of its tokens in the cache, and took a second."""
    result = study.result("reviews", label, seed, seconds=1.0)
    result["ledger"]["cached"] = int(share * result["spent"])
    study.write(result)


def test_seconds_are_of_runs_that_computed_most_of_their_scores(make_study):
    study = make_study(strategies=("manual", "random")).fill()
    cached(study, "random", 0, 0.2)  # a few prompts that another search had begun with
    told = to_markdown(load_results(study.folder))
    assert "mean over seeds\n" in told and "cache" not in told
    cached(study, "random", 1, 0.9)
    cached(study, "manual", 0, 1.0)
    rows = {row.label: row for row in summary(study).rows}
    assert rows["random"].seconds == pytest.approx((1.0 + 63.2) / 2)
    assert rows["manual"].seconds is None
    told = to_markdown(load_results(study.folder))
    assert "| 32.1 |" in told and "| – |" in told
    assert "left out are runs that found more than 25 % of their tokens in the cache" in told
    assert '<td data-value="1000000000.0">–</td>' in to_html(load_results(study.folder))
    console = Console(file=io.StringIO(), width=100)
    print_report(load_results(study.folder), console)
    assert " – " in console.file.getvalue()


def test_missing_seeds_are_counted_and_one_seed_is_flagged(make_study):
    study = make_study().fill()
    study.fail("reviews", "random", 1)
    study.path("reviews", "random", 2).unlink()
    rows = {row.label: row for row in summary(study).rows}
    assert (len(rows["random"].runs), rows["random"].wanted) == (1, 3)
    assert not rows["random"].metric.covers_seeds
    assert (len(rows["manual"].runs), rows["manual"].wanted) == (1, 1)
    assert rows["manual"].metric.covers_seeds
    assert "Not counted: 1 run failed, 1 run not made yet." in summary(study).verdict


def with_reference(study, length=5):
    search = {"loss": 0.2, "loss_fp32": 0.25}
    study.write(
        study.result(
            "reviews",
            "exhaustive",
            0,
            reference=True,
            deterministic=True,
            length=length,
            budget=10**7,
            search=search,
        )
    )
    return study


def test_a_reference_is_last_and_never_ranked(make_study):
    study = make_study(strategies=("manual", "random", "exhaustive"))
    study.write(study.result("reviews", "random", 0))
    with_reference(study)
    task = summary(study)
    assert [row.label for row in task.rows] == ["random", "exhaustive"]
    assert task.comparisons == ()
    assert "exhaustive" not in task.verdict


def test_regret_is_shown_for_hard_prompts_of_the_reference_length_only(make_study):
    study = with_reference(make_study(strategies=("manual", "random", "p_tuning")).fill())
    rows = {row.label: row for row in summary(study).rows}
    mean = np.mean(
        [study.result("reviews", "random", seed)["search"]["loss_fp32"] for seed in range(3)]
    )
    assert rows["random"].regret == pytest.approx(mean - 0.25)
    assert rows["p_tuning"].regret is rows["manual"].regret is rows["exhaustive"].regret is None
    assert {row.regret for row in summary(with_reference(study, length=4)).rows} == {None}


def test_where_a_search_followed_a_metric_there_is_no_regret(make_study):
    study = with_reference(make_study(strategies=("manual", "random")).fill())
    study.study["objective"] = "accuracy"
    study.write_study()
    assert {row.regret for row in summary(study).rows} == {None}


def test_regret_compares_runs_on_the_same_examples(make_study):
    """Where each seed draws examples of its own, the exhaustive search runs once on each draw."""
    study = make_study(strategies=("random", "exhaustive"), seeds=(0, 1))
    for seed, least in ((0, 1.0), (1, 0.5)):
        search = {"loss": least, "loss_fp32": least}
        study.write(study.result("reviews", "random", seed, search=search))
        study.write(study.result("reviews", "exhaustive", seed, search=search, reference=True))
    rows = {row.label: row for row in summary(study).rows}
    assert rows["random"].regret == 0


def test_where_one_answer_moves_all_scores_examples_count_that_were_answered_otherwise(make_study):
    """Four answers that differ prove nothing, whatever the metric makes of them."""
    for metric in ("accuracy", "balanced_accuracy"):
        study = make_study(strategies=("a", "b"), seeds=(0,), examples=100, metric=metric)
        study.labels = np.arange(100) % 2
        for label, wrong in (("a", 1), ("b", 5)):
            made = study.result("reviews", "manual", 0, deterministic=True) | {"label": label}
            correct = [0] * wrong + [1] * (100 - wrong)
            said = np.where(correct, study.labels, 1 - study.labels)
            found = find_metric(metric).of(choice_rows(study.labels, said))
            made["test"] |= {
                "metric": found,
                "correct": correct,
                "predictions": said.tolist(),
                "labels": study.labels.tolist(),
            }
            study.write(made)
        (test,) = summary(study).leading
        assert (test.differing, test.p) == (4, 0.125) and not test.significant


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1"])
def test_an_answer_that_is_wrong_in_another_way_counts_where_it_moves_the_metric(
    make_study, metric
):
    """To balanced accuracy all wrong answers to an example are the same, to F1 they are not."""
    study = make_study(strategies=("a", "b"), seeds=(0,), examples=90, metric=metric)
    study.study["tasks"]["reviews"]["choices"] = [" bad", " good", " fair"]
    study.write_study()
    labels = np.arange(90) % 3
    given = labels.copy()
    given[60:] = (labels[60:] + 1) % 3  # wrong
    other = given.copy()
    other[:4] = (labels[:4] + 1) % 3  # four right ones less
    other[60:80] = (labels[60:80] + 2) % 3  # wrong in another way
    for label, said in (("a", given), ("b", other)):
        made = study.result("reviews", "manual", 0, deterministic=True) | {"label": label}
        made["test"] |= {
            "metric": find_metric(metric).of(choice_rows(labels, said)),
            "correct": (said == labels).astype(int).tolist(),
            "predictions": said.tolist(),
            "labels": labels.tolist(),
        }
        write_record(study.path("reviews", label, 0), "result", made)
    (test,) = summary(study).leading
    assert test.differing == (4 if metric == "balanced_accuracy" else 24)
    assert test.too_few == (metric == "balanced_accuracy")


def test_without_a_reference_there_is_no_regret(make_study):
    assert {row.regret for row in summary(make_study().fill()).rows} == {None}


def test_f1_gets_an_interval_around_f1_and_no_floor(make_study):
    study = make_study(metric="f1", strategies=("random", "p_tuning"))
    for label in ("random", "p_tuning"):
        for seed in range(3):
            result = study.result("reviews", label, seed)
            result["test"]["metric"] = f1_score(
                study.labels, result["test"]["predictions"], average="macro"
            )
            study.write(result)
    task = summary(study)
    for row in task.rows:
        assert row.metric.mean == pytest.approx(np.mean([run.test.metric for run in row.runs]))
        assert 0 < row.metric.half < 0.2
    assert task.floor is None
    assert task.verdict.startswith("p_tuning wins with f1 0."), "without a control, at once"


def test_text_answers_have_their_own_rights_and_wrongs(make_study):
    study = make_study(metric="exact_match", strategies=("random",))
    study.study["tasks"]["reviews"].update(kind="text", choices=None)
    study.write_study()
    result = study.result("reviews", "random", 0)
    result["test"].update(predictions=None, labels=None)
    study.write(result)
    task = summary(study)
    assert task.rows[0].metric.mean == pytest.approx(result["test"]["metric"])
    assert task.floor == 0.51


def test_a_task_without_finished_runs(make_study):
    task = summary(make_study())
    assert task.rows == ()
    assert task.verdict.startswith("No run has finished")
    assert not task.clear


def test_the_best_control_and_the_best_search_are_those_of_the_select_split(make_study):
    study = make_study(strategies=("manual", "empty", "random", "evolution", "p_tuning"))
    chosen = {"manual": 0.6, "empty": 0.7, "random": 0.2, "evolution": 0.3, "p_tuning": 0.1}
    for label, loss in chosen.items():
        for seed in range(1 if label in ("manual", "empty") else 3):
            given = {"searches": label not in ("manual", "empty")}
            given |= {"access": "scores"} if label == "empty" else {}
            result = study.result("reviews", label, seed, **given)
            study.write({**result, "select": {"loss": loss, "metric": loss}})
    found = summary(study).against
    assert found.control == "manual" and found.by == "select loss"
    assert {k: {t.first, t.second} for k, t in found.best.items()} == {
        "words": {"random", "manual"},
        "vectors": {"p_tuning", "manual"},
    }
    assert len(found.tests) == 3
    study.study["select_by"] = "metric"
    study.write_study()
    by_metric = summary(study).against
    assert by_metric.control == "empty" and by_metric.by == "select accuracy"
    best = by_metric.best["words"]
    assert {best.first, best.second} == {"evolution", "empty"}
    # So it is where the losses of a row are of corrected chances.
    study.study["select_by"] = "loss"
    study.write_study()
    result = study.result("reviews", "manual", 0)
    winner = {**result["winner"], "bias": [0.1, -0.1]}
    study.write({**result, "winner": winner, "select": {"loss": 0.6, "metric": 0.6}})
    assert summary(study).against == by_metric
    study.write({**result, "select": {"loss": 0.6, "metric": 0.6}})
    assert summary(study).against.by == "select loss"
    # One run of a row is enough, be it not its best one.
    result = study.result("reviews", "evolution", 1)
    winner = {**result["winner"], "bias": [0.1, -0.1]}
    study.write({**result, "winner": winner, "select": {"loss": 0.4, "metric": 0.3}})
    assert summary(study).against.by == "select accuracy"


def test_rows_that_are_level_on_the_select_split_are_not_told_apart_by_the_test_split(make_study):
    """The rows of a report are in the order of their test metric, those of a study are not."""
    study = make_study(strategies=("manual", "random", "evolution"))
    for label in study.study["strategies"]:
        for seed in range(1 if label == "manual" else 3):
            result = study.result("reviews", label, seed)
            study.write({**result, "select": {"loss": 0.5, "metric": 0.7}})
    task = summary(study)
    assert [row.label for row in task.rows] == ["evolution", "random", "manual"]
    assert task.against.search == "random"


def test_a_record_says_itself_what_is_a_control(make_study):
    study = make_study(strategies=("manual", "p_tuning"))
    for label, control in (("manual", False), ("p_tuning", True)):
        study.write(study.result("reviews", label, 0, control=control))
    task = summary(study)
    assert {row.label: row.control for row in task.rows} == {"manual": False, "p_tuning": True}
    assert task.against.control == "p_tuning"
