"""Merge keys in study files: as PyYAML has them, with the line of every key, and within limits."""

import pytest
import yaml

from promptsearch.errors import StudyError
from promptsearch.plain.yaml import read_yaml, write_yaml

MERGED = """\
one: &one {rate: 1, name: one}
two: &two {rate: 2, depth: 3}
plain: {<<: *one}
before: {<<: *one, rate: 5}
behind: {rate: 5, <<: *one}
first: {<<: [*one, *two]}
nested: &nested {<<: *two, width: 7}
twice: {<<: [*nested, *one]}
rows: [{<<: *nested, depth: 4}]
"""


def test_merge_keys_read_as_pyyaml_reads_them() -> None:
    assert read_yaml(MERGED, "study.yaml")[0] == yaml.safe_load(MERGED)


def test_a_merged_key_stands_where_it_was_written() -> None:
    _, places = read_yaml(MERGED, "study.yaml")
    assert places["before", "rate"] == "line 4"
    assert places["behind", "rate"] == "line 5"
    assert places["plain", "rate"] == "line 1"
    assert places["rows", 0, "width"] == "line 7"


def test_a_merge_key_in_quotes_is_a_text() -> None:
    assert read_yaml('a: {"<<": 1}', "study.yaml")[0] == {"a": {"<<": 1}}
    assert read_yaml(write_yaml({"<<": {"a": 1}}, 80), "study.yaml")[0] == {"<<": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {<<: 3}", "'<<' takes a mapping"),
        ("a: {<<: [3]}", "'<<' takes a mapping"),
        ("a: &a {b: 1}\nc: {<<: *a, <<: *a}", r"write '<<: \[\*one, \*other\]'"),
        ("a: &a\n  <<: *a", "an alias stands inside what it names"),
        ("a: &a\n  b: {<<: *a}", "an alias stands inside what it names"),
    ],
)
def test_a_wrong_merge_key_is_refused(text: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        read_yaml(text, "study.yaml")


def test_merges_of_merges_are_counted() -> None:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    with pytest.raises(StudyError, match="10,000 values at most"):
        read_yaml("\n".join(lines), "study.yaml")
