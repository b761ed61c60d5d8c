"""Studies whose seeds draw their own examples, and studies with a task of each value."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from promptsearch import compare
from promptsearch.errors import StudyError
from promptsearch.records.load import load_study
from promptsearch.study.config import parse_config
from promptsearch.study.forecast import forecast
from promptsearch.study.prepare import prepare
from promptsearch.tasks.task import SPLITS, Task

pytestmark = pytest.mark.usefixtures("unreported")

PARTS = ["good film", "the story", "I hate", "capital"]
TASK = {
    "template": "{prompt} {text} It was {answer}",
    "label": "label",
    "answers": {0: "bad", 1: "good"},
    "splits": {"search": {"per_class": 6}, "select": {"per_class": 3}, "test": 10},
}
MANUAL = {"manual": {"prompts": ["good movie?", "It was"]}}


def rows(count=90):
    return [
        {"text": " ".join(PARTS[i % 4 :]) + f" {i}", "label": i % 2, "kind": "ab"[i % 3 > 0]}
        for i in range(count)
    ]


def study(**changes):
    return {
        "name": "s",
        "budget": 4_000,
        "length": 2,
        "score_on": 4,
        "seeds": 2,
        "draw": "seed",
        "strategies": [MANUAL, "random"],
        **changes,
    }


def config(**changes):
    return parse_config({"model": "m", "task": "films", **study(**changes)})


@pytest.fixture(scope="module")
def task():
    return Task.from_rows(rows(), name="films", **TASK)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny, task):
    folder = tmp_path_factory.mktemp("drawn")
    compare(study(), out=folder, model=tiny, task=task)
    return folder


def test_each_seed_has_an_arena_of_its_own_and_all_one_test_split(tiny, task):
    prepared = prepare(config(seeds=[3, 5]), tiny, task)
    one, other = (prepared.arena(prepared.tasks[0], seed=seed) for seed in (3, 5))
    assert one.exact["test"] is other.exact["test"]
    for name in ("search", "select"):
        assert one.task.splits[name].hash == task.drawn(3).splits[name].hash
        assert one.task.splits[name].hash != other.task.splits[name].hash
        assert one.exact[name].signature != other.exact[name].signature
    assert set(one.pool.ids) == set(other.pool.ids)
    runs = {(run.label, run.seed): run for run in prepared.runs(Path())}
    assert runs["random", 3].arena is one and runs["random", 5].arena is other
    once = prepare(config(draw="once"), tiny, task)
    assert len(once.arenas) * 2 == len(prepared.arenas)


def test_every_strategy_runs_with_every_seed_and_is_told_to_have_drawn(place, task):
    found = {
        str(path.parent.relative_to(place)): json.loads(path.read_text())
        for path in place.rglob("result.json")
    }
    assert set(found) == {f"films/{n}/seed{s}" for n in ("manual", "random") for s in (0, 1)}
    assert all(run["status"] == "done" and not run["deterministic"] for run in found.values())
    for name in ("manual", "random"):
        one, other = (found[f"films/{name}/seed{seed}"] for seed in (0, 1))
        assert one["select"]["losses"] != other["select"]["losses"]
        assert len(one["test"]["losses"]) == len(other["test"]["losses"]) == 10
    record = load_study(place).tasks["films"]
    assert any("luck of the draw" in note for note in record.notes)
    assert record.splits["test"].hash == task.splits["test"].hash
    assert record.splits["search"].hash == task.drawing.hash("search")


def test_more_seeds_may_be_added_and_other_draws_are_refused(place, tiny, task):
    more = compare(study(seeds=3), out=place, model=tiny, task=task)
    assert len(more.runs) == 6 and not more.unfinished
    with pytest.raises(StudyError, match="draw was seed, now it is once"):
        compare(study(draw="once"), out=place, model=tiny, task=task)
    changed = Task.from_rows(rows(91), name="films", **TASK)
    with pytest.raises(StudyError, match="task 'films', splits"):
        compare(study(), out=place, model=tiny, task=changed)


def test_a_row_starts_from_a_winner_of_its_own_draw(tiny, task):
    """That of another draw was chosen on rows that may be searched on here."""
    rows = [{"manual": {"prompts": ["good movie?"], "seeds": 1}}]
    rows.append({"coordinate": {"start": {"run": "manual"}}})
    with pytest.raises(StudyError, match="runs with 2 seeds and starts from 'manual', which runs"):
        prepare(config(strategies=rows), tiny, task)
    prepare(config(strategies=rows, draw="once"), tiny, task)


def test_a_plan_rehearses_one_draw(tiny, task):
    found = forecast(config(strategies=["random"]), tiny, task)
    assert len(found.tasks) == 1
    assert [(run.label, run.runs) for run in found.runs] == [("random", 2)]
    found = forecast(config(), tiny, task)
    assert [(run.label, run.runs) for run in found.runs] == [("manual", 2), ("random", 2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": {"task": 5}}, "'pool' cannot follow from them by 'task' or 'influence'"),
        ({"pool": {"words": 50, "influence": 5}}, "'pool' cannot follow from them"),
        ({"draw": "seeds"}, "unknown draw 'seeds'. Did you mean 'seed'"),
    ],
    ids=["mined", "influence", "name"],
)
def test_what_cannot_be_drawn_is_refused(tiny, task, changes, message):
    with pytest.raises(StudyError, match=message):
        prepare(config(**changes), tiny, task)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (5, r"seed \d+ draws \d+ \w+ examples, and not"),
        (
            1,
            r"^seed 3 cannot draw its examples: .* split 'select', .*; or leave out 'draw', so",
        ),
    ],
)
def test_groups_that_change_the_size_of_a_split_are_refused(tiny, select, message):
    data = [
        {"text": f"{PARTS[g % 4]} {g} {i}", "label": i % 2, "group": f"g{g}"}
        for g in range(12)
        for i in range(1 + g % 4)
    ]
    sizes = {"search": 8, "select": select, "test": 6}
    task = Task.from_rows(data, **{**TASK, "splits": sizes}, group="group")
    with pytest.raises(StudyError, match=message):
        prepare(config(seeds=40), tiny, task)


def test_each_value_of_a_field_is_a_task_of_the_study(tiny, tmp_path, caplog):
    (tmp_path / "films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    source = {**TASK, "data": {"path": "films.jsonl"}, "each": "kind"}
    given = study(task=source, strategies=[MANUAL], seeds=1, draw="once", model="m")
    config = parse_config(given, folder=tmp_path)
    assert parse_config(config.model_dump(), folder=tmp_path) == config
    with caplog.at_level(logging.WARNING):
        prepared = prepare(config, tiny)
    assert [task.name for task in prepared.tasks] == ["films-a", "films-b"]
    found = compare(config, out=tmp_path / "out", model=tiny)
    assert {run.task for run in found.runs} == {"films-a", "films-b"}
    assert all((tmp_path / "out" / f"films-{kind}" / "manual" / "seed0").is_dir() for kind in "ab")
    alone = {"name": "films-a", **TASK, "data": {"path": "films.jsonl"}, "where": {"kind": "a"}}
    (task,) = prepare(parse_config({**given, "task": alone}, folder=tmp_path), tiny).tasks
    assert [task.splits[n].hash for n in SPLITS] == [
        prepared.tasks[0].splits[n].hash for n in SPLITS
    ]
    with pytest.raises(StudyError, match="two of the tasks are called 'films-a'"):
        both = {**given, "tasks": [source, alone]}
        both.pop("task")
        prepare(parse_config(both, folder=tmp_path), tiny)
