"""Slot error: what a text leaves out of its record, and what it makes up."""

import pytest

from promptsearch.errors import TaskError
from promptsearch.tasks.metrics import find_metric
from promptsearch.tasks.metrics.measured import measured
from promptsearch.tasks.metrics.metric import Answered

MILL = "name[The Mill], eatType[pub], familyFriendly[no], near[Burger King]"
OTHERS = [
    Answered("Zizzi is a coffee shop.", ("x",), {"mr": "name[Zizzi], eatType[coffee shop]"}),
    Answered("Zizzi is family friendly.", ("x",), {"mr": "name[Zizzi], familyFriendly[yes]"}),
]


def wrong(output, record=MILL, **options):
    """Missing and invented values of one row beside two others."""
    rows = [Answered(output, ("x",), {"mr": record}), *OTHERS]
    return measured(find_metric("slot_error", options), rows).statistics[0].tolist()


@pytest.mark.parametrize(
    ("output", "missing", "invented"),
    [
        ("The Mill is a pub near Burger King and is not family-friendly.", 0, 0),
        ("THE MILL is a pub near Burger King and isn't family friendly.", 0, 0),
        ("The Mill is a pub near Burger King.", 1, 0),
        ("The Mill is a family friendly pub near Burger King.", 1, 1),
        ("The Mill is a coffee shop near Burger King, not family friendly.", 1, 1),
        ("The Milling is a pub near Burger King, not family friendly.", 1, 0),
        ("Zizzi.", 4, 1),
        ("", 4, 0),
    ],
)
def test_missing_and_invented_values(output, missing, invented):
    assert wrong(output) == [missing, invented, 4]


def test_the_score_is_a_share_of_all_values():
    rows = [Answered("The Mill is a pub.", ("x",), {"mr": MILL}), *OTHERS]
    assert find_metric("slot_error").of(rows) == pytest.approx(2 / (4 + 2 + 2))


def test_forms_say_the_same():
    output = "The Mill is a pub near Burger King, no kids."
    assert wrong(output) == [1, 0, 4]
    assert wrong(output, forms={"familyFriendly": ["kids"]}) == [0, 0, 4]
    assert wrong("Cheap? Low prices!", "priceRange[cheap]")[:2] == [0, 0]
    assert wrong("Low prices!", "priceRange[cheap]")[:2] == [1, 0]
    assert wrong("Low prices!", "priceRange[cheap]", forms={"cheap": ["low prices"]})[:2] == [0, 0]


def test_a_slot_without_a_record_is_invented_only_where_it_is_said():
    assert wrong("The Mill.", "name[The Mill]") == [0, 0, 1]
    assert wrong("The Mill is family friendly.", "name[The Mill]") == [0, 1, 1]


def test_values_within_the_records_own_are_not_invented():
    rows = [
        Answered("At Burger King's", ("x",), {"mr": "name[Burger King's]"}),
        Answered("Near the king", ("x",), {"mr": "name[King]"}),
    ]
    assert measured(find_metric("slot_error"), rows).statistics[0].tolist() == [0, 0, 1]


def test_feedback_names_what_is_missing():
    row = Answered("The Mill is a pub.", ("x",), {"mr": MILL})
    told = "left out: familyFriendly[no], near[Burger King]"
    assert find_metric("slot_error").feedback(row) == told


def test_a_row_without_a_record_is_named():
    with pytest.raises(
        TaskError, match="wants a record in the field 'mr' of row 1, which has text"
    ):
        measured(find_metric("slot_error"), [Answered("x", ("x",), {"text": "a"})])
    with pytest.raises(TaskError, match="wants records like .*got 'name: Mill'"):
        measured(find_metric("slot_error"), [Answered("x", ("x",), {"mr": "name: Mill"})])
