"""Prompts with answer words of their own: what they are as values, and what is refused."""

from __future__ import annotations

import pytest

from promptsearch import HardPrompt, TextPrompt, VerbalizedPrompt
from promptsearch.errors import ExportError, PromptError, StrategyError
from promptsearch.export.certificate import check_held
from promptsearch.prompts.kinds import KINDS, own_copy, prompt_from_json
from promptsearch.prompts.space import PromptSpace

ANSWERS = [[" bad", " boring"], [" good", " great"]]
PROMPTS = [
    VerbalizedPrompt(TextPrompt(["It was", "so"]), ANSWERS),
    VerbalizedPrompt(HardPrompt([3, 5]), [" bad", " good"]),
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_comes_back_from_json_and_is_copied(prompt):
    assert prompt_from_json(prompt.to_json()) == prompt == own_copy(prompt)
    assert own_copy(prompt).key == prompt.key and own_copy(prompt) is not prompt
    assert KINDS["verbalized"].tokens_in(prompt.to_json(), 7) == prompt.words.length
    assert prompt.length == prompt.words.length and prompt.fill is not None


def test_its_key_is_that_of_words_and_answers():
    text = TextPrompt("It was")
    told = [[" a", " b"], [" c", " d"]]
    keys = {
        VerbalizedPrompt(text, told).key,
        VerbalizedPrompt(text, told[::-1]).key,
        VerbalizedPrompt(TextPrompt("It is"), told).key,
        VerbalizedPrompt(text, [[" a", " c"], [" b", " d"]]).key,
    }
    assert len(keys) == 4 and text.key not in keys
    assert text.answers is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([" good"], "at least two classes"),
        ([[], []], "at least two classes"),
        ([[" a"], [" b", " c"]], "as many answer words each"),
        ([" a", " a"], "answer words that differ"),
        ([" a", ""], "answer words that differ"),
    ],
)
def test_what_stands_for_no_classes_is_refused(answers, message):
    with pytest.raises(PromptError, match=message):
        VerbalizedPrompt(TextPrompt("It was"), answers)


@pytest.mark.parametrize("answers", [None, "ab", ["a", "b"], [["a"], [1]], {"a": "b"}])
def test_files_that_hold_no_words_are_refused(answers):
    data = PROMPTS[0].to_json() | {"answers": answers}
    with pytest.raises(PromptError, match="expected 'answers' of a verbalized prompt as a list"):
        prompt_from_json(data)


def test_a_changed_file_is_refused():
    with pytest.raises(PromptError, match="does not have the content that its key names"):
        prompt_from_json(PROMPTS[0].to_json() | {"answers": [["x", "y"], ["z", "w"]]})


def test_the_slots_do_not_give_an_answer_away():
    space = PromptSpace([3, 5, 6], 2, lambda ids: "".join(f" w{i}" for i in ids))
    VerbalizedPrompt(HardPrompt([3, 5]), [" w6", " good"]).check(space, None)
    with pytest.raises(StrategyError, match="' w5' stands in the prompt as well"):
        VerbalizedPrompt(HardPrompt([3, 5]), [" w5", " good"]).check(space, None)
    with pytest.raises(StrategyError, match="not in the pool"):
        VerbalizedPrompt(HardPrompt([3, 9]), [" w6", " good"]).check(space, None)


@pytest.mark.parametrize("to", ["text", "kv", "peft", "vllm", "lm-eval", "dspy"])
def test_only_json_holds_it(to):
    with pytest.raises(ExportError, match=f"the format {to} has no place for"):
        check_held(PROMPTS[0], to)
    check_held(PROMPTS[0], "json")
