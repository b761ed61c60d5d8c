"""Metrics of a study's author: tried before anything is scored, and never the end of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promptsearch import compare
from promptsearch.errors import TaskError
from promptsearch.report import load_results
from promptsearch.tasks.metrics import check_metric, measure, metric_function, shares

LABELS, PREDICTIONS = [0, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in ("own", "late"):
        sys.modules.pop(name, None)


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
        check_metric("own:share", 3)


def test_a_metric_that_is_no_function_is_named(here: Path) -> None:
    (here / "own.py").write_text("share = 0.5")
    with pytest.raises(
        TaskError,
        match="the metric 'own:share' is 0.5: expected a function of labels and predictions",
    ):
        check_metric("own:share", 2)


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
        check_metric("own:share", 2)


def test_what_examples_add_has_the_metric_as_its_mean() -> None:
    for name in ("balanced_accuracy", "f1"):
        whole = measure(name, metric_function(name), LABELS, PREDICTIONS)
        assert sum(shares(name, LABELS, PREDICTIONS)) / 6 == pytest.approx(
            whole, abs=0.06
        )  # smooth metrics, few examples


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
    study = {"budget": 9_000, "length": 2, "score_on": 8, "strategies": ["manual"]}
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


def test_a_metric_that_works_is_recorded_with_what_reports_need(tiny, films, here: Path) -> None:  # type: ignore[no-untyped-def]
    (here / "own.py").write_text(
        "def share(labels, predictions): return float((labels == predictions).mean())\n"
    )
    study = {"budget": 9_000, "length": 2, "score_on": 8, "strategies": ["manual"]}
    compare(study, out=here / "out", model=tiny, task=replace(films, metric="own:share"))
    (here / "own.py").unlink()
    (run,) = load_results(here / "out").runs
    assert run.test.shares is not None and run.test.metric is not None
    assert sum(run.test.shares) / len(run.test.shares) == pytest.approx(run.test.metric)
    assert list(run.test.shares) == pytest.approx(list(run.test.correct))


def test_a_metric_that_changes_what_it_is_given_changes_nothing() -> None:
    def greedy(labels, predictions):  # type: ignore[no-untyped-def]
        predictions[:] = labels
        return float((labels == predictions).mean())

    labels, predictions = np.array([0, 1, 1]), np.array([1, 1, 0])
    assert measure("mine:greedy", greedy, labels, predictions) == 1.0
    assert predictions.tolist() == [1, 1, 0]
