"""Rows that run with fewer seeds than their study."""

import pytest

from promptsearch import compare
from promptsearch.errors import StudyError
from promptsearch.records.load import load_results
from promptsearch.testing.tiny_task import tiny_task


def told(*strategies, **changes):
    given = {"name": "s", "budget": 9_000, "length": 2, "score_on": 8, "seeds": 3}
    return {**given, "strategies": [*strategies], **changes}


def seeds(folder):
    found = sorted(path.parent for path in folder.rglob("result.json"))
    return [f"{path.parent.name}/{path.name}" for path in found]


def test_a_row_runs_with_the_first_seeds_and_a_report_misses_none(tiny, tmp_path):
    few = {"random": {"seeds": 1, "label": "few"}}
    compare(told(few, "random"), out=tmp_path, model=tiny, task=tiny_task())
    runs = ["few/seed0", "random/seed0", "random/seed1", "random/seed2"]
    assert seeds(tmp_path) == runs
    text = (tmp_path / "report.md").read_text()
    assert "of 3 seeds" not in text and "of 1 seeds" not in text
    more = {"random": {"seeds": 2, "label": "few"}}
    compare(told(more, "random"), out=tmp_path, model=tiny, task=tiny_task())
    assert seeds(tmp_path) == ["few/seed0", "few/seed1", *runs[1:]]


def test_a_row_without_chance_is_one_run_to_be_made_whatever_the_seeds(tiny, tmp_path):
    manual, few = {"manual": {"prompts": ["good"]}}, {"random": {"seeds": 2, "budget": 4_000}}
    compare(told(few, manual), out=tmp_path, model=tiny, task=tiny_task())
    for path in tmp_path.rglob("result.json"):
        path.unlink()
    labels = [label for _, label, _ in load_results(tmp_path).unfinished]
    assert labels == ["random", "random", "manual"]


def test_a_row_that_starts_from_another_has_no_more_seeds_than_that_one(tiny, tmp_path):
    one = {"random": {"seeds": 1, "budget": 4_000}}
    start = {"coordinate": {"budget": 4_000, "start": {"run": "random"}}}
    with pytest.raises(StudyError, match="runs with 3 seeds and starts from 'random', which runs"):
        compare(told(one, start), out=tmp_path, model=tiny, task=tiny_task())


def test_the_first_seeds_stay_first_when_a_study_grows(tiny, tmp_path):
    one = {"random": {"seeds": 1, "budget": 4_000}}
    compare(told(one, seeds=[5, 1]), out=tmp_path, model=tiny, task=tiny_task())
    found = compare(told(one, seeds=[5, 2]), out=tmp_path, model=tiny, task=tiny_task())
    assert seeds(tmp_path) == ["random/seed5"]
    assert found.study.seeds == found.study.settings["seeds"] == [5, 1, 2]
    assert "of 1 seeds" not in (tmp_path / "report.md").read_text()


def test_tasks_of_earlier_calls_stay_in_the_settings(study, tmp_path):
    """Who exports the rows of a test split reads there where they come from."""
    rows, config = [{"manual": {"prompts": ["good"]}}], study()
    for name in ("one", "two", "one"):
        task = {**config.tasks[0].model_dump(mode="json", exclude_none=True), "name": name}
        found = compare(study(strategies=rows, seeds=1, task=task), out=tmp_path)
    assert [task["name"] for task in found.study.settings["tasks"]] == ["one", "two"]
