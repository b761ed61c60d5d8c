"""Reports of text answers: further metrics, directions, groups, families, and what was answered."""

import numpy as np
import pytest
from rich.console import Console

from promptsearch.errors import RecordError, UnknownName
from promptsearch.records.sealed import write_record
from promptsearch.report import load_results
from promptsearch.report.figures import two_metrics
from promptsearch.report.html import to_html
from promptsearch.report.lengths import mean_of
from promptsearch.report.markdown import to_markdown
from promptsearch.report.summary import summarise
from promptsearch.report.terminal import print_report
from promptsearch.resampling import paired_bootstrap
from promptsearch.statistics import Sample, interval, jackknife

EXAMPLES = 40
#: label -> the mean number of values that an answer leaves out, of three.
MISSING = {"manual": 2.0, "random": 1.0, "prompt_tuning": 0.3}


def statistics(label, seed):
    rng = np.random.default_rng([seed, len(label)])
    missing = rng.binomial(3, MISSING[label.partition("-")[0]] / 3, EXAMPLES)
    return [[int(each), 0, 3] for each in missing]


def error(rows):
    return float((np.sum(rows, 0)[0] + np.sum(rows, 0)[1]) / np.sum(rows, 0)[2])


@pytest.fixture
def study(make_study):
    made = make_study(strategies=tuple(MISSING), examples=EXAMPLES, metric="slot_error")
    tested = made.study["tasks"]["reviews"]
    tested |= {
        "kind": "text",
        "choices": None,
        "end": "\n",
        "decoding": "greedy, 32 tokens",
        "measured": ["slot_error|field:mr", "exact_match|case:mixed"],
        "groups": [i // 4 for i in range(EXAMPLES)],
        "shown": [
            {"fields": {"mr": f"name[{i}]"}, "references": [f"It is {i}.", "Yes | *it* is."]}
            for i in range(5)
        ],
    }
    made.write_study()
    return made


def result(study, label, seed, strategy=None, **changes):
    made = study.result("reviews", strategy or label, seed, **changes) | {"label": label}
    rows, exact = statistics(label, seed), made["test"]["correct"]
    made["test"] |= {
        "metric": error(rows),
        "predictions": None,
        "labels": None,
        "outputs": [f"<b>{label} {seed} {i}</b>" for i in range(EXAMPLES)],
        "unended": seed,
        "metrics": [
            {
                "name": "slot_error",
                "score": error(rows),
                "signature": "slot_error|field:mr",
                "higher_is_better": False,
                "bounds": [0.0, None],
                "mean": False,
                "statistics": rows,
                "options": {"field": "mr"},
            },
            {
                "name": "exact_match",
                "score": float(np.mean(exact)),
                "signature": "exact_match|case:mixed",
                "mean": True,
            },
        ],
    }
    return made


def fill(study, further=True):
    if not further:
        study.study["tasks"]["reviews"]["measured"][1:] = []
        study.write_study()
    for label in study.study["strategies"]:
        for seed in study.seeds[:1] if label == "manual" else study.seeds:
            made = result(study, label, seed)
            made["test"]["metrics"] = made["test"]["metrics"][: 2 if further else 1]
            write(study, made)
    return study


def write(study, made):
    """As the study writes it, but for the metric, which answers to choose from would have."""
    agreed = study.agreeing(made)
    agreed["select"]["metric"] = None
    path = study.path(made["task"], made["label"], made["seed"])
    write_record(path, "result", agreed)


def summary(study):
    (task,) = summarise(load_results(study.folder))
    return task


def test_a_metric_whose_lower_scores_are_better_is_ranked_and_told_so(study):
    task = summary(fill(study))
    assert [row.label for row in task.rows] == ["prompt_tuning", "random", "manual"]
    means = [row.metric.mean for row in task.rows]
    assert means == sorted(means)
    assert f" prompt_tuning wins with slot_error {means[0]:.3f}, " in task.verdict
    ahead = means[1] - means[0]
    assert f"{ahead:.3f} ahead of random" in task.verdict
    assert (task.comparisons[0].first, task.comparisons[0].second) == ("prompt_tuning", "random")
    assert task.floor is None


def test_intervals_are_those_of_pseudo_values_over_groups(study):
    task = summary(fill(study))
    (row,) = [row for row in task.rows if row.label == "random"]
    score = lambda sums, rows: float((sums[0] + sums[1]) / sums[2])  # noqa: E731
    scores = np.array(
        [jackknife(score, np.array(statistics("random", seed), float)) for seed in study.seeds]
    )
    groups = tuple(i // 4 for i in range(EXAMPLES))
    expected = interval(Sample(scores, groups=groups), (0, np.inf))
    assert (row.metric.low, row.metric.high) == pytest.approx((expected.low, expected.high))
    alone = interval(Sample(scores), (0, np.inf))
    assert row.metric.high != pytest.approx(alone.high)


def test_the_leader_is_also_tested_by_rows_drawn_again(study):
    results = load_results(fill(study).folder)
    written = to_markdown(results)
    score = lambda sums, rows: float((sums[0] + sums[1]) / sums[2])  # noqa: E731
    first, second = (
        np.array([statistics(label, seed) for seed in study.seeds], float)
        for label in ("prompt_tuning", "random")
    )
    groups = [i // 4 for i in range(EXAMPLES)]
    test = paired_bootstrap(score, first, second, groups=groups)
    assert f"prompt_tuning against random: {test.difference:+.3f}, p " in written.replace("\\", "")
    assert test.difference < 0 and "p < 0.001" not in written or test.p < 0.001
    assert "By rows drawn again" in to_html(results)


def test_every_form_shows_further_metrics_answers_without_an_end_and_what_was_answered(
    study, tmp_path
):
    results = load_results(fill(study).folder)
    task = summary(study)
    written, page = to_markdown(results), to_html(results)
    exact = {row.label: row.further["exact_match"] for row in task.rows}
    runs = [result(study, "random", seed) for seed in study.seeds]
    assert exact["random"] == pytest.approx(np.mean([np.mean(r["test"]["correct"]) for r in runs]))
    assert "| strategy | slot_error ↓ | test loss |" in written
    assert f"| `random` | {exact['random']:.3f} | 3 (2.5 %) |" in written
    assert "no end: answers that met the limit of tokens before their end" in written
    assert "higher is better, beside ↓ a lower one" in written
    assert r"right: `It is 0. | Yes | *it* is.`" in written
    assert "  - `prompt_tuning`: `<b>prompt_tuning" in written
    assert "greedy, 32 tokens; slot_error|field:mr" in written.replace("\\", "")
    assert "10 in the test split: intervals and tests are clustered by them" in written
    assert "<b>prompt_tuning" not in page and "&lt;b&gt;prompt_tuning" in page
    assert "slot_error ↓" in page and "3 (2.5 %)" in page
    console = Console(record=True, width=120)
    print_report(results, console)
    shown = console.export_text()
    assert "slot_error ↓" in shown and "3 (2.5 %)" in shown


def test_answers_without_an_end_stand_alone_under_a_line_of_their_own(study):
    results = load_results(fill(study, further=False).folder)
    written, page = to_markdown(results), to_html(results)
    line = "Test answers of all seeds that met the limit of tokens before their end"
    assert f"{line}:\n\n| strategy | no end |" in written and f"<h3>{line}</h3>" in page
    assert "other metrics" not in written + page and "no end: " not in written


def test_a_study_of_choices_shows_nothing_of_this(make_study):
    written = to_markdown(load_results(make_study().fill().folder))
    for words in ("What they answered", "no end", "↓", "clustered", "Objective"):
        assert words not in written


def test_what_was_followed_and_selected_by_is_said(study):
    study.study |= {"objective": "slot_error", "select_by": "metric"}
    study.write_study()
    for label in MISSING:
        for seed in study.seeds[:1] if label == "manual" else study.seeds:
            made = study.agreeing(result(study, label, seed))
            # The last seed is the best one by the metric, and the first by the loss.
            rows = [[3 - seed, 0, 3]] * len(made["select"]["losses"])
            about = made["test"]["metrics"][0]
            made["select"] |= {
                "metric": error(rows),
                "metrics": [{**about, "score": error(rows), "statistics": None}],
            }
            write_record(study.path("reviews", label, seed), "result", made)
    results = load_results(study.folder)
    (task,) = summarise(results)
    assert {row.label: row.best.seed for row in task.rows} == {
        "prompt_tuning": 2,
        "random": 2,
        "manual": 0,
    }
    written = to_markdown(results)
    assert "searches minimise minus slot_error; selected by metric" in written.replace("\\", "")
    assert "of the seed with the best metric on the select split" in written
    assert "least minus slot_error so far" in to_html(results)


def test_a_record_whose_metrics_do_not_follow_from_its_rows_is_not_believed(study):
    fill(study)
    for change, complaint in (
        ({"score": 0.111}, "test.metrics.slot_error is 0.111"),
        ({"statistics": [[1, 0, 3]] * 3}, "statistics of another shape than its 40 rows"),
        ({"score": None}, "neither a score nor a reason"),
    ):
        made = result(study, "random", 0)
        made["test"]["metrics"][0] |= change
        made["test"]["metric"] = made["test"]["metrics"][0]["score"]
        write(study, made)
        with pytest.raises(RecordError, match=complaint):
            load_results(study.folder)
    made = result(study, "random", 0)
    made["test"]["metrics"][1]["score"] = 0.9
    write(study, made)
    with pytest.raises(RecordError, match=r"test.metrics.exact_match is 0.9"):
        load_results(study.folder)


def test_two_metrics_stand_against_prompt_length_in_one_figure(study):
    labels = [f"{name}-{length}" for name in ("random", "prompt_tuning") for length in (1, 5, 20)]
    study.study["strategies"] = labels
    study.study["families"] = {label: label.rpartition("-")[0] for label in labels}
    study.write_study()
    for label in labels:
        name, _, length = label.rpartition("-")
        for seed in study.seeds:
            write(study, result(study, label, seed, name, length=int(length)))
    results = load_results(study.folder)
    (task,) = summarise(results)
    figure = two_metrics(task, "t0", "slot_error", "exact_match")
    assert figure == two_metrics(task, "t0", "slot_error", "exact_match"), "the same bytes"
    assert all(f'id="t0-{k}-{part}-line"' in figure for k in (0, 1) for part in ("first", "second"))
    assert "slot_error" in figure and "exact_match" in figure
    row = task.rows[0]
    assert mean_of(task, row, "slot_error") == row.metric.mean
    assert mean_of(task, row, "exact_match") == row.further["exact_match"]
    with pytest.raises(UnknownName, match="bleu"):
        mean_of(task, row, "bleu")
    assert "slot_error (solid, left) and exact_match (dashed, right) against" in to_html(results)
    other = to_html(results, ("exact_match", "slot_error"))
    assert "exact_match (solid, left) and slot_error (dashed, right) against" in other


def test_the_tasks_of_a_family_have_a_mean_each_counted_once(make_study):
    study = make_study(tasks=tuple(f"P{k}" for k in range(6)), seeds=(0, 1, 2))
    for info in study.study["tasks"].values():
        info["family"] = "probe"
    study.write_study()
    study.fill()
    results = load_results(study.folder)
    written = to_markdown(results)
    tasks = summarise(results)
    means = [
        np.mean([row.metric.mean for task in tasks for row in task.rows if row.label == "random"])
    ]
    assert "- **probe**, mean over 6 tasks: p_tuning" in written
    table = written[written.index("## probe: mean over 6 tasks") :]
    (line,) = [line for line in table.splitlines() if line.startswith("| `random`")][:1]
    assert f"| {means[0]:.3f} " in line
    assert "probe: mean over 6 tasks" in to_html(results)
