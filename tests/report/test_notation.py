import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.report.notation import (
    in_slots,
    number,
    percent,
    probability,
    short,
    signed,
    visible,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" good", "␣good"),
        ("good ", "good␣"),
        ("so  good", "so␣␣good"),
        (" it | was", "␣it | was"),
        ("a\nb\tc", "a⏎b⇥c"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("abc\u202edef", "abc\\u202edef"),
        ("\ud800", "\\ud800"),
        ("   ", "␣␣␣"),
        ("né 日本", "né 日本"),
        ("", ""),
    ],
)
def test_what_the_eye_would_miss_is_made_visible(text, shown):
    assert visible(text) == shown


def test_a_difference_of_rounding_alone_has_no_sign_of_its_own():
    same = (0.1 + 0.2) - 0.3
    assert signed(-same) == signed(same) == signed(-0.0) == "+0.000"
    assert (signed(-0.25), signed(0.25)) == ("-0.250", "+0.250")


def test_a_long_prompt_is_cut_and_says_so():
    assert visible("x" * 5000, 10) == "xxxxxxxxxx … (4,990 more characters)"


@given(st.text(st.characters(exclude_categories=())))
def test_anything_comes_out_printable_and_encodable(text):
    shown = visible(text)
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (950, "950"),
        (2112, "2.11k"),
        (98765, "98.8k"),
        (999_700, "1M"),
        (134_515_008, "135M"),
        (3e9, "3G"),
    ],
)
def test_short_counts(value, shown):
    assert short(value) == shown


def test_shares_and_scores():
    assert [percent(share) for share in (0, 5 / 1.3e8, 2.1e-5, 0.021, 0.98, 1, 1.5)] == [
        "0 %", "< 0.001 %", "0.0021 %", "2.1 %", "98 %", "100 %", "150 %",
    ]  # fmt: skip
    assert number(0.81249) == "0.812"
    assert number(float("inf")) == "∞"
    assert [probability(p) for p in (1e-9, 0.0012, 1)] == ["< 0.001", "0.001", "1.000"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The |  of", "The | of"),
        (" a |  b |  c", " a | b | c"),
        ("a |   b", "a |   b"),
        ("a | b", "a | b"),
        ("a |  ", "a |  "),
        ("a | ", "a"),
        ("a\n |  | ", "a\n"),
        (" | b", " | b"),
        (" | ", " | "),
    ],
)
def test_the_space_behind_the_bar_is_the_one_that_a_slot_begins_with(text, shown):
    assert in_slots(text) == shown
