"""Examples: labels and what they stand for, one of each text.

And what was dropped is told where people look.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from promptsearch import compare
from promptsearch.errors import StudyError, TaskError
from promptsearch.records.load import load_study
from promptsearch.report import print_report
from promptsearch.study.config import parse_config
from promptsearch.study.entries import entries_of
from promptsearch.study.tasks import load_tasks
from promptsearch.tasks.task import SPLITS, Task

TEMPLATE = "{prompt} {text} It was{answer}"
SIZES = {"search": 8, "select": 4, "test": 4}


def rows(labels=(0, 1), count=20):
    return [{"text": f"film {i}", "label": labels[i % 2]} for i in range(count)]


def make(data, answers, **changes):
    given = {"template": TEMPLATE, "label": "label", "answers": answers, "splits": SIZES, **changes}
    return Task.from_rows(data, **given)


def hashes(task):
    return [task.splits[name].hash for name in SPLITS]


# Labels.


@pytest.mark.parametrize("labels", [(0, 1), ("0", "1"), (0.0, 1.0), ("0.0", "1.0"), ("0", 1.0)])
def test_a_label_is_the_same_number_however_a_format_holds_it(labels):
    assert hashes(make(rows(labels), {0: " bad", 1: " good"})) == hashes(
        make(rows(), {"0": " bad", "1.0": " good"})
    )


@pytest.mark.parametrize(
    "labels", [(False, True), ("false", "true"), ("False", "True"), ("FALSE", "TRUE")]
)
@pytest.mark.parametrize("keys", [(False, True), ("false", "true"), ("False", "True")])
def test_a_label_is_the_same_boolean_however_a_format_spells_it(labels, keys):
    expected = hashes(make(rows(), {0: " bad", 1: " good"}))
    assert hashes(make(rows(labels), dict(zip(keys, (" bad", " good"), strict=True)))) == expected


def test_labels_that_are_different_texts_are_not_the_same():
    with pytest.raises(
        TaskError,
        match="row 1 of the data: the label 007 has no answer; .* Quotes keep a label .* '007'",
    ):
        make(rows(("007", "42")), {7: " bad", 42: " good"})
    task = make(rows(("1", "1.0")), {"1": " one", "1.0": " one point"})
    assert {e.choice for part in task.splits.values() for e in part.examples} == {
        0,
        1,
    } and not task.notes


@pytest.mark.parametrize("label", ["", " "])
def test_an_empty_label_is_told_from_a_missing_one(label):
    for answers, kind in (({0: " bad", 1: " good"}, "label"), (None, "label")):
        if label == " " and answers:
            continue
        with pytest.raises(TaskError, match=f"^row 21 of the data: the field '{kind}' is empty"):
            make([*rows(), {"text": "x", "label": label}], answers)


def test_an_empty_label_may_have_an_answer():
    assert make(rows(("", "spam")), {"": " fine", "spam": " bad"}).choices == (" fine", " bad")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {0: "good", 1: " good"},
            "answers 'good' and ' good' for the labels 0 and 1 differ by spaces at most",
        ),
        ({0: "good", 1: "good "}, "differ by spaces at most"),
        ({0: "very good", 1: "very  good"}, "differ by spaces at most"),
        ({0: "good", 1: "good"}, "differ by spaces at most"),
        ({0: "bad", 1: " "}, "the answer for the label 1 is empty"),
        ({0: "bad", 1: ""}, "the answer for the label 1 is empty"),
        ({0: "bad", 1: None}, "under answers, .* has no value"),
        ({0: "bad", 1: "half \ud83d"}, "under answers, .* holds half a character"),
        ({1: "bad", "1": "good"}, "two answers are given for the label 1"),
        ({True: "bad", "true": "good"}, "two answers are given for the label true"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_refused_before_a_model_is_loaded(answers, message):
    with pytest.raises(TaskError, match=f"task 'task': .*{message}"):
        make(rows(), answers)


def test_a_study_file_gives_the_same_labels():
    task = {"data": {"path": "a.csv"}, "template": TEMPLATE, "label": "label", "splits": SIZES}

    def labels(answers):
        given = {
            "model": "m",
            "task": {**task, "answers": answers},
            "budget": 1,
            "strategies": ["random"],
        }
        return list(parse_config(given).tasks[0].answers)

    assert labels({True: "a", False: "b"}) == ["true", "false"]
    assert labels({1.0: "a", 2.5: "b", 3: "c", "007": "d"}) == ["1", "2.5", "3", "007"]
    with pytest.raises(StudyError, match="expected each label once: '1' stands twice"):
        labels({1: "a", "1": "b"})
    with pytest.raises(StudyError, match="a label that can stand in the data"):
        labels({float("nan"): "a"})


# One example a text.

LABELLED = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=6, max_size=20
).filter(lambda pairs: len({text for text, _ in pairs}) >= 3)


@settings(max_examples=50)
@given(LABELLED, st.randoms())
def test_the_order_of_rows_has_no_say_whatever_labels_differ(pairs, random):
    data = [{"text": f"t{text}", "label": label} for text, label in pairs]
    shuffled = random.sample(data, len(data))
    sizes = dict.fromkeys(SPLITS, 1)
    answers = {0: " bad", 1: " good", 2: " fair"}
    assert hashes(make(data, answers, splits=sizes)) == hashes(
        make(shuffled, answers, splits=sizes)
    )


def test_the_label_of_most_rows_is_kept_and_the_others_are_told():
    data = [*rows(), *({"text": "film 3", "label": 0} for _ in range(2))]
    task = make(data, {0: " bad", 1: " good"}, splits={**SIZES, "test": 8})
    found = {e.fields["text"]: e.answer for part in task.splits.values() for e in part.examples}
    assert len(found) == 20 and found["film 3"] == " bad"
    assert (
        task.notes[0]
        == "2 rows dropped whose text stands in another row (1 of them with another label)"
    )
    assert "1 text with different labels: the label of most rows is kept" in task.notes[1]
    assert "; such as 0 (row 21 of the data), not 1 (row 4 of the data)" in task.notes[1]


def test_what_is_read_in_another_spelling_is_told():
    assert make(rows((0.0, 1.0)), {0: " bad", 1: " good"}).notes == (
        "20 numbers in the field 'label' like 1.0, read as whole ones like 1",
    )
    assert make(rows(("False", "True")), {False: " bad", True: " good"}).notes == (
        "20 labels in another spelling than in 'answers': False, True",
    )
    texts = [{"text": "", "label": "a"}, *({"text": f"t{i}", "label": "b"} for i in range(20))]
    assert make(texts, None, aliases={"b": ["c"], "x": ["y"]}).notes == (
        "the field 'text' is empty in 1 row, such as row 1 of the data",
        "aliases without a row: of x",
    )


def test_what_was_dropped_stands_at_the_start_in_the_terminal_and_in_every_report(
    tiny, tmp_path, caplog
):
    data = [*rows(), *rows((1, 1))[:10]]
    task = make(data, {0: " bad", 1: " good"})
    note = "10 rows dropped whose text stands in another row (5 of them with another label)"
    study = {
        "name": "s",
        "budget": 3000,
        "length": 2,
        "score_on": 4,
        "seeds": 1,
        "strategies": [{"manual": {"label": "empty"}}],
    }
    with caplog.at_level(logging.WARNING):
        results = compare(study, out=tmp_path, model=tiny, task=task)
    assert f"task 'task': {note}" in caplog.text
    assert results.study.tasks["task"].notes == task.notes and note == task.notes[0]
    text = io.StringIO()
    print_report(results, Console(file=text, width=1000))
    pages = {name: (tmp_path / name).read_text("utf-8") for name in ("report.md", "report.html")}
    for page in (*pages.values(), text.getvalue()):
        assert note in page and "5 texts with different labels" in page


def test_a_file_of_pandas_with_gaps_is_the_task_of_one_without(tmp_path):
    table = pd.DataFrame([*rows(), {"text": "unlabelled", "label": None}])
    assert table.label.dtype == float
    whole = table.dropna()
    source = {
        "template": TEMPLATE,
        "label": "label",
        "answers": {0: " bad", 1: " good"},
        "splits": SIZES,
        "name": "films",
    }
    expected = hashes(make(rows(), source["answers"]))
    whole.to_csv(tmp_path / "a.csv", index=False)
    whole.to_parquet(tmp_path / "a.parquet")
    whole.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        assert hashes(Task.load({**source, "data": {"path": name}}, tmp_path)) == expected
    table.to_csv(tmp_path / "b.csv", index=False)
    table.to_parquet(tmp_path / "b.parquet")
    table.to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    for name, message in (
        ("b.csv", "^b.csv, line 22: the field 'label' is empty: expected one of 0, 1"),
        ("b.parquet", r"^b.parquet, row 21: the field 'label' has no value \((null|NaN)\)"),
        ("b.jsonl", r"^b.jsonl, line 21: the field 'label' has no value \(null\)"),
    ):
        with pytest.raises(TaskError, match=message):
            Task.load({**source, "data": {"path": name}}, tmp_path)


def test_splits_of_text_are_those_of_before(tmp_path):
    """Hashes of studies that exist: ordering and content of text have not changed."""
    data = [
        {"text": f"{a} {b}", "label": a} for a, b in itertools.product(["good", "bad"], range(20))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    source = {"data": {"path": "a.jsonl"}, "template": TEMPLATE, "label": "label", "splits": SIZES}
    assert hashes(Task.load(source, tmp_path)) == HASHES
    assert [Task.load("capitals").splits[name].hash for name in SPLITS] == CAPITALS


ROOT = Path(__file__).parents[2]

#: Study -> the folder of its file, from which its data are read.
FOLDERS = {
    yaml.safe_load(path.read_text("utf-8")).get("name"): path.parent
    for path in (ROOT / "examples").rglob("*.yaml")
}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "results").glob("*/study.json")), ids=lambda path: path.parent.name
)
def test_splits_of_the_reference_studies_are_those_of_before(path):
    study = load_study(path.parent)
    config = parse_config(study.settings, folder=FOLDERS.get(study.name, ROOT / "examples"))
    for task in load_tasks(config, entries_of(config)):
        expected = study.tasks[task.name].splits
        assert {name: split.hash for name, split in task.splits.items()} == {
            name: split.hash for name, split in expected.items()
        }


CAPITALS = ["c22693aa712c7eac9833", "c6e82abf357849749eca", "8ad96372ef7fa3920dd3"]
HASHES = ["7c61c0f2bfc7e0e470c5", "3db8ddf3c3418a89904b", "d6ff3501df5e86714ca2"]
