"""Data as they are in the file: the same rows from every format.

What is no table is named with its line.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import os
import sys
import threading
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import promptsearch.export
import promptsearch.plain.text
from promptsearch.cli import app
from promptsearch.errors import PromptSearchError, StudyError, TaskError
from promptsearch.plain.text import read_text
from promptsearch.study.config import load_config
from promptsearch.tasks.data import read_data, read_inputs
from promptsearch.tasks.fields import text_in
from promptsearch.tasks.joining import joined
from promptsearch.tasks.task import SPLITS, Task

TEMPLATE = "{prompt} {text} It was{answer}"
CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def written(rows, kind):
    """The bytes of a file; `csv` and `tsv` take text cells only."""
    file = io.BytesIO()
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
        return file.getvalue()
    if kind == "pandas":
        pd.DataFrame(rows).to_parquet(file)
        return file.getvalue()
    if kind == "jsonl":
        return "".join(json.dumps(row, default=str) + "\n" for row in rows).encode()
    if kind == "json":
        return json.dumps(rows, default=str, indent=1).encode()
    if kind == "feather":
        pyarrow.feather.write_feather(pa.Table.from_pylist(rows), file)
        return file.getvalue()
    if kind in ("arrow", "stream"):
        table = pa.Table.from_pylist(rows)
        maker = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with maker(file, table.schema) as writer:
            writer.write_table(table)
        return file.getvalue()
    text = io.StringIO()
    table = csv.writer(text, delimiter={"csv": ",", "tsv": "\t"}[kind])
    table.writerows([list(rows[0]), *([row[name] for name in rows[0]] for row in rows)])
    return text.getvalue().encode()


def read(folder, name, content):
    (folder / name).write_bytes(content)
    return read_data({"path": name}, folder)


def hashes(task):
    return [task.splits[name].hash for name in SPLITS]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": CELLS, "label": CELLS}), min_size=1, max_size=8))
@example(
    [
        {"text": "007", "label": "1.50"},
        {"text": "NA", "label": ""},
        {"text": 'a,\r\n"b"', "label": " true"},
    ]
)
def test_cells_of_text_are_the_same_rows_in_every_format(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("formats")
    # In a .tsv a cell with both a tab and a line break is taken for rows that it swallowed.
    swallowing = any("\t" in c and {"\n", "\r"} & set(c) for row in rows for c in row.values())
    for kind, name in (
        ("csv", "a.csv"),
        ("tsv", "a.tsv"),
        ("jsonl", "a.jsonl"),
        ("json", "a.json"),
        ("parquet", "a.parquet"),
        ("feather", "a.feather"),
        ("arrow", "a.arrow"),
        ("stream", "b.arrow"),
    ):
        if kind != "tsv" or not swallowing:
            assert read(folder, name, written(rows, kind)) == rows
    for kind in ("csv", *["tsv"] * (not swallowing), "jsonl", "json"):
        assert read(folder, f"a.{kind}.gz", gzip.compress(written(rows, kind), mtime=0)) == rows
        assert read(folder, f"marked.{kind}", b"\xef\xbb\xbf" + written(rows, kind)) == rows


VALUES = [
    (0, "0"),
    (-7, "-7"),
    (2**60, "1152921504606846976"),
    (1.0, "1"),
    (-0.0, "0"),
    (1.50, "1.5"),
    (0.1 + 0.2, "0.30000000000000004"),
    (1e300, "1e+300"),
    (True, "true"),
    (False, "false"),
    ("TRUE", "TRUE"),
    ("007", "007"),
    ("", ""),
    ("caf\u00e9 \U0001f600 \u2028", "caf\u00e9 \U0001f600 \u2028"),
]


@pytest.mark.parametrize(("value", "text"), VALUES)
def test_a_value_has_one_text_in_every_format_and_in_use(tmp_path, value, text):
    rows = [{"text": value}]
    for name, kind in (
        ("a.jsonl", "jsonl"),
        ("a.json", "json"),
        ("a.parquet", "parquet"),
        ("b.parquet", "pandas"),
        ("a.feather", "feather"),
        ("a.arrow", "stream"),
    ):
        (row,) = read(tmp_path, name, written(rows, kind))
        assert text_in(row, "text", "here") == text
    (row,) = read_inputs(str(tmp_path / "a.jsonl"))
    assert text_in(row, "text", "here") == text
    (task_text,) = {
        e.fields["text"]
        for part in Task.from_rows(
            [{"text": value, "n": n} for n in range(3)],
            template="{prompt} {n} {text}{answer}",
            label="n",
            splits=dict.fromkeys(SPLITS, 1),
        ).splits.values()
        for e in part.examples
    }
    assert task_text == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(1.1), "1.1"),
        (np.float16(0.1), "0.1"),
        (np.float64(2.0), "2"),
        (np.int8(3), "3"),
        (np.bool_(True), "true"),
        (np.str_("a"), "a"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+3"), "1000"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "2024-01-02T03:04:05+00:00"),
        (datetime.time(3, 4), "03:04:00"),
        (pd.Timestamp("2024-01-02"), "2024-01-02T00:00:00"),
    ],
)
def test_values_that_python_and_parquet_know_have_a_text(value, text):
    assert text_in({"x": value}, "x", "here") == text


def test_floats_within_lists_and_structs_are_read_as_they_are_stored(tmp_path):
    single = pa.float32()
    table = pa.table(
        {
            "list": pa.array([[1.1, None], None], pa.list_(single)),
            "lists": pa.array([[[1.1], []], None], pa.list_(pa.list_(single))),
            "struct": pa.array(
                [{"x": [1.1], "y": "a"}, None], pa.struct({"x": pa.list_(single), "y": pa.string()})
            ),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = read_data({"path": "a.parquet"}, tmp_path)
    one = np.float32(1.1)
    assert first == {"list": [one, None], "lists": [[one], []], "struct": {"x": [one], "y": "a"}}
    assert text_in(joined([first], {"lists": [";", ","]})[0], "lists", "") == "1.1;"
    assert set(second.values()) == {None}


def test_a_gzip_file_may_be_named_in_capitals(tmp_path):
    (tmp_path / "A.CSV.GZ").write_bytes(gzip.compress(b"a\n1\n"))
    assert read_data({"path": "A.CSV.GZ"}, tmp_path) == [{"a": "1"}]


def test_columns_of_parquet_are_read_as_they_are_stored(tmp_path):
    table = pa.table(
        {
            "single": pa.array([1.1, None], pa.float32()),
            "half": pa.array([np.float16(0.1), None], pa.float16()),
            "gaps": pa.array([1, None], pa.int64()),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "kind": pa.array(["a", None]).dictionary_encode(),
            "day": pa.array([datetime.date(2024, 1, 2), None]),
            "__index_level_0__": [7, 8],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = read_data({"path": "a.parquet"}, tmp_path)
    expected = {
        "single": "1.1",
        "half": "0.1",
        "gaps": "1",
        "price": "1.50",
        "kind": "a",
        "day": "2024-01-02",
    }
    assert {name: text_in(first, name, "row 1") for name in first} == expected
    with pytest.raises(
        TaskError, match=r"^a.parquet, row 2: the field 'gaps' has no value \(null\)"
    ):
        text_in(second, "gaps", second.place)


REFUSED_VALUES = [
    (None, r"has no value \(null\)"),
    (float("nan"), r"has no value \(NaN\)"),
    (Decimal("nan"), r"has no value \(NaN\)"),
    (Decimal("snan"), r"has no value \(NaN\)"),
    (Decimal("inf"), "is an infinite number"),
    (pd.NaT, r"has no value \(NaT\)"),
    (pd.NA, r"has no value \(<NA>\)"),
    (float("-inf"), "is an infinite number"),
    (["a", "b"], "is a list: .* join"),
    (np.array(["a"]), "is a list"),
    (("a",), "is a list"),
    ({"en": "a"}, "is a mapping"),
    (b"a", "holds bytes"),
    (object(), "is of the kind object"),
    (datetime.timedelta(1), "is of the kind timedelta"),
    ("cut \ud83d", r"holds half a character \(\\ud83d\)"),
    (10**5000, "is a number of more than 4,300 digits"),
    (Decimal("1E+9999"), "is a number of more than 4,300 digits"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED_VALUES, ids=range(len(REFUSED_VALUES)))
@pytest.mark.parametrize("field", ["text", "label"])
def test_values_without_a_text_are_refused_in_fields_and_labels(value, reason, field):
    if field == "label" and reason.startswith("is a list"):
        return  # of right answers
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y", field: value}]
    with pytest.raises(TaskError, match=f"^row 2 of the data: the field '{field}' {reason}"):
        Task.from_rows(rows, template=TEMPLATE, label="label", splits=dict.fromkeys(SPLITS, 1))


def test_columns_that_nothing_asks_for_may_hold_anything(tmp_path):
    rows = [
        {"text": f"t{i}", "label": "x", "more": [i], "gap": None, "raw": b"\xff"} for i in range(3)
    ]
    task = Task.from_rows(rows, template=TEMPLATE, label="label", splits=dict.fromkeys(SPLITS, 1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = {
        "data": {"path": "a.parquet"},
        "template": TEMPLATE,
        "label": "label",
        "splits": dict.fromkeys(SPLITS, 1),
    }
    assert hashes(Task.load(source, tmp_path)) == hashes(task)


HEAD = b"text,label\n"
REFUSED_FILES = {
    "too many cells": (
        "a.csv",
        HEAD + b"a,1\nb, c,0\n",
        r"^a.csv, line 3 has 3 cells, .* 2 fields \(text, label\): put quotes",
    ),
    "a comma at the end": ("a.csv", HEAD + b'"a\nb",1\nb,0,\n', "^a.csv, line 4 has 3 cells"),
    "too few cells": ("a.csv", HEAD + b"a\n", "line 2 has 1 cell, .*empty needs its comma"),
    "semicolons": (
        "a.csv",
        b"text;label\na;1\n",
        "line 1 names a single field, 'text;label': expected commas .* got ';'",
    ),
    "tabs in .csv": ("a.csv", b"text\tlabel\na\t1\n", r"line 1 names a single field"),
    "commas in .tsv": ("a.tsv", HEAD + b"a,1\n", "line 1 names a single field, .* got ','"),
    "rows in a cell of .tsv": (
        "a.tsv",
        b'label\ttext\n1\tfine\n1\t"Great film\n0\tbad film\n0\tthe worst of them all"\n1\tfine\n',
        "cannot read .*a.tsv: line 3: a cell holds both a line break and a tab, .* save .* as .csv",
    ),
    "one name twice": ("a.csv", b"text,text\na,b\n", "line 1 names the field text twice"),
    "an open quote": ("a.csv", HEAD + b'a,1\n"b,0\n', "opens in line 3 or below is never closed"),
    "a quote in quotes": ("a.csv", HEAD + b'a,1\n"b"c",0\n', "line 3: .* every mark in it twice"),
    "a backslash": ("a.csv", HEAD + b'"say \\"hi\\"",1\n', "line 2: .* every mark in it twice"),
    "an empty table": ("a.csv", b"", "it is empty: expected the names of the fields"),
    "a mark alone": ("a.csv", b"\xef\xbb\xbf", "it is empty"),
    "no rows": ("a.csv", HEAD, "the data are empty: a.csv has no row"),
    "no lines": ("a.jsonl", b"", "the data are empty: a.jsonl has no row"),
    "blank lines": ("a.jsonl", b"\n \n", "the data are empty"),
    "UTF-16": (
        "a.csv",
        "text,label\na,1\n".encode("utf-16"),
        "it is UTF-16 or UTF-32 text: save it as UTF-8",
    ),
    "UTF-16 without a mark": (
        "a.jsonl",
        '{"a": 1}'.encode("utf-16-le"),
        "it is UTF-16 or UTF-32 text",
    ),
    "UTF-32": ("a.jsonl", '{"a": 1}'.encode("utf-32"), "it is UTF-16 or UTF-32 text"),
    "Latin-1": (
        "a.csv",
        HEAD + b"a,1\ncaf\xe9,1\n",
        r"it is not UTF-8 text \(line 3 holds the byte 0xe9\)",
    ),
    "half characters": ("a.jsonl", b'{"a": "\xed\xa0\xbd"}\n', "it is not UTF-8 text"),
    "a list": (
        "a.jsonl",
        b'[{"text": "a"}]\n',
        "line 1: expected an object .* got a list: write one object a line",
    ),
    "a list in lines": (
        "a.jsonl",
        b'[\n{"text": "a"}\n]\n',
        "line 1: this is not JSON: .* one whole object a line",
    ),
    "an indented object": (
        "a.jsonl",
        b'{\n "text": "a"\n}\n',
        "line 1: this is not JSON: .* one whole object a line",
    ),
    "a number": ("a.jsonl", b"{}\n7\n", "line 2: expected an object with fields, .* got 7"),
    "a cut line": (
        "a.jsonl",
        b'{"text": "a"}\n{"text": "b',
        r"line 2: this is not JSON: .* \(character 10\)",
    ),
    "two on a line": (
        "a.jsonl",
        b'{"text": "a"} {"text": "b"}',
        "line 1: this is not JSON: Extra data",
    ),
    "a field twice": (
        "a.jsonl",
        b'{"text": "a", "text": "b"}\n',
        "line 1 has the field text twice",
    ),
    "depth": ("a.jsonl", b"[" * 100_000 + b"]" * 100_000, "line 1: this is nested too deeply"),
    "digits": (
        "a.jsonl",
        b'{"n": ' + b"7" * 5000 + b"}",
        "line 1: a number has more than 4,300 digits",
    ),
    "no gzip": ("a.jsonl.gz", b'{"text": "a"}\n', "it is no whole gzip file"),
    "a cut gzip": (
        "a.csv.gz",
        gzip.compress(HEAD + os.urandom(999).hex().encode())[:-99],
        "it is no whole gzip file",
    ),
    "a broken gzip": (
        "a.csv.gz",
        gzip.compress(HEAD * 99, mtime=0)[:20] + b"\0" * 40,
        "it is no whole gzip file",
    ),
    "no Parquet": ("a.parquet", b"PAR1 and not more", "cannot read the data file .*a.parquet"),
    "another kind": ("a.xlsx", b"PK", "of an unknown kind: expected .jsonl, .csv, .tsv"),
    "packed Parquet": ("a.parquet.gz", b"", "of an unknown kind"),
    "packed Arrow": ("a.arrow.gz", b"", "of an unknown kind"),
    "no Arrow": ("a.arrow", b"ARROW1 and not more", "cannot read the data file .*a.arrow"),
    "no Feather": ("a.feather", b"", "cannot read the data file .*a.feather"),
    "broken JSON": ("a.json", b'[\n{"text": }]', r"this is not JSON: .* \(line 2, character 10\)"),
    "lines in .json": (
        "a.json",
        b'{"a": 1}\n{"a": 2}\n',
        "not JSON: Extra data.* is called .jsonl",
    ),
    "a text": ("a.json", b'"text"', "expected a list of objects, or an object with .* got"),
    "columns": ("a.json", b'{"text": ["a"]}', "got only text. Columns, a list each, must become"),
    "two lists": ("a.json", b'{"a": [{}], "b": [{}]}', "got lists of objects under a, b"),
    "a list of texts": ("a.json", b'["a"]', "^a.json, row 1: expected an object with fields"),
    "no objects": ("a.json", b"[]", "the data are empty: a.json has no row"),
    "JSON with a field twice": ("a.json", b'[{"a": 1, "a": 2}]', "has the field a twice"),
    "deep JSON": ("a.json", b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "long numbers": ("a.json", b'[{"n": ' + b"7" * 5000 + b"}]", "more than 4,300 digits"),
}


@pytest.mark.parametrize(
    ("name", "content", "message"), REFUSED_FILES.values(), ids=REFUSED_FILES.keys()
)
def test_what_is_no_table_is_named_with_its_line(tmp_path, name, content, message):
    with pytest.raises(TaskError, match=message):
        read(tmp_path, name, content)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_and_blank_lines_are_read(tmp_path, end):
    rows = [{"text": "a", "label": "1"}, {"text": "b", "label": "0"}]
    found = read(tmp_path, "a.csv", end.join(["text,label", "a,1", "", "b,0", ""]).encode())
    assert found == rows and [row.place for row in found] == ["a.csv, line 2", "a.csv, line 4"]
    lines = [json.dumps(rows[0]), "", json.dumps(rows[1])]
    found = read(tmp_path, "a.jsonl", end.join(lines).encode())
    assert found == rows and [row.place for row in found] == ["a.jsonl, line 1", "a.jsonl, line 3"]


def test_lines_are_counted_through_line_breaks_in_quotes(tmp_path):
    found = read(tmp_path, "a.csv", b'text,label\n"a\nb\r\nc",1\nd,0\n')
    assert found[0]["text"] == "a\nb\r\nc" and [row.place for row in found] == [
        "a.csv, line 2",
        "a.csv, line 5",
    ]


def test_a_column_of_row_numbers_without_a_name_is_no_field(tmp_path):
    table = pd.DataFrame({"text": ["007", "b"], "label": ["1", "0"]})
    table.to_csv(tmp_path / "a.csv")
    assert read_data({"path": "a.csv"}, tmp_path) == table.to_dict(orient="records")


def test_a_cell_may_be_longer_than_pythons_own_limit(tmp_path):
    (row,) = read(tmp_path, "a.csv", b"text,label\n" + b"a" * 200_000 + b",1\n")
    assert len(row["text"]) == 200_000


def test_a_file_without_line_ends_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(promptsearch.plain.text, "LONGEST", 1000)
    with pytest.raises(TaskError, match="line 2 has more than 1,000 bytes: write one row a line"):
        read(tmp_path, "a.jsonl", b"{}\n" + b" " * 2000)


def test_places_that_are_no_files_are_named(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, message in (
        ("folder.jsonl", "it is a folder, not a file"),
        ("pipe.jsonl", "it is a device or a pipe, not a file"),
        ("none.jsonl", "does not exist: paths in a study file are relative to the study file"),
        ("none/a.jsonl", "does not exist"),
        ("n" * 300 + ".jsonl", "File name too long"),
        ("nul\0.jsonl", "no file can have this name"),
    ):
        with pytest.raises(TaskError, match=message):
            read_data({"path": name}, tmp_path)


def test_parquet_with_one_name_twice_or_text_that_is_none_is_named(tmp_path):
    pq.write_table(
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "a.parquet"
    )
    with pytest.raises(TaskError, match="a.parquet: it has two columns a: rename one"):
        read_data({"path": "a.parquet"}, tmp_path)
    broken = pa.array([b"fine", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": broken}), tmp_path / "b.parquet")
    with pytest.raises(TaskError, match="b.parquet: row 2, field 'text': UnicodeDecodeError"):
        read_data({"path": "b.parquet"}, tmp_path)


def test_rows_of_the_hub_follow_the_same_rule(tmp_path, monkeypatch):
    import datasets

    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Value("float32")}
    )
    part = datasets.Dataset.from_list(
        [{"text": "a", "label": 1.1}, {"text": None, "label": 1.0}], features=kinds
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: datasets.DatasetDict(train=part))
    first, second = read_data({"hub": "owner/name"}, tmp_path)
    assert (
        text_in(first, "label", first.place) == "1.1"
        and text_in(second, "label", second.place) == "1"
    )
    with pytest.raises(
        TaskError, match=r"owner/name, split train, row 2: the field 'text' has no value \(null\)"
    ):
        text_in(second, "text", second.place)


def test_a_data_set_has_the_same_texts_from_the_hub_and_from_parquet(tmp_path, monkeypatch):
    import datasets

    number, kind = datasets.Value("float32"), datasets.ClassLabel(names=["bad", "good"])
    within = {"x": number, "of": kind, "all": datasets.Sequence(kind)}
    features = {"list": datasets.Sequence(number), "within": within, "top": kind, "half": number}
    row = {"list": [0.1, 0.7], "within": {"x": 0.1, "of": 1, "all": [0, 1]}, "top": 0, "half": 0.1}
    part = datasets.Dataset.from_list([row], features=datasets.Features(features))
    part.to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: part)
    for data in ({"hub": "owner/name"}, {"path": "a.parquet"}):
        (found,) = joined(read_data(data, tmp_path), {"list": " ", "within.all": " "})
        names = ("list", "within.x", "within.of", "within.all", "top", "half")
        texts = [text_in(found, name, "") for name in names]
        assert texts == ["0.1 0.7", "0.1", "good", "bad good", "bad", "0.1"]


@pytest.mark.parametrize("around", [lambda rows: rows, lambda rows: {"v": 1, "data": rows}])
def test_json_is_a_list_of_objects_or_an_object_with_one(tmp_path, around):
    rows = [{"canary": "x"}, {"text": "a"}, {"text": "b"}]
    found = read(tmp_path, "a.json", json.dumps(around(rows)).encode())
    assert found == rows[1:] and [row.place for row in found] == ["a.json, row 2", "a.json, row 3"]


NESTED = [
    {"id": f"n{i}", "translation": {"en": f"t{i}", "de": f"d{i}", "more": {"x": i}}}
    for i in range(4)
]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "feather"])
def test_a_field_within_a_field_is_named_with_a_point(tmp_path, kind):
    (tmp_path / f"a.{kind}").write_bytes(written(NESTED, kind))
    source = {
        "data": {"path": f"a.{kind}"},
        "template": "{prompt} {translation.en} {translation.more.x} is{answer}",
        "label": "translation.de",
        "splits": dict.fromkeys(SPLITS, 1),
        "group": "translation.en",
        "where": {"translation.more.x": [1, 2, 3]},
    }
    task = Task.load(source, tmp_path)
    (example,) = [
        e for n in SPLITS for e in task.splits[n].examples if e.fields["translation.en"] == "t2"
    ]
    assert example.fields == {"translation.en": "t2", "translation.more.x": "2"}
    assert (example.answer, example.group) == ("d2", "t2")
    assert "".join(task.template.fill(example.fields)) == " t2 2 is"
    with pytest.raises(
        TaskError, match="(line|row) 1 lacks the field 'translation.fr'; 'translation"
    ):
        Task.load({**source, "label": "translation.fr", "where": None}, tmp_path)
    with pytest.raises(TaskError, match="lacks the field 'id.x': 'id' holds no fields"):
        Task.load({**source, "label": "id.x"}, tmp_path)
    with pytest.raises(TaskError, match="the field 'translation' is a mapping: .* FIELD.KEY"):
        Task.load({**source, "label": "translation"}, tmp_path)


def test_a_field_whose_own_name_has_a_point_comes_first(tmp_path):
    row = {"a.b": "own", "a": {"b": "inner", "c": "other"}}
    assert text_in(row, "a.b", "here") == "own" and text_in(row, "a.c", "here") == "other"
    (found,) = read(tmp_path, "a.csv", b"a.b\nown\n")
    assert text_in(found, "a.b", "here") == "own"


# Inputs of found prompts.


@pytest.fixture
def saved(tiny, make_saved, monkeypatch):
    prompt = make_saved(tiny, "hard", TEMPLATE, (" bad", " good"))
    monkeypatch.setattr(promptsearch.export, "load_prompt", lambda path: prompt)
    monkeypatch.setattr(type(prompt), "model", lambda self, model=None: tiny)
    return prompt


def apply(*arguments, given=None):
    return CliRunner().invoke(app, ["apply", "an/export", *map(str, arguments)], input=given)


ROWS = [{"text": "007"}, {"text": "a good film"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.jsonl", b"\xef\xbb\xbf" + written(ROWS, "jsonl").replace(b"\n", b"\r\n")),
        ("in.csv", written(ROWS, "csv")),
        ("in.tsv", written(ROWS, "tsv")),
        ("in.jsonl.gz", gzip.compress(written(ROWS, "jsonl"), mtime=0)),
        ("in.parquet", written(ROWS, "parquet")),
    ],
)
def test_apply_reads_every_format_that_tasks_are_read_from(saved, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    found = apply("--input", tmp_path / name)
    assert (
        found.exit_code == 0 and found.stdout == apply(given=written(ROWS, "jsonl").decode()).stdout
    )
    assert [json.loads(line)["text"] for line in found.stdout.splitlines()] == [
        "007",
        "a good film",
    ]


def test_apply_reads_a_pipe(saved, tmp_path):
    os.mkfifo(tmp_path / "63")
    thread = threading.Thread(target=lambda: (tmp_path / "63").write_bytes(written(ROWS, "jsonl")))
    thread.start()
    found = apply("--input", tmp_path / "63")
    thread.join()
    assert found.exit_code == 0 and len(found.stdout.splitlines()) == 2


def test_a_closed_standard_input_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(TaskError, match="standard input is closed"):
        read_inputs("-")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            rb'{"text": "cut \ud83d"}',
            r"in.jsonl, line 3: the field 'text' holds half a character (\ud83d)",
        ),
        (b'{"text": null}', "in.jsonl, line 3: the field 'text' has no value (null)"),
        (b'{"text": NaN}', "in.jsonl, line 3: the field 'text' has no value (NaN)"),
        (b'{"text": ["a"]}', "in.jsonl, line 3: the field 'text' is a list"),
        (b'{"body": "a"}', "in.jsonl, line 3 lacks the field 'text'; it has body"),
        (b'{"text": "a", "text": "b"}', "in.jsonl, line 3 has the field text twice"),
        (b"[" * 100_000, "in.jsonl, line 3: this is nested too deeply"),
        (
            b'{"text": "caf\xe9"}',
            "cannot read the inputs in.jsonl: it is not UTF-8 text (line 3 holds the byte 0xe9)",
        ),
    ],
)
def test_apply_is_as_strict_as_a_task(saved, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n\n' + line + b"\n")
    found = apply("--input", "in.jsonl")
    assert found.exit_code == 2 and message in found.stderr
    source = {
        "data": {"path": "in.jsonl"},
        "template": TEMPLATE,
        "label": "text",
        "splits": dict.fromkeys(SPLITS, 1),
    }
    with pytest.raises(TaskError) as trained:
        Task.load(source, tmp_path)
    assert message.partition(": ")[2] in str(trained.value)


def test_apply_writes_fields_that_no_template_has_as_they_came(saved):
    line = '{"text": "a", "id": "\\ud83d", "value": 1.0}'
    found = apply(given=line + "\n")
    assert found.exit_code == 0
    assert found.stdout.startswith(line.removesuffix("}"))


def test_apply_writes_values_of_parquet_that_json_does_not_know(saved, tmp_path):
    row = {
        "text": datetime.datetime(2024, 1, 2),
        "price": Decimal("1.50"),
        "raw": b"a",
        "gap": None,
    }
    (tmp_path / "in.parquet").write_bytes(written([row], "parquet"))
    found = json.loads(apply("--input", tmp_path / "in.parquet").stdout)
    expected = {"text": "2024-01-02T00:00:00", "price": "1.50", "raw": "b'a'", "gap": None}
    assert {name: found[name] for name in row} == expected


def test_numbers_are_the_same_in_a_task_and_in_use(saved, tiny):
    values = [1.0, 1, "1", True, "true"]
    found = [
        row["probabilities"] for row in saved.apply([{"text": value} for value in values], tiny)
    ]
    assert found[0] == found[1] == found[2] != found[3] and found[3] == found[4]


# Study files and pools are read by the same rule.


def test_a_study_file_may_have_a_mark_and_any_line_end(tmp_path):
    text = "model: m\r\ntask: capitals\rbudget: 10\nstrategies: [random]\n"
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_config(tmp_path / "a.yaml").budget == 10
    (tmp_path / "a.toml").write_bytes(
        b'\xef\xbb\xbfmodel = "m"\r\ntask = "capitals"\nbudget = 10\nstrategies = ["random"]\n'
    )
    assert load_config(tmp_path / "a.toml").budget == 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("name: a".encode("utf-16"), "UTF-16 or UTF-32"),
        (b"a\nb\nc\xe9", "line 3 holds the byte 0xe9"),
    ],
)
def test_other_text_is_refused_with_its_line(tmp_path, content, reason):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(StudyError, match=f"^cannot read the study file .*a.yaml: .*{reason}"):
        load_config(tmp_path / "a.yaml")
    with pytest.raises(StudyError, match="it is a folder"):
        read_text(tmp_path, "the pool from", StudyError)


def test_no_reader_ends_in_a_traceback_whatever_a_file_holds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    good = [{"text": f"t{i}", "label": "x"} for i in range(5)]
    random = np.random.default_rng(0)
    for kind in ("csv", "tsv", "jsonl", "json", "parquet", "feather", "csv.gz", "jsonl.gz"):
        content = written(good, kind.removesuffix(".gz"))
        content = gzip.compress(content, mtime=0) if kind.endswith(".gz") else content
        for _ in range(60):
            hurt = bytearray(content)
            for place in random.integers(len(hurt), size=random.integers(1, 6)):
                hurt[place] = random.integers(256)
            try:
                read(folder, f"a.{kind}", bytes(hurt[: random.integers(1, len(hurt) + 1)]))
            except PromptSearchError as error:
                assert f"a.{kind}" in str(error)
