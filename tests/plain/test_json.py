"""The depth of JSON, which is told before anything reads it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from promptsearch.plain.json import DEPTH, parse_json, too_deep

TEXTS = st.text('[]{}"\\a', max_size=4)
VALUES = st.recursive(
    st.none() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


def depth(value):
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES)
def test_brackets_outside_of_texts_are_counted(value):
    more = DEPTH - depth(value)
    text = "[" * more + json.dumps(value) + "]" * more
    assert not too_deep(text)
    assert not too_deep(text.encode())
    parse_json(text)
    assert too_deep(f"[{text}]")


@given(st.binary(max_size=40))
def test_what_is_no_json_is_not_too_deep(content):
    assert not too_deep(content)
