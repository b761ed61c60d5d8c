"""Metrics of a study's author: tried before anything is scored, and never the end of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from promptsearch import compare
from promptsearch.errors import TaskError, UnknownName
from promptsearch.report import load_results
from promptsearch.tasks.metrics import find_metric, known_metrics, named
from promptsearch.tasks.metrics.measured import check_metric, choice_rows, measured
from promptsearch.tasks.metrics.metric import Answered
from promptsearch.tasks.task import Task

LABELS, PREDICTIONS = [0, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in ("own", "late"):
        sys.modules.pop(name, None)


def test_pairs_of_which_an_answer_is_not_known_are_refused(
    here: Path,
) -> None:
    (here / "own.py").write_text("def share(labels, predictions):\n    return 0.5\n")
    rows = [Answered("b", ("b",), label=1, prediction=1), Answered("", ("a",), label=0)]
    with pytest.raises(TaskError, match="of row 2 it is not known which answer was given"):
        measured(find_metric("own:share"), rows)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("raise RuntimeError('no')", "the metric 'own:share' failed: RuntimeError: no"),
        ("raise SystemExit(3)", "the metric 'own:share' failed: SystemExit: 3"),
        ("raise BaseException('no')", "the metric 'own:share' failed: BaseException: no"),
        ("return '0.5'", "the metric 'own:share' gave '0.5': expected a finite number"),
        ("return b'1'", "gave b'1': expected a finite number"),
        ("return None", "gave None: expected a finite number"),
        ("return [0.5, 0.5]", r"gave \[0.5, 0.5\]: expected a finite number"),
        ("return 1j", "gave 1j: expected a finite number"),
        ("return float('nan')", "gave nan: expected a finite number"),
        ("return 10 ** 400", "gave a number of more than 80 digits: expected a finite number"),
        ("return -float('inf')", "gave -inf: expected a finite number"),
    ],
)
def test_a_metric_that_gives_no_number_is_named_before_anything_is_scored(
    here: Path, body: str, complaint: str
) -> None:
    (here / "own.py").write_text(f"def share(labels, predictions):\n    {body}\n")
    with pytest.raises(TaskError, match=complaint):
        check_metric(find_metric("own:share"), "choices", choice_rows(LABELS, PREDICTIONS))


def test_a_metric_that_is_no_function_is_named(here: Path) -> None:
    (here / "own.py").write_text("share = 0.5")
    with pytest.raises(
        TaskError,
        match="the metric 'own:share' is 0.5: expected a subclass of .*Metric, or a function of",
    ):
        find_metric("own:share")


def test_a_metric_may_give_any_kind_of_number(here: Path) -> None:
    for found in (
        "1",
        "True",
        "np.float32(0.5)",
        "np.array(0.5)",
        "(labels == predictions).mean()",
    ):
        (here / "own.py").write_text(
            f"import numpy as np\ndef share(labels, predictions): return {found}\n"
        )
        sys.modules.pop("own", None)
        check_metric(find_metric("own:share"), "choices", choice_rows(LABELS, PREDICTIONS))


#: A metric of choices that reads a field, or asks what may be missing.
COSTLY = """
import numpy as np
from promptsearch.tasks.metrics.metric import Metric

class Costly(Metric):
    name = "costly"
    answers = "choices"
    alone = ALONE
    seen = []

    def statistics(self, rows):
        self.seen += rows
        return [[float(row.fields["cost"]) * (row.label == row.prediction)] for row in rows]
"""


def priced(**changes: object) -> Task:
    rows = [{"text": f"a {i}", "cost": str(i % 7), "label": "yn"[i % 2]} for i in range(120)]
    given = {"template": "{prompt} {text} for {cost}: {answer}", "label": "label", **changes}
    splits = {"search": 10, "select": 10, "test": 100}
    return Task.from_rows(rows, splits=splits, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("alone", [True, False])
def test_a_metric_of_choices_is_tried_on_a_few_rows_of_each_answer_with_their_fields(
    here: Path, alone: bool
) -> None:
    (here / "own.py").write_text(COSTLY.replace("ALONE", str(alone)))
    priced(answers="labels", metric="own:Costly")
    seen = sys.modules["own"].Costly.seen
    assert len(seen) == (6 if alone else 0)
    for label in range(2 * alone):
        own = [row for row in seen if row.label == label]
        assert [row.prediction == label for row in own] == [True, True, False]
        assert all(len(row.probabilities) == 2 and row.references == ("ny"[label],) for row in own)


def test_a_metric_of_text_is_tried_on_a_few_rows_and_slot_error_looks_at_all_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from promptsearch.tasks.metrics.ter import TER

    sizes = []
    monkeypatch.setattr(TER, "statistics", lambda self, rows: sizes.append(len(rows)) or [[0, 1]])
    with pytest.raises(TaskError, match="shape"):
        priced(metrics=["ter"])
    assert 2 <= sizes[0] <= 4
    rows = [{"mr": f"name[{i}]", "label": "x", "id": i} for i in range(21)]
    given = {"template": "{prompt} {mr}{answer}", "label": "label", "metric": "slot_error"}
    parts = {"search": rows[:5], "select": rows[5:9], "test": rows[9:]}
    task = Task.from_rows(parts, identity="id", **given)  # type: ignore[arg-type]
    last = task.splits["test"].examples[-1].fields
    next(row for row in rows if row["mr"] == last["mr"])["mr"] = "none"
    with pytest.raises(TaskError, match="wants records like .* of row 12; got 'none'"):
        Task.from_rows(parts, identity="id", **given)  # type: ignore[arg-type]


def test_what_examples_add_has_the_metric_as_its_mean() -> None:
    for name in ("balanced_accuracy", "f1"):
        found = measured(find_metric(name), choice_rows(LABELS, PREDICTIONS))
        assert sum(found.shares) / 6 == pytest.approx(found.score)


@pytest.mark.parametrize(
    "when", ["len(labels) == 16", "len(labels) == 15"]
)  # the whole split, or one example left out
def test_a_metric_that_fails_at_the_end_costs_no_run_its_results(  # type: ignore[no-untyped-def]
    tiny, films, here: Path, when: str
) -> None:
    size = len(films.splits["test"])
    code = (
        "def share(labels, predictions):\n    if WHEN: raise ValueError('too few')\n"
        "    return 0.5\n"
    )
    (here / "late.py").write_text(
        code.replace("WHEN", when.replace("16", str(size)).replace("15", str(size - 1)))
    )
    study = {"budget": 9_000, "seeds": 1, "length": 2, "score_on": 8, "strategies": ["manual"]}
    results = compare(study, out=here / "out", model=tiny, task=replace(films, metric="late:share"))
    (run,) = results.runs
    assert run.test.metric == (None if when.endswith("16") else 0.5) and run.test.shares is None
    assert run.test.metric_failed == "the metric 'late:share' failed: ValueError: too few"
    assert run.winner.key and run.test.losses
    about = json.loads((here / "out/films/manual/seed0/best/prompt.json").read_text())
    assert ("metric" in about["test"]) == (
        run.test.metric is not None
    ) and "metric_interval" not in about["test"]
    for name in ("report.md", "report.html"):
        assert "ValueError: too few" in (here / "out" / name).read_text("utf-8").replace("\\", "")


def test_a_metric_that_works_is_recorded_with_what_reports_need(  # type: ignore[no-untyped-def]
    tiny, films, here: Path
) -> None:
    (here / "own.py").write_text(
        "def share(labels, predictions): return float((labels == predictions).mean())\n"
    )
    study = {"budget": 9_000, "seeds": 1, "length": 2, "score_on": 8, "strategies": ["manual"]}
    compare(study, out=here / "out", model=tiny, task=replace(films, metric="own:share"))
    (here / "own.py").unlink()
    (run,) = load_results(here / "out").runs
    assert run.test.shares is not None and run.test.metric is not None
    assert sum(run.test.shares) / len(run.test.shares) == pytest.approx(run.test.metric)
    assert list(run.test.shares) == pytest.approx(list(run.test.correct))


def test_a_metric_that_changes_what_it_is_given_changes_nothing(here: Path) -> None:
    (here / "own.py").write_text(
        "def greedy(labels, predictions):\n    predictions[:] = labels\n"
        "    return float((labels == predictions).mean())\n"
    )
    found = measured(find_metric("own:greedy"), choice_rows([0, 1, 1], [1, 1, 0]))
    assert found.score == 1.0 and found.shares == (1.0, 1.0, 1.0)


#: A metric of one's own, with room for a fault.
FAULTY = """
import numpy as np
from promptsearch.tasks.metrics.metric import Metric

class Mine(Metric):
    name = "mine"
    answers = "any"

    def __init__(self, *, weight: float = 1.0):
        self.weight = weight

    def statistics(self, rows):
        {statistics}

    def score(self, sums, rows):
        {score}
"""
LENGTHS = "return [[self.weight * len(row.output)] for row in rows]"
ROWS = [Answered("good", ("fine",)), Answered("bad", ("right",))]


@pytest.mark.parametrize(
    ("statistics", "score", "complaint"),
    [
        (
            "if any(row.output == 'bad' for row in rows): raise KeyError('x')",
            "return 0",
            r"'mine' failed on row 2 \(output 'bad', reference 'right'\): KeyError: 'x'",
        ),
        ("raise SystemExit(3)", "return 0", "'mine' failed on row 1 .*SystemExit: 3"),
        (
            "if len(rows) > 1: raise ValueError('together')\n        return [[1.0]]",
            "return 0",
            "'mine' failed: ValueError: together",
        ),
        (
            "return [[1.0 if row.output != 'bad' else np.nan] for row in rows]",
            "return 0",
            r"'mine' gave \[nan\] for row 2 .*: expected finite numbers",
        ),
        ("return [1.0] * len(rows)", "return 0", r"shape \(2,\): expected numbers of shape \(2,"),
        ("return [[1.0]]", "return 0", r"shape \(1, 1\): expected numbers of shape \(2, stat"),
        ("return np.zeros((2, 0))", "return 0", r"shape \(2, 0\)"),
        ("return [['a'], ['b']]", "return 0", r"gave \[\['a'\], \['b'\]\] as statistics"),
        (LENGTHS, "return float('nan')", "'mine' gave nan: expected a finite number"),
        (LENGTHS, "return 'much'", "'mine' gave 'much': expected a finite number"),
        (LENGTHS, "return 1 // 0", "'mine' failed: ZeroDivisionError"),
    ],
)
def test_a_metric_of_ones_own_with_a_fault_is_refused_by_name_and_row(
    here: Path, statistics: str, score: str, complaint: str
) -> None:
    (here / "own.py").write_text(FAULTY.format(statistics=statistics, score=score))
    with pytest.raises(TaskError, match=complaint):
        measured(find_metric("own:Mine"), ROWS)


def test_a_mean_of_several_statistics_is_refused(here: Path) -> None:
    code = FAULTY.format(statistics="return np.ones((len(rows), 2))", score="return 1")
    (here / "own.py").write_text(code + "\n    mean = True\n")
    with pytest.raises(TaskError, match="says that it is a mean, and gave 2 statistics a row"):
        measured(find_metric("own:Mine"), ROWS)


def test_a_metric_of_ones_own_has_options_that_are_checked(here: Path) -> None:
    (here / "own.py").write_text(FAULTY.format(statistics=LENGTHS, score="return sums[0] / rows"))
    assert measured(find_metric("own:Mine", {"weight": 2}), ROWS).score == 7.0
    with pytest.raises(TaskError, match="'own:Mine', option 'weight': .*number.*, got 'much'"):
        find_metric("own:Mine", {"weight": "much"})
    with pytest.raises(UnknownName, match="Did you mean 'weight'"):
        find_metric("own:Mine", {"weigth": 1})


def test_an_installed_metric_is_found_by_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "own.py").write_text(FAULTY.format(statistics=LENGTHS, score="return 0.5"))
    folder = here / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[promptsearch.metrics]\nmine = own:Mine\n")
    monkeypatch.syspath_prepend(str(here))
    assert find_metric("mine").name == "mine" and "mine" in known_metrics()
    with pytest.raises(UnknownName, match="Did you mean 'mine'"):
        find_metric("mime")


def test_text_and_choices_are_kept_apart() -> None:
    with pytest.raises(TaskError, match="'exact_match' is for text answers.*see row 1 "):
        measured(find_metric("exact_match"), choice_rows([0], [0]))
    with pytest.raises(TaskError, match="'f1' is for choices answers"):
        measured(find_metric("f1"), ROWS)
    with pytest.raises(TaskError, match="no rows"):
        measured(find_metric("exact_match"), [])


@pytest.mark.parametrize("given", [{}, {"a": {}, "b": {}}, {"a": 3}, {3: {}}, ["bleu"]])
def test_a_metric_in_another_form_is_refused(given: object) -> None:
    with pytest.raises(TaskError, match="a metric is NAME, or"):
        named(given)  # type: ignore[arg-type]
