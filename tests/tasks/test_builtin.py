"""The built-in tasks: each loads, its splits have nothing in common, its data have a licence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import promptsearch
from promptsearch.plain.yaml import read_yaml
from promptsearch.study.settings.task import TaskConfig
from promptsearch.tasks.floors import CLASSIFIER, COPY, GUESS, floors
from promptsearch.tasks.task import Task, builtin_tasks

FOLDER = Path(promptsearch.__file__).parent / "tasks" / "builtin"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
#: The task -> the first digits of the hash of its splits' hashes: they are the same everywhere.
HASHES = {
    "antonyms": "b0251e63391707a8",
    "capitals": "03c8f89918b5bc92",
    "elements": "600645c4e5685b82",
    "movie-reviews": "4f70cee48411ca8c",
    "past-tenses": "dd6fc50d2c5fcc8c",
    "questions": "d38ed3f6bc03fbb4",
    "sentences": "1cc3be3e96519f69",
    "which-capital": "ab520f3faf3b3989",
}


def rows(name):
    lines = (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def needs_library(name):
    """Leave a test out where the task's metrics need a library that is not installed."""
    if name == "questions":
        pytest.importorskip("sacrebleu")
        pytest.importorskip("rouge_score")


@pytest.mark.parametrize("name", NAMES)
def test_a_task_loads_and_its_splits_have_nothing_in_common(name):
    needs_library(name)
    task = Task.load(name)
    texts, groups = [], []
    for split in task.splits.values():
        assert len(split) >= 20
        texts.append({tuple(e.fields.values()) for e in split.examples})
        groups.append({e.group for e in split.examples} - {""})
        assert all(e.answer.strip() for e in split.examples)
    assert len(set.union(*texts)) == sum(map(len, texts))
    assert len(set.union(*groups)) == sum(map(len, groups))


@pytest.mark.parametrize("name", NAMES)
def test_the_splits_are_the_same_everywhere(name):
    needs_library(name)
    parts = "".join(split.hash for split in Task.load(name).splits.values())
    assert hashlib.sha256(parts.encode()).hexdigest()[:16] == HASHES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_the_keys_of_a_task_and_a_line_about_it(name):
    keys, _ = read_yaml((FOLDER / f"{name}.yaml").read_text("utf-8"), name)
    assert TaskConfig.model_validate({"name": name, **keys}).description == builtin_tasks()[name]
    assert "\n" not in builtin_tasks()[name] and len(builtin_tasks()[name]) < 120


def test_data_are_small_and_have_origin_and_licence():
    notice = (FOLDER / "NOTICE").read_text("utf-8")
    for path in FOLDER.glob("*.jsonl"):
        assert path.stat().st_size < 400_000
        assert path.name in notice
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in notice
    assert notice.count("CC BY 4.0") == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_floors_are_low(name):
    needs_library(name)
    found = floors(Task.load(name))
    expected = {"movie-reviews": CLASSIFIER, "sentences": CLASSIFIER, "which-capital": GUESS}
    assert found[expected.get(name, COPY)] < (100 if name == "questions" else 0.8)


def test_opposites_stand_in_one_family():
    words = {row["word"]: row for row in rows("antonyms")}
    for row in words.values():
        for other in row["antonyms"]:
            assert other not in words or words[other]["family"] == row["family"]
    assert words["hot"]["antonyms"] == ["cold"] and words["cold"]["family"] == "cold"


def test_verbs_have_their_past_tenses_and_stand_with_those_they_are_made_of():
    verbs = {row["verb"]: row for row in rows("past-tenses")}
    assert len(verbs) == 608
    known = {"go": "went", "try": "tried", "stop": "stopped", "bake": "baked", "put": "put"}
    assert {verb: verbs[verb]["past"] for verb in known} == known
    assert verbs["learn"]["also"] == ["learnt"]
    assert verbs["rewrite"]["stem"] == "write" == verbs["write"]["stem"]
    for row in verbs.values():
        assert row["past"] not in row["also"] and row["stem"] in verbs


def test_each_capital_stands_among_three_others():
    capitals = {row["name"]: row["capital"] for row in rows("capitals")}
    places = [row["answer"] for row in rows("which-capital")]
    for row in rows("which-capital"):
        assert row["options"][row["answer"]] == capitals[row["name"]]
        assert len(set(row["options"])) == 4 and set(row["options"]) <= set(capitals.values())
    assert max(places.count(place) for place in range(4)) == 61


def test_the_elements_are_all_there():
    known = rows("elements")
    assert [row["number"] for row in known] == list(range(1, 119))
    assert {row["name"]: row["symbol"] for row in known}["Iron"] == "Fe"


def test_the_mark_of_the_questions_stays():
    first = (FOLDER / "questions.jsonl").read_text("utf-8").splitlines()[0]
    assert set(json.loads(first)) == {"canary"}
