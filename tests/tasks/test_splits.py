"""Splits: official ones, what is drawn, groups, classes, draws of seeds, filters and families."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptsearch.errors import PromptSearchError, TaskError, UnknownName
from promptsearch.tasks.task import SPLITS, Task

TEMPLATE = "{prompt} {text} is {answer}"


def rows(count, first=0, **more):
    return [{"text": f"t{i}", "label": f"l{i % 3}", **more} for i in range(first, first + count)]


def make(data, sizes=None, **changes):
    given = {"template": TEMPLATE, "label": "label", "splits": sizes, **changes}
    return Task.from_rows(data, **given)


def texts(task):
    return {n: [e.fields["text"] for e in task.splits[n].examples] for n in SPLITS}


def hashes(task):
    return [task.splits[n].hash for n in SPLITS]


# Official splits.


def test_each_split_takes_its_own_rows():
    data = {"search": rows(10), "select": rows(5, 10), "test": rows(7, 20)}
    task = make(data)
    assert {n: set(t) for n, t in texts(task).items()} == {
        n: {row["text"] for row in some} for n, some in data.items()
    }
    assert task.notes == ()


def test_what_is_missing_is_drawn_from_the_search_rows():
    task = make({"search": rows(20), "test": rows(5, 50)}, {"select": 6})
    found = texts(task)
    assert len(found["search"]) == 14 and len(found["select"]) == 6
    assert set(found["search"]) | set(found["select"]) == {f"t{i}" for i in range(20)}
    assert "select drawn from the search data, by a hash of texts" in task.notes
    drawn = make({"search": rows(20)}, {"search": 5, "select": 6, "test": 7})
    plain = make(rows(20), {"search": 5, "select": 6, "test": 7})
    assert hashes(drawn) == hashes(plain)
    both = make({"select": rows(20), "test": rows(5, 50)}, {"search": 5})
    assert "search drawn from the select data, by a hash of texts" in both.notes


def test_nothing_is_drawn_from_an_official_test_split():
    with pytest.raises(TaskError, match="a source for test alone"):
        make({"test": rows(20)}, {"search": 5, "select": 5})


def test_a_split_may_be_smaller_than_its_rows():
    data = {"search": rows(10), "select": rows(5, 10), "test": rows(9, 20)}
    task = make(data, {"test": 4})
    assert len(task.splits["test"]) == 4 and len(task.splits["search"]) == 10
    assert set(texts(task)["test"]) <= {f"t{i}" for i in range(20, 29)}
    assert task.notes == ("test has 4 of the 9 examples of its data, picked by a hash of texts",)
    with pytest.raises(TaskError, match=r"want 10 examples \(test: 10\), but the test data hold 9"):
        make(data, {"test": 10})


def test_overlap_is_dropped_from_search_and_select_never_from_test():
    data = {"search": rows(10), "select": rows(6, 8), "test": rows(5, 12)}
    task = make(data)
    found = texts(task)
    assert set(found["test"]) == {f"t{i}" for i in range(12, 17)}
    assert set(found["select"]) == {f"t{i}" for i in range(8, 12)}
    assert set(found["search"]) == {f"t{i}" for i in range(8)}
    assert task.notes == (
        "2 examples of select dropped whose text stands in test",
        "2 examples of search dropped whose text stands in select",
    )
    with pytest.raises(TaskError, match="nothing is left of the search data: .* the test data"):
        make({"search": rows(5), "select": rows(5, 10), "test": rows(5)})


def test_an_official_test_split_keeps_rows_of_the_same_text():
    again = [*rows(4, 20), *rows(1, 20), {"text": "t20", "label": "other"}]
    data = {"search": rows(8), "select": [*rows(3, 10), *rows(3, 10)], "test": again}
    task = make(data, answers="labels")
    assert Counter(texts(task)["test"])["t20"] == 3 and len(task.splits["select"]) == 3
    assert any(note.startswith("test: 2 rows with the text of another one") for note in task.notes)
    assert any(note.startswith("select: 3 rows dropped") for note in task.notes)
    assert hashes(make({**data, "test": again[::-1]}, answers="labels")) == hashes(task)


def test_a_split_that_is_named_and_absent_is_refused(tmp_path):
    with pytest.raises(TaskError, match="the select data are empty"):
        make({"search": rows(4), "select": []})
    with pytest.raises(UnknownName, match="Did you mean 'select'"):
        make({"search": rows(4), "selct": rows(4)})
    with pytest.raises(TaskError, match="'select' needs at least 1 example, got 0"):
        make({"search": rows(4)}, {"search": 2, "test": 1})


SIZE = st.integers(1, 4)


@settings(max_examples=80)
@given(
    st.dictionaries(st.sampled_from(SPLITS), st.lists(st.integers(0, 30), min_size=1, max_size=12)),
    st.dictionaries(st.sampled_from(SPLITS), SIZE),
    st.randoms(),
)
def test_splits_share_no_text_and_the_order_of_rows_has_no_say(numbers, sizes, random):
    data = {
        n: [{"text": f"t{i}", "label": f"l{i % 2}"} for i in some] for n, some in numbers.items()
    }
    assume(data)
    try:
        task = make(data, sizes)
    except PromptSearchError:
        return
    found = {n: set(some) for n, some in texts(task).items()}
    assert not found["search"] & found["select"]
    assert not (found["search"] | found["select"]) & found["test"]
    assert all(len(task.splits[n]) == size for n, size in sizes.items())
    if "test" in data and "test" not in sizes:
        assert set(texts(task)["test"]) == {row["text"] for row in data["test"]}
    shuffled = {n: random.sample(some, len(some)) for n, some in data.items()}
    assert hashes(make(shuffled, sizes)) == hashes(task)


# Sources of a study file.


def written(folder, name, data):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in data))
    return {"path": name}


def load(folder, data, **changes):
    source = {"template": TEMPLATE, "label": "label", "data": data, **changes}
    return Task.load(source, folder)


def test_a_source_for_each_split_or_a_column_that_says_it(tmp_path):
    parts = {"search": rows(10), "select": rows(5, 10), "test": rows(7, 20)}
    apart = load(tmp_path, {n: written(tmp_path, f"{n}.jsonl", p) for n, p in parts.items()})
    assert apart.name == "search"
    marks = {"search": "train", "select": "dev", "test": "test"}
    together = [{**row, "set": marks[n]} for n, part in parts.items() for row in part]
    file = written(tmp_path, "all.jsonl", [*together, {"text": "x", "label": "y", "set": "other"}])
    columns = load(tmp_path, {**file, "column": "set", **marks})
    assert hashes(columns) == hashes(apart) == hashes(make(parts))
    assert columns.notes == ("1 rows left out whose 'set' is other, which no split names",)
    some = load(
        tmp_path,
        {**file, "column": "set", "search": ["train", "dev"], "test": "test"},
        splits={"select": 3},
    )
    assert len(some.splits["search"]) == 12 and len(some.splits["test"]) == 7


@pytest.mark.parametrize("row", [{"set": None}, {}], ids=["null", "absent"])
def test_a_row_without_a_value_in_the_column_is_left_out_and_told(tmp_path, row):
    some = [{"set": name, **each} for name, each in zip(["a", "b"] * 3, rows(6), strict=True)]
    file = written(tmp_path, "all.jsonl", [*some, {**row, "text": "t9", "label": "l0"}])
    data = {**file, "column": "set", "search": "a", "test": "b"}
    task = load(tmp_path, data, splits={"select": 1})
    assert "1 row left out without a value of 'set'" in task.notes
    assert "t9" not in {text for part in texts(task).values() for text in part}


def test_splits_of_the_hub(monkeypatch):
    import datasets

    parts = {"train": rows(10), "test": rows(5, 20)}
    asked = []

    def loaded(hub, config, revision, split):
        asked.append((hub, config, revision, split))
        return datasets.Dataset.from_list(parts[split])

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    hub = {"hub": "owner/films", "config": "en", "revision": "v1"}
    data = {"search": {**hub, "split": "train"}, "test": {**hub, "split": "test"}}
    task = load(None, data, splits={"select": 3})
    assert task.name == "films" and len(task.splits["search"]) == 7
    assert asked == [("owner/films", "en", "v1", "train"), ("owner/films", "en", "v1", "test")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"column": "sett", "search": "a"}, "unknown field 'sett'. Did you mean 'set'"),
        ({"column": "set", "search": "traim"}, "value of the field 'set' 'traim'. .*'train'"),
        ({"column": "set"}, "names the column 'set' and no value in it"),
        ({"column": "set", "search": "train", "test": ["dev", "train"]}, "expected one split"),
    ],
    ids=["field", "value", "none", "twice"],
)
def test_wrong_columns_are_named(tmp_path, data, message):
    file = written(tmp_path, "a.jsonl", [*rows(5, set="train"), *rows(5, 5, set="dev")])
    with pytest.raises(PromptSearchError, match=message):
        load(tmp_path, {**file, **data}, splits=dict.fromkeys(SPLITS, 1))


# Groups.


def grouped(sizes):
    return [
        {"text": f"g{g}-{i}", "label": "x", "author": f"a{g}"}
        for g, size in enumerate(sizes)
        for i in range(size)
    ]


def authors(task):
    return {n: {e.group for e in task.splits[n].examples} for n in SPLITS}


def test_a_group_stays_in_one_split():
    task = make(grouped([3] * 20), {"search": 30, "select": 9, "test": 12}, group="author")
    found = authors(task)
    assert [len(found[n]) for n in SPLITS] == [10, 3, 4]
    assert sum(map(len, found.values())) == len(set().union(*found.values()))
    assert task.notes == ()


def test_a_size_that_no_whole_groups_make_is_told():
    task = make(grouped([3] * 20), {"search": 10, "select": 9, "test": 12}, group="author")
    assert len(task.splits["search"]) == 9
    assert task.notes == ("search has 9 of 10 examples: no other group fits in whole",)


def test_a_group_that_is_larger_than_any_split_is_refused_with_its_size():
    with pytest.raises(TaskError, match="the group a0 has 13 examples, more than any split"):
        make(grouped([13, *[1] * 40]), {"search": 12, "select": 9, "test": 12}, group="author")
    with pytest.raises(TaskError, match="^row 2 of the data: the field 'author' is empty"):
        some = [*grouped([1]), {"text": "x", "label": "y", "author": ""}]
        make(some, dict.fromkeys(SPLITS, 1), group="author")


def test_groups_of_an_official_test_split_are_dropped_elsewhere():
    data = {"search": grouped([2] * 8), "test": [{"text": "z", "label": "x", "author": "a0"}]}
    task = make(data, {"select": 4}, group="author")
    found = authors(task)
    assert found["test"] == {"a0"} and "a0" not in found["search"] | found["select"]
    assert task.notes[0] == "2 examples of search dropped whose text or group stands in test"


@settings(max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=6, max_size=20), SIZE, SIZE, SIZE, st.randoms())
def test_groups_are_disjoint_and_the_order_of_rows_has_no_say(sizes, one, two, three, random):
    data = grouped(sizes)
    wanted = dict(zip(SPLITS, (one, two, three), strict=True))
    try:
        task = make(data, wanted, group="author")
    except TaskError:
        return
    found = authors(task)
    assert sum(map(len, found.values())) == len(set().union(*found.values()))
    for name in SPLITS:
        told = any(note.startswith(f"{name} has") for note in task.notes)
        assert (len(task.splits[name]) < wanted[name]) == told
        count = Counter(e.group for e in task.splits[name].examples)
        assert all(sizes[int(group[1:])] == number for group, number in count.items())
    assert hashes(make(random.sample(data, len(data)), wanted, group="author")) == hashes(task)


# Few examples of each class.

CHOICES = {"answers": {"l0": "zero", "l1": "one", "l2": "two"}}


def test_a_split_may_have_as_many_of_each_class():
    sizes = {"search": {"per_class": 4}, "select": {"per_class": 2}, "test": 10}
    task = make(rows(60), sizes, **CHOICES)
    for name, number in (("search", 4), ("select", 2)):
        count = Counter(e.answer for e in task.splits[name].examples)
        assert count == dict.fromkeys((" zero", " one", " two"), number)
    assert len(task.splits["test"]) == 10
    first = [e.choice for e in task.splits["search"].examples]
    assert first != sorted(first)  # classes are mixed, as every prompt is scored on the first ones


@pytest.mark.parametrize("size", [2.9, True, "2", {"per_class": 1.5}])
def test_a_size_that_is_no_whole_number_is_refused(size):
    with pytest.raises(TaskError, match=r"the size of 'search' is .*expected a whole number"):
        make(rows(60), {"search": size, "select": 2, "test": 2}, **CHOICES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sizes": {"search": {"per_class": 15}, "select": {"per_class": 6}, "test": 1}},
            "hold 20 examples of the class zero, but search and select want 21 of each class",
        ),
        ({"answers": None}, "'per_class' counts the examples of each answer to choose from"),
        ({"group": "label"}, "'per_class' and 'group' cannot both be met"),
        (
            {"sizes": {"search": {"perclass": 1}, "select": 1, "test": 1}},
            "the size of 'search' is .*expected a number of examples, or {per_class: NUMBER}",
        ),
        (
            {"sizes": {"search": {"per_class": 0}, "select": 1, "test": 1}},
            "'search' needs at least 1 example, got 0",
        ),
        (
            {"sizes": {"search": {"per_class": 5}, "select": 5, "test": 50}},
            r"want 70 examples \(search: 15, select: 5, test: 50\), but the data hold 60",
        ),
    ],
    ids=range(6),
)
def test_classes_with_too_few_rows_are_named(changes, message):
    given = {"sizes": {"search": {"per_class": 2}, "select": 2, "test": 2}, **CHOICES, **changes}
    with pytest.raises(TaskError, match=message):
        make(rows(60), **given)


# Draws of seeds.


def test_each_seed_draws_its_own_search_and_select_examples_and_the_test_stays():
    sizes = {"search": {"per_class": 4}, "select": {"per_class": 2}, "test": 10}
    task = make(rows(90), sizes, **CHOICES)
    draws = [task.drawn(seed) for seed in range(4)]
    assert {draw.splits["test"].hash for draw in draws} == {task.splits["test"].hash}
    for name in ("search", "select"):
        assert len({draw.splits[name].hash for draw in draws}) == 4
    for draw in draws:
        found = {n: set(some) for n, some in texts(draw).items()}
        assert sum(map(len, found.values())) == len(set().union(*found.values()))
        count = Counter(e.answer for e in draw.splits["search"].examples)
        assert count == dict.fromkeys((" zero", " one", " two"), 4)
        assert [e.id for e in draw.splits["search"].examples] == list(range(12))
    assert hashes(task.drawn(3)) == hashes(draws[3])
    assert len(set().union(*(texts(draw)["search"] for draw in draws))) > 24


def test_a_draw_depends_on_texts_and_seed_alone():
    sizes = {"search": 5, "select": 4, "test": 10}
    one, other = make(rows(40), sizes), make(rows(40)[::-1], sizes)
    assert hashes(one.drawn(7)) == hashes(other.drawn(7))
    assert one.drawing.hash("search") == other.drawing.hash("search")
    assert one.drawing.hash("search") != make(rows(41), sizes).drawing.hash("search")


def test_draws_leave_official_splits_and_groups_apart():
    data = {"search": rows(20), "select": rows(10, 20), "test": rows(5, 50)}
    task = make(data, {"search": 6, "select": 3}).drawn(1)
    assert set(texts(task)["select"]) <= {f"t{i}" for i in range(20, 30)}
    assert set(texts(task)["test"]) == {f"t{i}" for i in range(50, 55)}
    sizes = {"search": 12, "select": 6, "test": 9}
    task = make(grouped([3] * 20), sizes, group="author")
    for seed in range(5):
        found = authors(task.drawn(seed))
        assert found["test"] == authors(task)["test"]
        assert sum(map(len, found.values())) == len(set().union(*found.values()))


# Rows that are taken.


def test_only_rows_with_the_wanted_values_are_taken(tmp_path):
    data = [{**row, "lang": "en" if i % 2 else "de", "n": i % 3} for i, row in enumerate(rows(36))]
    file = written(tmp_path, "a.jsonl", [*data, {"text": "x", "label": "y"}])
    sizes = dict.fromkeys(SPLITS, 2)
    task = load(tmp_path, file, splits=sizes, where={"lang": "en", "n": [0, "1"]})
    kept = [r for r in data if r["lang"] == "en" and r["n"] in (0, 1)]
    assert hashes(task) == hashes(make(kept, sizes))
    assert task.notes == ("'where' keeps 12 of 37 rows",)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"langg": "en"}, "unknown field 'langg'. Did you mean 'lang'"),
        ({"lang": "eng"}, "unknown value of the field 'lang' 'eng'. Did you mean 'en'"),
        ({"lang": ["en", "fr"]}, "unknown value of the field 'lang' 'fr'"),
        ({"lang": "en", "n": "0"}, "'where' leaves no row of the data: none has lang: en, n: 0"),
        ({"list": "a"}, "the field 'list' is a list"),
        ({"lang": [None]}, "under where.lang, None has no value"),
    ],
    ids=range(6),
)
def test_filters_that_nothing_meets_are_named(tmp_path, where, message):
    data = [{**r, "lang": "en" if i % 2 else "de", "n": i % 2} for i, r in enumerate(rows(9))]
    file = written(tmp_path, "a.jsonl", [{**row, "list": ["a"]} for row in data])
    with pytest.raises(PromptSearchError, match=message):
        load(tmp_path, file, splits=dict.fromkeys(SPLITS, 1), where=where)


def test_a_message_lists_a_few_values_only(tmp_path):
    file = written(tmp_path, "a.jsonl", [{**r, "n": f"value {i}"} for i, r in enumerate(rows(999))])
    with pytest.raises(UnknownName) as caught:
        load(tmp_path, file, splits=dict.fromkeys(SPLITS, 1), where={"n": "valeu 7"})
    assert "value 7" in str(caught.value) and len(str(caught.value)) < 500


# Families.


def test_each_value_of_a_field_makes_a_task(tmp_path):
    values = ["P17", "P 36", "P/36", "p17"]
    data = [{**row, "relation": values[i % 4]} for i, row in enumerate(rows(40))]
    file = written(tmp_path, "facts.jsonl", data)
    source = {
        "template": TEMPLATE,
        "label": "label",
        "data": file,
        "splits": dict.fromkeys(SPLITS, 2),
        "each": "relation",
    }
    tasks = Task.load_each(source, tmp_path)
    assert len({task.name.lower() for task in tasks}) == 4
    assert {task.family for task in tasks} == {"facts"}
    assert all(task.name.startswith("facts-P") or "p17" in task.name for task in tasks)
    parts = {value: [row for row in data if row["relation"] == value] for value in values}
    expected = {tuple(hashes(make(part, source["splits"]))) for part in parts.values()}
    assert {tuple(hashes(task)) for task in tasks} == expected
    (again,) = (t for t in Task.load_each({**source, "where": {"relation": "P17"}}, tmp_path))
    assert again.name == "facts-P17" and again.family == "facts"
    with pytest.raises(TaskError, match="'each' makes 4 tasks of 'facts'"):
        Task.load(source, tmp_path)


def test_a_value_that_a_split_lacks_is_named(tmp_path):
    parts = {"search": rows(9, r="a") + rows(9, 9, r="b"), "test": rows(3, 20, r="a")}
    data = {n: written(tmp_path, f"{n}.jsonl", part) for n, part in parts.items()}
    source = {"template": TEMPLATE, "label": "label", "data": data, "splits": {"select": 2}}
    with pytest.raises(TaskError, match="the test data have no row with r: b"):
        Task.load_each({**source, "each": "r"}, tmp_path)
    (task,) = Task.load_each({**source, "each": "r", "where": {"r": "a"}}, tmp_path)
    assert task.name == "search-a" and len(task.splits["test"]) == 3


# Rows that a field calls the same.


@pytest.mark.parametrize("answers", [None, "labels"])
def test_whose_fields_are_kept_of_the_same_rows_is_no_matter_of_their_order(answers):
    data = [
        {"text": f"{way} {i}", "label": f"l{i % 2}", "id": i} for i in range(9) for way in "abcd"
    ]
    sizes = dict.fromkeys(SPLITS, 3)
    found = [make(some, sizes, answers=answers, identity="id") for some in (data, data[::-1])]
    assert texts(found[0]) == texts(found[1]) and hashes(found[0]) == hashes(found[1])
