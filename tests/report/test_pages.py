"""The pages that docs/generate.py makes of several studies count what these found."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promptsearch.report import load_results

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def page_of(monkeypatch):
    """Imports the maker of a page by its name."""
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module


def test_two_runs_of_a_seed_are_compared_with_one_another(make_study, page_of):
    """Both begin alike: the luck of a seed, however large, is no doubt of their difference."""
    found = []
    for name, less in (("seeing", 0), ("blind", 10)):
        made = make_study(name=name, strategies=("manual", "random"), seeds=(0, 1, 2, 3, 4))
        made.fill()
        for seed in made.seeds:
            result = made.result("reviews", "random", seed)
            right = np.arange(made.examples) < 100 + 20 * seed - less
            result["test"]["correct"] = right.astype(int).tolist()
            made.write(result)
        found.append(load_results(made.folder))
    page = page_of("confidence_study").page
    (row,) = (line for line in page(*found).splitlines() if line.startswith("| reviews |"))
    assert row.startswith("| reviews | `random` | 0.700 | 0.650 | +0.050 ± 0.012 | < 0.001 |")
    lost = replace(found[1], runs=tuple(run for run in found[1].runs if run.seed != 4))
    assert "| `random` | 0.650 | 0.600 | +0.050 ± 0.014 |" in page(found[0], lost)


def test_a_study_is_whole_where_each_task_has_each_row(make_study, page_of):
    is_whole = page_of("reference_study").is_whole
    made = make_study(strategies=("manual", "random"), tasks=("reviews", "capitals")).fill()
    whole = load_results(made.folder)
    assert is_whole(whole)
    without = [run for run in whole.runs if (run.task, run.label) != ("capitals", "random")]
    assert not is_whole(replace(whole, runs=tuple(without)))
    assert not is_whole(replace(whole, runs=whole.runs[:-1]))
