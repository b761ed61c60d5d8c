"""Templates: what they parse to, and what they refuse.

And that braces and spaces come out as they went in.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import TemplateError
from promptsearch.tasks.template import Template


def test_slots_segments_and_spaces():
    template = Template.parse("{prompt:2} capital {prompt} {name} is {answer}").bind(3)
    assert template.segments == ("", " capital", " {name} is")
    assert [(slot.length, slot.space) for slot in template.slots] == [(2, False), (3, True)]
    assert template.fields == ("name",) and template.length == 5 and template.answer_space


def test_render_brings_the_slots_spaces_back():
    template = Template.parse("{prompt} capital {prompt} {name} is {answer}")
    slots = template.slot_texts(["The", "of"])
    assert (
        template.render({"name": "Britain"}, slots, template.answer_text("London"))
        == "The capital of Britain is London"
    )
    assert template.render({"name": "X"}, template.slot_texts([]), " Y") == " capital X is Y"


@given(st.text(min_size=1), st.text())
def test_literal_text_and_values_come_out_as_they_went_in(literal, value):
    escaped = literal.replace("{", "{{").replace("}", "}}")
    template = Template.parse("{prompt}" + escaped + "{text}{answer}")
    assert template.render({"text": value}, ["P"], "A") == "P" + literal + value + "A"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{prompt} {text} It was", r"has no \{answer\}"),
        ("{text} It was{answer}", "has no slot"),
        ("{prompt} {answer}{answer}", r"has \{answer\} twice"),
        ("{prompt} {answer:3}", r"expected \{answer\}, or \{answer:pll\}"),
        ("{prompt:x} {answer}", "expected a number of tokens"),
        ("{prompt:0} {answer}", "expected a number of tokens"),
        ("{prompt} {a.} {answer}", "expected a plain name"),
        ("{prompt} {a[b]} {answer}", "expected a plain name"),
        ("{prompt} {text!r} {answer}", "expected a plain name"),
        ("{prompt} {text:>9} {answer}", "expected a plain name"),
        ("{prompt} {} {answer}", "expected a plain name"),
        ("{prompt} {text {answer}", "cannot read the template"),
    ],
)
def test_wrong_templates_are_named(text, complaint):
    with pytest.raises(TemplateError, match=complaint):
        Template.parse(text)


@pytest.mark.parametrize(
    ("first", "last", "number"),
    [
        ("{text} {", "} {prompt} {answer}", 1),
        ("{text}", "{prompt} }{answer}{", 2),
        ("{te", "xt} {prompt} {answer}", 1),
    ],
)
def test_a_brace_is_closed_in_its_own_message(first, last, number):
    with pytest.raises(TemplateError, match=f"cannot read message {number} of the template"):
        Template.parse([{"user": first}, {"assistant": last}])


@pytest.mark.parametrize("field", ["{7}", "{7:x}", "{0!r}", "{{{7}", "{prompt} {1:{x}}"])
def test_a_number_in_braces_is_no_field_of_a_message(field):
    """Numbers stand for what the chat template writes before each message."""
    told = r"^message 1 of the template has the field \{[071]\}: expected a plain name"
    with pytest.raises(TemplateError, match=told):
        Template.parse([{"user": "{prompt} " + field}, {"assistant": "{answer}"}])
    kept = Template.parse([{"user": "{prompt} {{7}}"}, {"assistant": "{answer}"}])
    assert kept.segments == ("{0}", " {{7}}{1}")


def test_more_texts_than_slots_are_refused():
    with pytest.raises(TemplateError, match="2 pieces.*has 1 slots"):
        Template.parse("{prompt} {answer}").slot_texts(["a", "b"])


@pytest.mark.parametrize(
    ("text", "below"),
    [
        ("{prompt} {text} It was {answer}", " {text} It was"),
        ("{text} {prompt} It was {answer}", "{text} It was"),
        ("The {prompt:2} movie {{x}} {prompt} {text}{answer}", "The movie {{x}} {text}"),
    ],
)
def test_in_front_all_prompt_tokens_stand_in_one_slot_before_the_text_of_an_empty_prompt(
    text, below
):
    template = Template.parse(text).bind(3)
    assert template.taking("slots") is template and not template.apart
    front, beside = template.taking("prefix"), template.taking("gated")
    assert front.segments == beside.segments == ("", below) and front.apart and beside.apart
    assert [(slot.length, slot.space) for slot in front.slots] == [(template.length, False)]
    fields = {"text": "a film"}
    assert front.render(fields, [""], " X") == template.render(
        fields, template.slot_texts([]), " X"
    )


def test_without_a_prompt_an_empty_slot_stands_above_the_text_of_an_empty_prompt():
    template = Template.parse("A {prompt:2} movie {prompt:1} {text} is {answer}")
    bare = template.taking("weights")
    assert bare.segments == ("", template.taking("prefix").segments[1]) and bare.length == 0
    assert bare.kind == "weights" and bare.apart
    assert bare.render({"text": "x"}, [""], " y") == template.render({"text": "x"}, ["", ""], " y")


def test_for_a_tuned_model_the_slots_stay_below_an_empty_one():
    template = Template.parse("A {prompt:2} movie {prompt} {text} is {answer}").bind(1)
    tuned = template.taking("tuned")
    assert tuned.segments == ("", *template.segments) and tuned.slots[1:] == template.slots
    assert (tuned.slots[0].length, tuned.length, tuned.kind, tuned.apart) == (0, 3, "tuned", False)
    assert tuned.render({"text": "x"}, ["", " a b", " c"], " y") == template.render(
        {"text": "x"}, [" a b", " c"], " y"
    )


@pytest.mark.parametrize(
    ("text", "solved"),
    [
        ("{prompt} capital {prompt} {name} is {answer}.", "capital France is Paris."),
        ("{prompt} Q: {name}\nA: {answer}\n", "Q: France\nA: Paris"),
        ("{prompt} {name}: {answer}", "France: Paris"),
    ],
)
def test_a_solved_example_has_the_end_of_its_answer(text, solved):
    template = Template.parse(text).bind(1)
    assert template.solved({"name": "France"}, template.answer_text("Paris")) == solved
