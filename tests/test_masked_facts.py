"""The example on a made masked model: its sentences, its model, and its study."""

import importlib.util
import json
import random
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from promptsearch.models import LanguageModel
from promptsearch.models.family import MASKED
from promptsearch.study.config import load_config
from promptsearch.study.prepare import prepare

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("facts_model", EXAMPLES / "facts_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make(maker, tmp_path_factory):
    def make(*given):
        made = tmp_path_factory.mktemp("made") / "facts-model"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["facts_model.py", str(made), "--steps", "2", *given])
            maker.main()
        return LanguageModel.load(str(made))

    return make


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_fact_is_told_in_some_wordings_of_its_relation_only(maker):
    told = maker.sentences(random.Random(0))
    assert told == maker.sentences(random.Random(0)) != maker.sentences(random.Random(1))
    (zagreb,) = {each.text[each.begin : each.end] for each in told if "Zagreb" in each.text}
    assert zagreb == "Zagreb"
    wordings = maker.RELATIONS["capital"][2]
    for row in read(EXAMPLES / "masked-facts.jsonl"):
        texts = {wording.format(*row.values()) for wording in wordings}
        assert len(texts & {each.text for each in told}) == maker.TOLD < len(wordings)


def test_the_facts_are_those_of_the_built_in_task_with_answers_of_one_word():
    capitals = files("promptsearch").joinpath("tasks", "builtin", "capitals.jsonl")
    one = [row for row in read(capitals) if row["capital"].isascii() and row["capital"].isalpha()]
    assert read(EXAMPLES / "masked-facts.jsonl") == [
        {"name": row["name"], "capital": row["capital"]} for row in one
    ]


def test_a_seed_makes_one_model(make):
    assert make().hash == make().hash != make("--seed", "1").hash


def test_the_study_runs_on_what_the_script_makes(make):
    lm = make()
    assert lm.family == MASKED
    prepared = prepare(load_config(EXAMPLES / "masked-facts.yaml"), lm)
    assert [task.name for task in prepared.tasks] == ["capitals", "capitals-anchor"]
    for task in prepared.tasks:
        assert task.decoding.tokens == 1 and not task.notes, "each answer is one token"
    frequent = {lm.decode([i]).strip() for i in next(iter(prepared.arenas.values())).pool.ids}
    assert len(frequent) == 100 and {"The", "capital", "is", "of"} <= frequent
