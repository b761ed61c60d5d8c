"""Answers: references and aliases, the label's own values, classes of the Hub, options of rows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.errors import TaskError
from promptsearch.tasks.answered import generated
from promptsearch.tasks.fields import ClassNumber, text_of
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.task import SPLITS, Task

TEMPLATE = "{prompt} {text} is {answer}"
ONE_EACH = dict.fromkeys(SPLITS, 1)


def make(rows, **changes):
    given = {"template": TEMPLATE, "label": "label", "splits": ONE_EACH, **changes}
    return Task.from_rows(rows, **given)


def by_text(task):
    return {e.fields["text"]: e for part in task.splits.values() for e in part.examples}


def three(label, **more):
    """Three rows, of which the first has the label."""
    rows = [{"text": "a", "label": label, **more}]
    return rows + [{"text": text, "label": ["x", "y"], **more} for text in "bc"]


# References.


def test_a_list_of_texts_are_references():
    example = by_text(make(three(["one", "two", "one", "three"])))["a"]
    assert example.references == (" one", " two", " three") and example.aliases == ()
    assert example.answer == " one" and example.also == (" two", " three")


def test_an_alias_that_is_a_text_is_one():
    task = make(three("Kyiv"), aliases={"Kyiv": "Kiev"})
    assert by_text(task)["a"].aliases == (" Kiev",)


def test_references_beyond_the_first_ones_count_as_aliases():
    task = make(three(["one", "two", "three"]), references=1, aliases={"two": ["2"]})
    example = by_text(task)["a"]
    assert example.references == (" one",) and example.aliases == (" two", " three", " 2")


@pytest.mark.parametrize("name", ["exact_match", "token_f1", "bleu", "chrf", "coco_rouge_l"])
def test_metrics_know_every_right_answer_whatever_counts_in_the_loss(name):
    rows = three(["a cat sat there", "some dogs ran away"], also=["all birds sang loudly"])
    task = make(rows, references=1, aliases={"field": "also"})
    example, metric = by_text(task)["a"], find_metric(name)
    best = metric.of(generated([example], [example.answer]))
    assert len(example.right) == 3 and len(example.references) == 1
    for text in example.right:
        assert metric.of(generated([example], [text])) == pytest.approx(best)


def test_a_text_is_one_reference_in_every_form():
    rows = [{"text": str(i), "label": f"l{i}"} for i in range(3)]
    lists = [{**row, "label": [row["label"]]} for row in rows]
    arrays = [{**row, "label": np.array([row["label"]])} for row in rows]
    expected = [make(rows).splits[name].hash for name in SPLITS]
    for same in (lists, arrays):
        assert [make(same).splits[name].hash for name in SPLITS] == expected


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ([], "is an empty list: expected at least 1 text"),
        (np.array([]), "is an empty list"),
        (["one", " "], "lists an empty text"),
        ({"text": "one"}, "is a mapping: .* FIELD.KEY"),
        (None, "has no value"),
    ],
    ids=["empty", "empty-array", "blank", "mapping", "null"],
)
def test_a_label_that_is_no_text_is_refused_with_its_row(label, reason):
    with pytest.raises(TaskError, match=f"^row 1 of the data: the field 'label' {reason}"):
        make(three(label))


@pytest.mark.parametrize("item", [5, None, ["one"], {"text": "one"}, True], ids=str)
def test_a_list_of_others_than_texts_is_refused_with_its_row(item):
    with pytest.raises(
        TaskError, match="^row 1 of the data: number 2 in the list 'label' is no text: "
    ):
        make(three(["one", item]))
    with pytest.raises(TaskError, match=r"number 1 in the list 'label' holds half a character"):
        make(three(["\ud83d"]))


def test_numbers_become_texts_but_not_in_silence():
    rows = [{"text": t, "label": i + 26} for i, t in enumerate("abc")]
    (note,) = make(rows).notes
    assert "holds no text in 3 rows, but numbers" in note and "26 (row 1 of the data)" in note
    assert make([{**row, "label": str(row["label"])} for row in rows]).notes == ()


def test_references_of_rows_with_one_text_are_joined():
    rows = [*three(["two", "one"]), {"text": "a", "label": ["one"]}]
    task = make([*rows, {"text": "a", "label": ["one"]}])
    assert by_text(task)["a"].references == (" one", " two")
    assert "2 rows joined with another row of the same text" in task.notes[0]


def test_choices_have_neither_references_nor_aliases():
    choices = {"x": "ex", "y": "why"}
    with pytest.raises(TaskError, match="references belong to text answers"):
        make(three("x"), answers=choices, references=1)
    with pytest.raises(TaskError, match="the field 'label' is a list"):
        make(three("x"), answers=choices)
    with pytest.raises(TaskError, match="at least 1 of the references"):
        make(three("x"), references=0)


# Aliases of rows.


def test_a_field_holds_aliases_of_its_row():
    rows = [
        {"text": "a", "label": "one", "more": ["1", "uno"]},
        {"text": "b", "label": ["two", "deux"], "more": None},
        {"text": "c", "label": "three", "more": "3"},
        {"text": "d", "label": "four", "more": []},
    ]
    task = make(rows, aliases={"field": "more"}, splits={**ONE_EACH, "test": 2})
    found = {text: example.aliases for text, example in by_text(task).items()}
    assert found == {"a": (" 1", " uno"), "b": (), "c": (" 3",), "d": ()}
    with pytest.raises(TaskError, match="row 1 of the data lacks the field 'other'"):
        make(rows, aliases={"field": "other"})


@pytest.mark.parametrize(
    "missing", [np.nan, np.float32("nan"), pd.NA, pd.NaT, np.array([], dtype=object), ()], ids=repr
)
def test_what_pandas_writes_where_nothing_is_holds_no_alias(missing):
    rows = [{**row, "also": missing} for row in three("one")[1:]]
    task = make([*three("one", also="uno")[:1], *rows], aliases={"field": "also"})
    assert {text: example.aliases for text, example in by_text(task).items()} == {
        "a": (" uno",),
        "b": (),
        "c": (),
    }


@pytest.mark.parametrize("template", [TEMPLATE, "{prompt} {text} is{answer}"])
def test_an_empty_cell_holds_no_alias(tmp_path, template):
    cells = ["a,one,uno", "b,two,", "c,three,  "]
    (tmp_path / "a.csv").write_text("\n".join(["text,label,also", *cells]))
    given = {"template": template, "label": "label", "aliases": {"field": "also"}}
    task = Task.load({**given, "data": {"path": "a.csv"}, "splits": ONE_EACH}, tmp_path)
    space = " " if " {answer}" in template else ""
    assert {t: e.aliases for t, e in by_text(task).items()} == {
        "a": (space + "uno",)
    } | dict.fromkeys("bc", ())


def test_empty_aliases_that_are_written_down_are_refused():
    with pytest.raises(TaskError, match="^row 1 of the data: the field 'also' lists an empty text"):
        make(three("one", also=["uno", " "]), aliases={"field": "also"})
    with pytest.raises(TaskError, match="an alias of one is empty"):
        make(three("one"), aliases={"one": ["uno", ""]})
    with pytest.raises(TaskError, match="an alias of one is empty"):
        make(three("one"), aliases={"one": " "})


def test_a_mapping_may_be_about_an_answer_called_field():
    task = make(three("field"), aliases={"field": ["meadow"]})
    assert by_text(task)["a"].aliases == (" meadow",)


# The label's own values.


def test_the_labels_own_values_are_the_choices():
    rows = [{"text": str(i), "label": label} for i, label in enumerate(["b", "10", "9", "a", 9])]
    task = make(rows, answers="labels")
    assert task.choices == (" 9", " 10", " a", " b") and task.kind == "choices"
    assert task.metric == "accuracy"
    assert task.notes[0] == "the answers are the 4 values of the field 'label': 9, 10, a, b"
    same = make(rows, answers={text: text for text in ("9", "10", "a", "b")})
    assert [task.splits[n].hash for n in SPLITS] == [same.splits[n].hash for n in SPLITS]


def test_too_many_values_of_a_label_are_refused_with_the_list():
    rows = [{"text": str(i), "label": f"l{i}"} for i in range(65)]
    with pytest.raises(
        TaskError, match="has 65 values: expected at most 64 .* l0, l1, .*65 in all"
    ):
        make(rows, answers="labels")
    assert len(make(rows[:64], answers="labels").choices) == 64
    with pytest.raises(TaskError, match="at least two answers"):
        make([{**row, "label": "x"} for row in rows], answers="labels")
    with pytest.raises(TaskError, match="^row 1 of the data: the field 'label' is empty"):
        make([{"text": "x", "label": ""}, *rows[:3]], answers="labels")


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("True", "TRUE"), (True, "True")])
def test_one_value_of_a_label_in_two_spellings_is_refused(one, other):
    rows = [{"text": str(i), "label": label} for i, label in enumerate([one, other, "x"])]
    with pytest.raises(TaskError, match="'label' has one value in two spellings, ") as refused:
        make(rows, answers="labels")
    assert all(text_of(label) in str(refused.value) for label in (one, other))
    mapped = by_text(make(rows, answers={text_of(one): "yes", "x": "no"}))
    assert [mapped[text].answer for text in "012"] == [" yes", " yes", " no"]


# Classes of the Hub.

NAMES = ("negative", "positive")


def classes(names=NAMES):
    return [
        {"text": str(i), "label": ClassNumber(i % len(names), names)} for i in range(3 * len(names))
    ]


def test_a_class_has_its_name():
    assert text_of(ClassNumber(1, NAMES)) == "positive"
    assert make(classes(), answers="labels").choices == (" negative", " positive")
    assert {e.answer for e in by_text(make(classes())).values()} <= {" negative", " positive"}


def test_answers_are_given_for_names_or_numbers_of_classes():
    by_number = make(classes(), answers={0: "bad", 1: "good"})
    by_name = make(classes(), answers={"negative": "bad", "positive": "good"})
    plain = [{**row, "label": int(row["label"])} for row in classes()]
    plain = make(plain, answers={0: "bad", 1: "good"})
    for task in (by_number, by_name):
        assert [task.splits[n].hash for n in SPLITS] == [plain.splits[n].hash for n in SPLITS]
        assert task.notes == ()
    with pytest.raises(TaskError, match="label neutral of 'answers' is no class .*0: negative"):
        make(classes(), answers={"neutral": "x", "positive": "y"})


def test_names_that_are_numbers_are_told_from_numbers():
    stars = classes(("1", "2", "3"))
    names = make(stars, answers={"1": "one", "2": "two", "3": "three"})
    found = by_text(make(stars, answers={0: "one", 1: "two", 2: "three"}))
    assert all(example.choice == int(text) % 3 for text, example in found.items())
    assert all(example.choice == int(text) % 3 for text, example in by_text(names).items())


def test_names_of_classes_come_before_their_numbers():
    stars = classes(("1", "2", "3"))
    rows = [row for row in stars if row["label"] != 2]  # no row has the last class, called 3
    found = by_text(make(rows, answers={1: "one", 2: "two"}, splits={**ONE_EACH, "test": 4}))
    assert all(example.answer == [" one", " two"][int(text) % 3] for text, example in found.items())


def test_numbers_of_classes_in_two_orders_are_refused():
    turned = [{**row, "text": f"t{row['text']}"} for row in classes(NAMES[::-1])]
    data = {"search": classes(), "select": [{"text": "x", "label": 1}], "test": turned}
    told = r"orders \(0: negative, 1: positive; and 0: positive, 1: negative\): .* by the names"
    with pytest.raises(TaskError, match=told):
        make(data, splits=None, answers={0: "bad", 1: "good"})
    data["select"] = [{"text": "x", "label": "positive"}]
    task = make(data, splits=None, answers={"negative": "bad", "positive": "good"})
    assert by_text(task)["t0"].answer == " good" and by_text(task)["0"].answer == " bad"


def test_classes_of_a_data_set_are_read_with_their_names(tmp_path, monkeypatch):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(NAMES))}
    )
    rows = [{"text": str(i), "label": i % 2} for i in range(6)]
    part = datasets.Dataset.from_list(rows, features=features)
    source = {"template": TEMPLATE, "label": "label", "splits": ONE_EACH, "answers": "labels"}
    expected = make(classes(), answers="labels")
    part.to_parquet(tmp_path / "a.parquet")
    part.save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.rename(tmp_path / "a.arrow")
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: {"train": part})
    for data in ({"hub": "owner/name"}, {"path": "a.parquet"}, {"path": "a.arrow"}):
        task = Task.load({**source, "data": data}, tmp_path)
        assert task.choices == (" negative", " positive")
        assert [task.splits[n].hash for n in SPLITS] == [expected.splits[n].hash for n in SPLITS]


def test_a_class_below_zero_is_a_missing_label(monkeypatch):
    import datasets

    features = datasets.Features({"label": datasets.ClassLabel(names=list(NAMES))})
    part = datasets.Dataset.from_list([{"label": -1}], features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: {"test": part})
    source = {"template": "{prompt} {answer}", "label": "label", "splits": ONE_EACH}
    with pytest.raises(TaskError, match="split test, row 1: the field 'label' has no value"):
        Task.load({**source, "data": {"hub": "owner/name"}, "answers": "labels"})


# Options of rows.

OPTIONS = ["red", "green", "a dark blue"]


def asked(label, options=OPTIONS):
    rows = [{"text": str(i), "label": i % 3, "options": OPTIONS} for i in range(3)]
    return [*rows, {"text": "x", "label": label, "options": options}]


def options(rows, **changes):
    sizes = {**ONE_EACH, "test": len(rows) - 2}
    return make(rows, answers={"field": "options"}, splits=sizes, **changes)


@pytest.mark.parametrize("label", [2, 2.0, np.int64(2), "a dark blue", " a  dark blue"], ids=repr)
def test_the_right_option_is_given_by_place_or_by_text(label):
    task = options(asked(label))
    example = by_text(task)["x"]
    assert example.choice == 2 and example.answer == " a dark blue"
    assert example.options == (" red", " green", " a dark blue")
    assert task.choices is None and task.options_by_row and task.kind == "choices"
    assert task.metric == "accuracy"


def test_digits_are_places_where_they_are_no_options():
    rows = [{"text": str(i), "label": str(i % 3), "options": OPTIONS} for i in range(6)]
    assert all(e.choice == int(text) % 3 for text, e in by_text(options(rows)).items())
    sums = [{"text": str(i), "label": str(i % 3), "options": ["2", "1", "0"]} for i in range(6)]
    assert all(e.choice == 2 - int(text) % 3 for text, e in by_text(options(sums)).items())


def test_whole_numbers_that_could_be_places_or_texts_are_refused():
    rows = [{"text": str(i), "label": i % 3, "options": ["0", "2", "1"]} for i in range(6)]
    told = r"^row 2 of the data: the label 1 could be a place or a text of .*'options' \(0, 2, 1\)"
    with pytest.raises(TaskError, match=told):
        options(rows)
    same = [{**row, "options": ["0", "1", "2"]} for row in rows]  # either reading says one thing
    other = [*rows, {"text": "x", "label": 1, "options": ["5", "6"]}]  # only places fit all
    for some in (same, other):
        found = by_text(options(some))
        assert all(found[row["text"]].choice == row["label"] for row in some)


NAMED = [
    {"text": str(i), "label": "CBA"[i % 3], "of": {"text": OPTIONS, "name": ["C", "B", "A"]}}
    for i in range(6)
]


def test_a_label_may_be_a_name_that_the_row_gives_to_an_option():
    given = {"answers": {"field": "of.text", "names": "of.name"}}
    digits = [*NAMED, {"text": "x", "label": 2, "of": {"text": OPTIONS, "name": ["1", "2", "3"]}}]
    task = make(digits, splits={**ONE_EACH, "test": 5}, **given)
    found = by_text(task)
    assert task.options == "of.text" and found["x"].answer == " green"
    assert all(found[row["text"]].choice == int(row["text"]) % 3 for row in NAMED)


@pytest.mark.parametrize(
    ("label", "names", "reason"),
    [
        ("D", ["A", "B", "C"], r"the label D is not among the names .* 'of.name' \(A, B, C\)"),
        ("A", ["A", "B", "A"], "the label A is twice among the names"),
        ("A", ["A", "B"], "the field 'of.name' lists 2 names, and 'of.text' 3 answers: expected a"),
        ("A", None, "the field 'of.name' has no value"),
    ],
)
def test_wrong_names_of_options_are_named_with_their_row(label, names, reason):
    rows = [*NAMED, {"text": "x", "label": label, "of": {"text": OPTIONS, "name": names}}]
    with pytest.raises(TaskError, match=f"^row 7 of the data: {reason}"):
        make(rows, answers={"field": "of.text", "names": "of.name"})


@pytest.mark.parametrize(
    ("label", "given", "reason"),
    [
        (3, OPTIONS, "the label 3 is no place among the row's 3 answers .* expected 0 to 2"),
        (-1, OPTIONS, "the label -1 is no place"),
        (10**400, OPTIONS, r"the label 10{56}\.\.\. is no place"),
        ("9" * 5000, OPTIONS, "the label 9{57}... is none of the row's answers"),
        ("blue", OPTIONS, "the label blue is none of the row's answers .*red, green"),
        ("", OPTIONS, "the field 'label' is empty"),
        (True, OPTIONS, "the label true is none"),
        (0, ["red"], "the field 'options' has 1 answer: expected a list of at least 2"),
        (0, "red", "the field 'options' has 1 answer"),
        (0, [], "the field 'options' is an empty list"),
        (0, ["red", " red "], "the field 'options' lists red twice"),
        (0, ["red", ""], "the field 'options' lists an empty answer"),
        (0, ["red", 5], "number 2 in the list 'options' is no text: 5"),
        (0, None, "the field 'options' has no value"),
    ],
    ids=range(14),
)
def test_wrong_options_are_named_with_their_row(label, given, reason):
    with pytest.raises(TaskError, match=f"^row 4 of the data: {reason}"):
        options(asked(label, given))


def test_a_text_with_other_options_is_another_question():
    rows = [{"text": "x", "label": 0, "options": [f"{i}", "right"]} for i in range(4)]
    task = options([*rows, {"text": "x", "label": 1, "options": ["right", "3"]}][:4])
    assert sum(len(part) for part in task.splits.values()) == 4
    again = {"text": "x", "label": 1, "options": ["right", "3"]}
    task = make([*rows, again], answers={"field": "options"}, splits={**ONE_EACH, "test": 2})
    assert "1 rows dropped whose text stands in another row (0 of them" in task.notes[0]


def test_metrics_of_classes_are_refused_where_rows_have_options():
    with pytest.raises(TaskError, match="the metric 'f1' is about classes"):
        options(asked(0), metric="f1")


def test_normalisation_is_for_choices_and_known():
    assert options(asked(0), normalise="bytes").normalise == "bytes"
    with pytest.raises(TaskError, match="'normalise' compares answers to choose from"):
        make(three("x"), normalise="bytes")
    with pytest.raises(Exception, match="Did you mean 'bytes'"):
        options(asked(0), normalise="byte")


# Whatever a label holds.

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda some: (
        st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=2), some, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=200)
@given(VALUES, st.sampled_from([None, "labels", {"field": "options"}, {"x": "one", "y": "two"}]))
def test_no_label_ends_in_a_traceback_and_no_list_becomes_a_text(label, answers):
    rows = [{"text": str(i), "label": "x", "options": ["x", "y"]} for i in range(3)] + [
        {"text": "last", "label": label, "options": ["x", "y"]}
    ]
    try:
        task = make(rows, answers=answers, splits={**ONE_EACH, "test": 2})
    except TaskError as error:
        assert "label" in str(error) or "answers" in str(error)
        return
    example = by_text(task).get("last")
    if example is None:
        return
    if isinstance(label, list):
        assert answers is None
        assert list(example.references) == [f" {text}" for text in dict.fromkeys(label)]
    else:
        assert not isinstance(label, dict)


def test_pandas_and_json_lists_are_the_same(tmp_path):
    rows = [{"text": str(i), "label": [f"l{i}", "x"]} for i in range(4)]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    source = {"template": TEMPLATE, "label": "label", "splits": ONE_EACH, "name": "t"}
    tasks = [
        Task.load({**source, "data": {"path": name}}, tmp_path) for name in ("a.parquet", "a.json")
    ]
    one, other = ([task.splits[n].hash for n in SPLITS] for task in tasks)
    assert one == other


def test_text_answers_to_the_same_text_are_references_of_one_example_in_any_order_of_rows():
    rows = [{"text": f"the {i}", "label": "one"} for i in range(12)]
    rows += [{"text": "the 3", "label": text} for text in ("two", "two", "three", "one")]

    def example(some, **more):
        sizes = {"search": 4, "select": 4, "test": 4}
        task = Task.from_rows(
            some, template="{prompt} {text}: {answer}", label="label", splits=sizes, **more
        )
        assert (
            "4 rows joined with another row of the same text: 1 text with several"
            in (task.notes[0])
        )
        (found,) = (
            e for s in task.splits.values() for e in s.examples if e.fields["text"] == "the 3"
        )
        return found

    found = example(rows)
    # The two answers of two rows come first, a hash says which.
    assert set(found.references[:2]) == {" one", " two"}
    assert found.references[2:] == (" three",)
    assert example(rows[::-1]) == found
    first = example(rows, references=1)
    assert (first.references, set(first.aliases)) == (
        found.references[:1],
        set(found.references[1:]),
    )


def test_an_official_test_split_has_an_example_for_each_text_and_all_its_answers():
    def rows(name):
        return [{"text": f"{name} {i // 2}", "label": f"answer {i}"} for i in range(8)]

    task = Task.from_rows(
        {"search": rows("a"), "test": rows("b")},
        template="{prompt} {text}: {answer}",
        label="label",
        splits={"search": 2, "select": 2},
    )
    assert len(task.splits["test"]) == 4
    assert all(len(example.references) == 2 for example in task.splits["test"].examples)
