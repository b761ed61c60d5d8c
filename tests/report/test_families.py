"""The mean over the tasks that the values of one field make: who counts, and what is said of it."""

import numpy as np
import pytest

from promptsearch.report import load_results
from promptsearch.report.families import FEW_SEEDS, families
from promptsearch.report.html import to_html
from promptsearch.report.markdown import to_markdown
from promptsearch.report.summary import summarise

TASKS = tuple(f"probe-{k}" for k in range(6))


@pytest.fixture
def kin(make_study):
    def make(strategies=("manual", "random", "p_tuning"), tasks=TASKS, **changes):
        study = make_study(strategies=strategies, tasks=tasks, **changes)
        for info in study.study["tasks"].values():
            info["family"] = "probe"
        study.write_study()
        return study

    return make


def family(study):
    (found,) = families(summarise(load_results(study.folder)))
    return found


def scored(study, task, label, seed, right, **changes):
    """A run of which so large a share of the answers is right."""
    made = study.result(task, label.partition("-")[0], seed, **changes) | {"label": label}
    count = round(right * study.examples)
    correct = [1] * count + [0] * (study.examples - count)
    said = [int(y if c else 1 - y) for y, c in zip(study.labels, correct, strict=True)]
    made["test"] |= {
        "metric": count / study.examples,
        "correct": correct,
        "predictions": said,
    }
    return made


def test_a_row_of_which_a_metric_failed_is_left_out_and_named(kin):
    study = kin(metric="rate:score").fill()
    for task in TASKS:
        for label, seeds in (("manual", [0]), ("random", study.seeds), ("p_tuning", study.seeds)):
            for seed in seeds:
                made = study.result(task, label, seed)
                made["test"]["shares"] = [float(each) for each in made["test"]["correct"]]
                if (task, label, seed) == (TASKS[1], "p_tuning", 1):
                    made["test"] |= {"metric": None, "shares": None, "metric_failed": "no number"}
                study.write(made)
    found = family(study)
    assert {row.label for row in found.rows} == {"manual", "random"}
    assert found.verdict.endswith(" Left out: p_tuning, since the metric failed on a task.")
    assert "Left out: p_tuning, since the metric failed" in to_markdown(load_results(study.folder))


def test_of_a_sweep_counts_what_the_select_split_names_in_each_task(kin):
    labels = ("random-5", "random-10")
    study = kin(("manual", *labels))
    study.study["families"] = dict.fromkeys(labels, "random")
    study.write_study()
    for k, task in enumerate(TASKS):
        study.write(scored(study, task, "manual", 0, 0.5))
        for seed in study.seeds:
            for label, right, loss in (("random-5", 0.6, k % 2), ("random-10", 0.7, 1 - k % 2)):
                made = scored(study, task, label, seed, right)
                made["select"]["loss"] = 1.0 + loss
                study.write(made)
    found = family(study)
    assert {row.label: round(row.metric.mean, 9) for row in found.rows} == {
        "random": 0.65,
        "manual": 0.5,
    }


def test_the_seeds_are_those_that_finished_on_all_tasks(kin):
    study = kin().fill()
    study.path(TASKS[0], "random", 2).unlink()
    assert "Fewer than two seeds" not in family(study).verdict
    study.path(TASKS[1], "random", 1).unlink()
    told = "Fewer than two seeds of random finished on all 6 tasks: the luck of the seed is not in"
    assert told in family(study).verdict
    results = load_results(study.folder)
    for form in (to_markdown, to_html):
        page = form(results)
        assert page.count(f"{FEW_SEEDS}.") == 1 and page.count("†") == 2  # beside the row


@pytest.mark.parametrize("lost", [(2,), (1, 2), (0, 1, 2)])
def test_the_mean_of_a_task_is_that_of_all_its_runs(kin, lost):
    """A run counts that finished, also where its seed did not on another task."""
    study = kin().fill()
    for place, seed in enumerate(lost):
        study.path(TASKS[place], "random", seed).unlink()
    results = load_results(study.folder)
    (found,) = families(summarise(results))
    runs = [run for run in results.runs if run.label == "random"]
    means = [np.mean([run.test.metric for run in runs if run.task == task]) for task in TASKS]
    row = next(row for row in found.rows if row.label == "random")
    assert row.metric.mean == pytest.approx(np.mean(means))
    assert row.metric.covers_seeds == (len(lost) == 1)


def test_a_reference_is_marked_in_every_form(kin):
    study = kin().fill()
    for task in TASKS:
        for seed in study.seeds:
            study.write(study.result(task, "exhaustive", seed, reference=True))
    results = load_results(study.folder)
    part = to_markdown(results).split("## probe: mean")[1].split("##")[0]
    assert "| `exhaustive` (reference, not ranked) |" in part and part.count("(reference") == 1
    part = to_html(results).split("probe: mean over 6 tasks</h2>")[1].split("</table>")[0]
    assert part.count("reference") == 1


def test_where_no_strategy_finished_on_all_tasks_this_is_said(kin):
    study = kin(tasks=TASKS[:2])
    study.write(study.result(TASKS[0], "random", 0))
    study.write(study.result(TASKS[1], "p_tuning", 0))
    found = family(study)
    assert found.rows == ()
    told = "has finished on all 2 tasks"
    assert found.verdict == f"No strategy {told}: there is nothing to compare."
    study.write(study.result(TASKS[1], "random", 0))
    assert f"no other strategy {told}, so there is" in family(study).verdict


def test_a_row_that_did_not_finish_on_all_tasks_is_named(kin):
    study = kin(tasks=TASKS[:2]).fill()
    for seed in study.seeds:
        study.path(TASKS[1], "random", seed).unlink()
    assert "Left out: random, which did not finish on all of them." in family(study).verdict


def test_a_family_of_one_task_tells_nothing(kin):
    assert "(a single task tells nothing)" in family(kin(tasks=TASKS[:1]).fill()).verdict
