"""The recipes of the documentation, as they stand there, on folders of the form of the Hub's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from promptsearch import Task
from promptsearch.errors import FieldError, StudyError, UnknownName
from promptsearch.plain.yaml import read_yaml
from promptsearch.study.config import parse_config

PAGE = (Path(__file__).parents[2] / "docs/guides/recipes.md").read_text("utf-8")
STUDIES = {
    re.match(r"name: (\w+)", text)[1]: text
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
}
SEEN = ("Airport", "Artist", "Astronaut", "Athlete", "Building", "CelestialBody", "City", "Food")
SEEN += ("ComicsCharacter", "Company", "MeanOfTransportation", "Monument", "Politician")
SEEN += ("SportsTeam", "University", "WrittenWork")
UNSEEN = ("Film", "MusicalWork", "Scientist")


def xsum(i, split):
    return {
        "document": f"A {split} story of {i} towns.\nIt rained.",
        "summary": f"It rained {i}.",
        "id": str(i),
    }


def webnlg(i, split):
    category = (*SEEN, *UNSEEN)[i % 19] if split == "test" else SEEN[i % 16]
    triples = [f"{split}_{i} | leader | Ann", f"{split}_{i} | size | {i}"][: 1 + i % 2]
    texts = [f"Ann leads {i}.", f"{i} is led by Ann."][: 1 + i % 2]
    return {
        "category": category,
        "size": len(triples),
        "eid": f"Id{i}",
        "original_triple_sets": {"otriple_set": [triples]},
        "modified_triple_sets": {"mtriple_set": [triples]},
        "lex": {"comment": ["good"] * len(texts), "lid": ["Id1"] * len(texts), "text": texts},
    }


def dart(i, split):
    return {
        "tripleset": [[f"{split} {i}", "LEADER", "Ann"], ["Ann", "AGE", str(i)]],
        "subtree_was_extended": False,
        "annotations": {"source": ["WikiSQL"], "text": [f"Ann, aged {i}, leads."]},
    }


#: The data set -> its rows, its splits as the Hub calls them, its configuration.
FORMS = {
    "xsum": (xsum, ("train", "validation", "test"), None),
    "webnlg": (webnlg, ("train", "dev", "test"), "release_v3.0_en"),
    "dart": (dart, ("train", "validation", "test"), None),
}


def folder_of(name, folder):
    """A folder that the library of the Hub's data sets reads as it reads the data set."""
    row, splits, config = FORMS[name]
    folder.mkdir()
    files = []
    for split in splits:
        rows = [row(i, split) for i in range(38)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        files.append(f"  - {{split: {split}, path: {split}.jsonl}}\n")
    head = (
        f"---\nconfigs:\n- config_name: {config or 'default'}\n  data_files:\n{''.join(files)}---\n"
    )
    (folder / "README.md").write_text(head)
    return folder


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Loads the tasks of a recipe, with smaller splits."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")

    def load(name):
        text = STUDIES[name]
        hub = re.search(r"hub: ([\w./-]+)", text)[1]
        text = text.replace(hub, str(folder_of(name, tmp_path / name)))
        text = re.sub(r"search: \d+, select: \d+(, test: \d+)?", "search: 8, select: 4", text)
        keys, places = read_yaml(text, name)
        config = parse_config(keys, folder=tmp_path, source=name, places=places)
        return {
            each.name: Task.load(each.model_dump(exclude_none=True), tmp_path)
            for each in config.tasks
        }

    return load


def first(task, split="test"):
    return task.splits[split].examples[0]


def test_the_page_has_a_recipe_for_each():
    assert set(STUDIES) == set(FORMS)


def test_a_document_has_its_summary(tasks):
    (task,) = tasks("xsum").values()
    assert len(task.splits["test"]) == 38 and "test story" in first(task).fields["document"]
    assert re.fullmatch(r" It rained \d+\.", first(task).answer)
    assert list(task.measures) == ["rougeL", "rouge1", "rouge2"]


def test_triples_are_joined_and_categories_are_seen_or_not(tasks):
    found = tasks("webnlg")
    sizes = {name: len(task.splits["test"]) for name, task in found.items()}
    assert sizes == {"webnlg-all": 38, "webnlg-seen": 32, "webnlg-unseen": 6}
    everything, seen, unseen = (
        {e.fields["modified_triple_sets.mtriple_set"] for e in task.splits["test"].examples}
        for task in found.values()
    )
    assert seen | unseen == everything and not seen & unseen
    assert "test_1 | leader | Ann ; test_1 | size | 1" in seen
    assert {len(e.references) for e in found["webnlg-all"].splits["test"].examples} == {1, 2}
    assert any("test: 'where' keeps 6 of 38 rows" in n for n in found["webnlg-unseen"].notes)
    for split in ("search", "select"):
        assert found["webnlg-all"].splits[split] == found["webnlg-unseen"].splits[split]


def test_lists_of_lists_are_joined(tasks):
    (task,) = tasks("dart").values()
    texts = {e.fields["tripleset"] for e in task.splits["test"].examples}
    assert "test 3 : LEADER : Ann ; Ann : AGE : 3" in texts


ROWS = [{"parts": [["a", str(i)], ["b"]], "label": f"x{i}"} for i in range(30)]


def load(folder, rows=ROWS, **changes):
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "data": {"path": "d.jsonl"},
        "join": {"parts": [" ; ", " "]},
        "template": "{prompt} {parts} = {answer}\n",
        "label": "label",
        "splits": {"search": 8, "select": 4, "test": 6},
    }
    return Task.load({**given, **changes}, folder)


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ({"parts": " "}, "'parts' holds lists deeper .* than 'join' has texts"),
        ({"parts": [" ", " ", " "]}, "'parts' is no list, or no list of lists, as 'join' says"),
        ({"nothing": " "}, "lacks the field 'nothing'"),
        ({"label": " "}, "'label' is no list"),
    ],
)
def test_a_list_of_another_depth_is_refused_with_its_row(join, message, tmp_path):
    with pytest.raises(FieldError, match=message):
        load(tmp_path, join=join)


def test_a_part_without_a_text_is_refused_with_its_row(tmp_path):
    rows = [*ROWS[:4], {"parts": [["a", None]], "label": "x"}, *ROWS[4:]]
    with pytest.raises(FieldError, match=r"line 5: the field 'parts' has no value \(null\)"):
        load(tmp_path, rows)


def test_an_empty_list_is_an_empty_text(tmp_path):
    rows = [*ROWS, {"parts": [], "label": "x"}]
    task = load(tmp_path, rows, splits={"search": 8, "select": 4, "test": 19})
    assert "" in {e.fields["parts"] for s in task.splits.values() for e in s.examples}


def test_where_of_a_split_names_its_own_rows(tmp_path):
    rows = [{**row, "parts": ["a", str(i)]} for i, row in enumerate(ROWS)]
    (tmp_path / "t.jsonl").write_text(json.dumps({"parts": ["t"], "label": "y"}) + "\n")
    data = {"search": {"path": "d.jsonl"}, "test": {"path": "t.jsonl", "where": {"label": "z"}}}
    with pytest.raises(UnknownName, match="value of the field 'label'"):
        load(tmp_path, rows, data=data, join={"parts": " "})


@pytest.mark.parametrize("join", [{"parts": []}, {"parts": [" "] * 5}, {"parts": 3}, "parts"])
def test_what_join_may_be_is_said(join):
    keys = {
        "model": "x",
        "budget": 1,
        "strategies": ["random"],
        "task": {
            "data": {"path": "d.jsonl"},
            "join": join,
            "template": "{prompt} {parts}{answer}",
            "label": "label",
            "splits": {"search": 8, "select": 4, "test": 6},
        },
    }
    with pytest.raises(StudyError, match="join"):
        parse_config(keys)
