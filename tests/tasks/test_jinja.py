"""Templates of strangers: they mean what Jinja means, and do nothing else."""

from __future__ import annotations

import re
import time

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import TaskError
from promptsearch.tasks.jinja import JinjaTemplate, jinja_literal

DOCUMENT = {
    "question": " Why? ",
    "choices": {"text": ["yes", "no"], "label": ["A", "B"]},
    "answer": "B",
    "numbers": [3, 1, 2],
    "passage": "one\ntwo\n",
}
PLAIN = [
    "Question: {{question.strip()}}\nAnswer:",
    "{{choices.label.index(answer)}}",
    "{{choices.text}} {{ choices['text'][0] }}",
    "{% for c in choices.text %}{{ loop.index }}. {{ c }}\n{% endfor %}",
    "{% if answer == 'B' %}b{% else %}a{% endif %}{{ 'x' if numbers|length > 2 else 'y' }}",
    "{% set n = numbers|sort|join(', ') %}{{ n }} {{ numbers|map('string')|list }}",
    "{{ passage ~ answer ~ 3 }}{{ passage.split('\n')[1] }}",
    "{{ (numbers[0] * 2 + 1) ** 2 % 5 // 1 }} {{ 'ab' * 3 }}",
    "{{ ', '.join(choices.text) }} {{ passage.replace('one', 'two') }}",
    "{{ passage|replace('o', '0') }}",
    "{%- if not numbers -%} a {%- endif -%} text with a line\n",
    "{{ range(3)|list }} {{ answer is string }} {{ none }} {{ 'a' in choices.label }}",
    "no braces, {one}, and } at the end\n",
]


@pytest.mark.parametrize("source", PLAIN)
def test_a_template_gives_what_jinja_gives(source):
    theirs = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    expected = theirs.from_string(source).render(**DOCUMENT)
    assert JinjaTemplate(source, "doc_to_text").render(DOCUMENT, "row 1") == expected


UNREAD = {
    "code": "{{ ''.__class__.__mro__ }}",
    "import": "{% import 'os' as os %}{{ os }}",
    "include": "{% include '/etc/passwd' %}",
    "macro": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "recursion": "{% for a in numbers recursive %}{{ loop(numbers) }}{% endfor %}",
    "block": "{% set x %}{{ answer }}{% endset %}",
    "namespace": "{% set x = namespace(a=1) %}",
    "call": "{{ (numbers[0])() }}",
    "method": "{{ answer.format(1) }}",
    "width": "{{ answer.center(10 ** 9) }}",
    "filter": "{{ answer|center(1000000000) }}",
    "syntax": "{{ answer",
    "deep": "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_no_template_needs_is_not_read(name):
    with pytest.raises(TaskError, match=r"^doc_to_text (cannot be read|fails)|: doc_to_text fails"):
        JinjaTemplate(UNREAD[name], "doc_to_text").render(DOCUMENT, "row 1")


BOMBS = {
    "power": "{{ 9 ** 999999999 }}",
    "product": "{{ 'a' * 10 ** 9 }}",
    "list": "{{ [answer] * 10 ** 9 }}",
    "double": "{% set a = 'aaaa' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "sum": "{% set a = 'aaaa' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
    "numbers": "{% set a = 9 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
    "nested": "{% set a = [1, 2] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
    "compared": "".join(
        f"{{% set {x} = [1] %}}" + f"{{% set {x} = [{x}, {x}] %}}" * 60 for x in "ab"
    )
    + "{{ a == b }}",
    "nested out": "{{ [" + ", ".join(["numbers"] * 9) + "] * 100000 }}",
    "join": "{% set a = 'a' * 1000000 %}{{ ([a] * 100000)|join }}",
    "join method": "{% set a = 'a' * 1000000 %}{{ a.join(['b'] * 100000) }}",
    "replace": "{% set a = 'a' * 1000000 %}{{ a.replace('a', a) }}",
    "replace filter": "{% set a = 'a' * 1000000 %}{{ a|replace('', a) }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "output": "{% for a in range(9999) %}{{ passage * 100 }}{{ passage * 100 }}{% endfor %}",
    "printf": "{{ '%999999999d' % 1 }}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_grows_without_bounds_ends_early(name):
    began = time.monotonic()
    with pytest.raises(TaskError, match=r"row 1: doc_to_text fails: it(s|) "):
        JinjaTemplate(BOMBS[name], "doc_to_text").render(DOCUMENT, "row 1")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ missing }}", "'missing' is undefined"),
        ("{{ choices.text.index('maybe') }}", "'maybe' is not in list"),
        ("{{ numbers[0] / 0 }}", "division by zero"),
        ("{{ answer.__class__ }}", "unsafe"),
        ("{{ numbers.append(1) }}", "it calls 'append'; expected range, or a method"),
    ],
)
def test_a_template_that_fails_says_where_and_why(source, reason):
    with pytest.raises(TaskError, match=rf"doc_to_text.*{reason}"):
        JinjaTemplate(source, "doc_to_text").render(DOCUMENT, "sciq, document 3")


def test_steps_are_counted_for_each_document_anew():
    template = JinjaTemplate("{% for n in range(6000) %}{% endfor %}x", "doc_to_text")
    assert [template.render({}, "row") for _ in range(3)] == ["x", "x", "x"]


@given(st.text(alphabet=st.sampled_from("ab {}%#-\\\"'\n\r\té\u2028𝄞"), max_size=12), st.text())
def test_a_literal_gives_its_text_beside_a_variable(text, value):
    source = f"{jinja_literal(text)}{{{{ name }}}}{jinja_literal(text)}"
    for environment in (None, jinja2.Environment(keep_trailing_newline=True)):
        if environment is None:
            found = JinjaTemplate(source, "it").render({"name": value}, "row")
        else:
            found = environment.from_string(source).render(name=value)
        assert found == text + value + text


def test_a_plain_literal_is_written_as_it_is():
    text = "Is it good? {one brace} 50 % # \n"
    assert jinja_literal(text) == text and not re.search("{{", jinja_literal(text))
