"""Tasks: disjoint splits locked to the content, answers, and what is refused."""

import json
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.errors import TaskError, TemplateError, UnknownName
from promptsearch.tasks.data import read_data
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import choice_rows
from promptsearch.tasks.task import SPLITS, Task

TEMPLATE = "{prompt} {text} It was {answer}"
SIZES = {"search": 4, "select": 2, "test": 3}


def rows(count=20):
    return [{"text": f"film {i}", "label": i % 2} for i in range(count)]


def make(data=None, **changes):
    given = {
        "template": TEMPLATE,
        "label": "label",
        "answers": {0: "bad", 1: "good"},
        "splits": SIZES,
        **changes,
    }
    return Task.from_rows(rows() if data is None else data, **given)


def test_no_text_stands_in_two_splits_and_sizes_hold():
    task = make(rows() + rows())
    texts = {name: {e.fields["text"] for e in task.splits[name].examples} for name in SPLITS}
    assert {name: len(t) for name, t in texts.items()} == SIZES
    assert (
        not texts["search"] & texts["select"]
        and not texts["select"] & texts["test"]
        and not texts["search"] & texts["test"]
    )
    assert "20 rows dropped" in task.notes[0]


@settings(max_examples=20)
@given(st.permutations(rows()))
def test_splits_depend_on_the_texts_not_on_the_order_of_the_file(shuffled):
    assert [make(shuffled).splits[n].hash for n in SPLITS] == [
        make().splits[n].hash for n in SPLITS
    ]


def test_a_changed_label_changes_the_hash():
    changed = [{**row, "label": 1 - row["label"]} for row in rows()]
    assert make(changed).splits["search"].hash != make().splits["search"].hash


def test_choices_carry_the_templates_space():
    task = make()
    assert (
        task.choices == (" bad", " good") and task.kind == "choices" and task.metric == "accuracy"
    )
    example = task.splits["search"].examples[0]
    assert example.answer == task.choices[example.choice]


def test_text_answers_have_aliases():
    data = [{"text": f"t{i}", "label": f"word{i}"} for i in range(9)]
    task = make(data, answers=None, aliases={"word3": ["third"]})
    found = next(e for n in SPLITS for e in task.splits[n].examples if e.answer == " word3")
    assert found.aliases == (" third",) and found.choice is None and task.metric == "exact_match"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": []}, "the data are empty"),
        (
            {"data": rows(5)},
            r"want 9 examples \(search: 4, select: 2, test: 3\), but the data hold 5",
        ),
        ({"data": [*rows(), {"text": "x"}]}, "row 21 of the data lacks the field 'label'"),
        (
            {"data": [*rows(), {"text": float("nan"), "label": 1}]},
            r"row 21 of the data: the field 'text' has no value \(NaN\)",
        ),
        (
            {"template": "{prompt} {body} {answer}"},
            "row 1 of the data lacks the field 'body'; it has text, label",
        ),
        (
            {"data": [*rows(), {"text": "x", "label": 2}]},
            "the label 2 has no answer; answers are given for 0, 1",
        ),
        ({"answers": {0: "bad"}}, "at least two answers"),
        ({"aliases": {"bad": ["awful"]}}, "aliases belong to text answers"),
        (
            {"splits": {"search": 4, "select": 0, "test": 3}},
            "'select' needs at least 1 example, got 0",
        ),
        ({"metric": "exact_match"}, "is for text answers"),
        ({"metric": "no_module:function"}, "cannot be loaded"),
        ({"data": pd.DataFrame(rows())}, r"row 1 of the data is 'text': .*df.to_dict\('records"),
        ({"data": [("a", 0)]}, r"row 1 of the data is \('a', 0\): expected a mapping of fields"),
        ({"data": ["a"]}, "row 1 of the data is 'a': expected a mapping of fields"),
        ({"data": [*rows(), None]}, "row 21 of the data is None: expected a mapping of fields"),
        ({"data": {"search": rows(), "test": None}}, "the test data are None: expected rows, each"),
        ({"answers": ["bad", "good"]}, r"answers are \['bad', 'good'\]: expected a mapping"),
        ({"answers": "label"}, "answers are 'label': expected a mapping of labels to answers, or"),
        ({"splits": [1, 2, 3]}, r"the splits are \[1, 2, 3\]: expected the number of examples of"),
        ({"answers": None, "decoding": {"tokens": "3"}}, "tokens to be a whole number, got '3'"),
        ({"answers": None, "decoding": 3}, "decoding is 3: expected a mapping"),
        ({"answers": None, "aliases": {"a": 5}}, "the aliases of a are 5: expected a text, or a"),
        ({"answers": None, "aliases": {"a": None}}, "the aliases of a are None: expected a text"),
        ({"answers": None, "aliases": ["a"]}, r"aliases are \['a'\]: expected"),
    ],
)
def test_wrong_tasks_are_named(changes, complaint):
    with pytest.raises(TaskError, match=complaint):
        make(**changes)


def test_unknown_names_are_answered_with_a_suggestion():
    with pytest.raises(UnknownName, match="Did you mean 'search'"):
        make(splits={"serch": 4, "select": 2, "test": 3})
    with pytest.raises(UnknownName, match="Did you mean 'accuracy'"):
        make(metric="acuracy")
    with pytest.raises(UnknownName, match="option of decoding 'token'. Did you mean 'tokens'"):
        make(answers=None, decoding={"token": 3})
    with pytest.raises(UnknownName, match="Did you mean 'capitals'"):
        Task.load("capitls")
    with pytest.raises(TemplateError):
        make(template="no slot")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_same_task_from_every_kind_of_file(tmp_path, kind):
    path = tmp_path / f"data.{kind}"
    table = pd.DataFrame(rows())
    if kind == "jsonl":
        path.write_text('{"canary": "x"}\n\n' + "".join(json.dumps(r) + "\n" for r in rows()))
    elif kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    given = {
        "data": {"path": path.name},
        "template": TEMPLATE,
        "label": "label",
        "answers": {0: "bad", 1: "good"},
        "splits": SIZES,
    }
    task = Task.load(given, tmp_path)
    assert task.name == "data" and [task.splits[n].hash for n in SPLITS] == [
        make().splits[n].hash for n in SPLITS
    ]


def test_a_metric_of_text_is_tried_on_the_right_answers_before_anything_is_scored():
    rows = [{"text": f"a {i}", "label": "b"} for i in range(9)]
    splits = {"search": 3, "select": 3, "test": 3}
    for asked in ({"metric": "slot_error"}, {"metrics": ["slot_error"]}):
        with pytest.raises(TaskError, match="slot_error.*'mr'"):
            Task.from_rows(
                rows, template="{prompt} {text}{answer}", label="label", splits=splits, **asked
            )
    # One that asks a model has none yet.
    judge = {"judge": {"question": "Is {output} right?"}}
    Task.from_rows(
        rows, template="{prompt} {text}{answer}", label="label", splits=splits, metrics=[judge]
    )
    assert list(make(metrics=[judge]).measures) == ["accuracy", "judge"]
    with pytest.raises(UnknownName, match="unknown field 'txt'. Did you mean 'text'"):
        make(metrics=[{"judge": {"question": "Is {output} right for {txt}?"}}])


def test_metrics_are_named_with_their_options_and_each_name_once():
    data = [{"text": f"t{i}", "label": f"word{i}"} for i in range(9)]
    loose = {"exact_match": {"lowercase": True}}
    task = make(data, answers=None, metric=loose, metrics=["prefix_match"])
    assert task.metric == "exact_match"
    assert [measure.signature for measure in task.measures.values()] == [
        "exact_match|case:lc|punct:yes|articles:yes",
        "prefix_match|case:mixed|punct:yes|articles:yes",
    ]
    with pytest.raises(TaskError, match="'exact_match' is asked for twice"):
        make(data, answers=None, metric=loose, metrics=["exact_match"])
    with pytest.raises(UnknownName, match="option of metric 'exact_match'.* 'lowercase'"):
        make(data, answers=None, metric={"exact_match": {"lower_case": True}})
    with pytest.raises(TaskError, match="is for choices answers"):
        make(data, answers=None, metrics=["f1"])
    with pytest.raises(TaskError, match="^metrics are 'token_f1': expected a list of them"):
        make(data, answers=None, metrics="token_f1")


def test_the_metric_of_a_study_may_be_one_that_the_task_reports_beside_its_own(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"t{i},w{i}\n" for i in range(9)))
    given = {"data": {"path": "a.csv"}, "template": TEMPLATE, "label": "label", "splits": SIZES}
    given["metrics"] = ["prefix_match", {"token_f1": {"lowercase": True}}, "bleu"]
    for metric, case in (("token_f1", "lc"), ({"token_f1": {"lowercase": False}}, "mixed")):
        task = Task.load(given, tmp_path, metric=metric)
        assert list(task.measures) == ["token_f1", "prefix_match", "bleu"]
        assert task.metric == "token_f1"
        assert f"case:{case}" in task.measures["token_f1"].signature
    with pytest.raises(TaskError, match="'bleu' is asked for twice"):
        Task.load({**given, "metric": "bleu"}, tmp_path)


def test_broken_files_are_named(tmp_path):
    given = {"template": TEMPLATE, "label": "label", "splits": SIZES}
    for data in ({}, None, {"path": None}, "a.csv", {"search": "a.csv"}):
        with pytest.raises(TaskError, match="the data are .*: expected {'path': FILE} or {'hub'"):
            Task.load({**given, "data": data}, tmp_path)
    with pytest.raises(TaskError, match="does not exist"):
        Task.load({**given, "data": {"path": "missing.jsonl"}}, tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": 1}\n{"text": \n')
    with pytest.raises(TaskError, match="line 2: this is not JSON"):
        Task.load({**given, "data": {"path": "a.jsonl"}}, tmp_path)
    (tmp_path / "b.jsonl").write_text("[1]\n")
    with pytest.raises(TaskError, match="line 1: expected an object"):
        Task.load({**given, "data": {"path": "b.jsonl"}}, tmp_path)
    (tmp_path / "c.xml").write_text("<a/>")
    with pytest.raises(TaskError, match="unknown kind"):
        Task.load({**given, "data": {"path": "c.xml"}}, tmp_path)


def test_a_saved_hub_data_set_loads_like_one_from_the_hub(tmp_path, monkeypatch):
    import datasets

    table = datasets.Dataset.from_list(rows())
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, **k: datasets.DatasetDict(train=table, test=table)
    )
    given = {
        "data": {"hub": "owner/films"},
        "template": TEMPLATE,
        "label": "label",
        "answers": {0: "bad", 1: "good"},
    }
    task = Task.load({**given, "splits": SIZES})
    assert task.name == "films" and "20 rows dropped" in task.notes[0]


def test_an_unreachable_hub_says_the_offline_way(monkeypatch):
    import datasets

    def refuse(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(TaskError, match="Offline, save it as JSONL"):
        Task.load(
            {
                "data": {"hub": "owner/films"},
                "template": TEMPLATE,
                "label": "label",
                "splits": SIZES,
            }
        )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"text": "caf\xe9", "label": 1}\n'),
        ("a.csv", b""),
        ("b.csv", b"text,label\ncaf\xe9,1\n"),
        ("c.csv", b'text,label\n"x,1\n'),
        ("a.parquet", b"no parquet"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=f"cannot read the data file .*{name}"):
        read_data({"path": name}, tmp_path)


def test_texts_of_a_csv_file_that_pandas_takes_for_missing_are_texts(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nNA,None\nnull,\n")
    assert read_data({"path": "a.csv"}, tmp_path) == [
        {"text": "NA", "label": "None"},
        {"text": "null", "label": ""},
    ]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("import sys; sys.exit(3)", "ends the program"),
        ("", "AttributeError"),
    ],
)
def test_a_metric_of_the_current_folder_is_found_and_a_broken_one_named(
    tmp_path, monkeypatch, code, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "whole_metric.py").write_text("def share(labels, predictions): return 0.5")
    assert find_metric("whole_metric:share").of(choice_rows([0], [1])) == 0.5
    (tmp_path / "broken_metric.py").write_text(code)
    with pytest.raises(
        TaskError, match=f"the metric 'broken_metric:share' cannot be loaded: .*{message}"
    ):
        find_metric("broken_metric:share")
