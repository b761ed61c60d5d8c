"""Solved examples in a text: which tokens are input, answer or neither, in all families."""

from __future__ import annotations

import numpy as np
import pytest

from promptsearch.models import LanguageModel
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.search.objective import Objective
from promptsearch.search.shown import Shown, read_shown
from promptsearch.testing.families import FAMILIES
from promptsearch.testing.tiny_task import ROWS, tiny_engine

TEMPLATE = "{prompt} {text} It was {answer}"
MODELS = {name: LanguageModel(*made(), name=name) for name, made in FAMILIES.items()}


@pytest.fixture(params=MODELS)
def lm(request):
    return MODELS[request.param]


def objective_of(lm, answers=("bad", "good"), rows=ROWS):
    engine = tiny_engine(lm, TEMPLATE, answers, rows=rows)
    space = PromptSpace(lm.words, 3, lm.decode, embeddings=lambda: lm.vocabulary)
    every = np.arange(12)
    return Objective(engine, space, Ledger(None), scored=every[:2], training=every[2:])


def read(lm, shown, places):
    """The text of some tokens."""
    return lm.decode([shown.ids[place] for place in sorted(places)]).strip().lower()


def bare(text):
    return "".join(text.split())


@pytest.mark.parametrize("answers", [("bad", "good"), ("bad movie", "good"), None])
def test_inputs_and_answers_are_found_between_words_of_the_template(lm, answers):
    objective = objective_of(lm, answers)
    ids = [3, 5, 8]
    text = "Is it good?\n" + "".join(s + "\n" for s in objective.demonstrations(ids))
    shown = read_shown(objective, text)
    assert shown.ids == tuple(objective.encode(text)) and set(shown.examples) == set(ids)
    examples = objective.examples(ids)
    found = [read(lm, shown, answer) for answer in shown.answers]
    assert found == [example.answer.strip().lower() for example in examples]
    inputs = "".join(example.fields["text"].lower() for example in examples)
    assert bare(read(lm, shown, shown.inputs)) == bare(inputs)
    taken = shown.inputs | {place for answer in shown.answers for place in answer}
    rest = read(lm, shown, set(range(len(shown.ids))) - taken)
    assert bare(rest) == "isitgood?" + "itwas" * 3


def test_an_answer_may_be_a_wrong_one():
    objective = objective_of(MODELS["causal"])
    (right,) = (example.answer for example in objective.examples([3]))
    wrong = {" bad": " good", " good": " bad"}[right]
    shown = read_shown(objective, objective.demonstrations([3], [wrong])[0])
    assert [read(MODELS["causal"], shown, a) for a in shown.answers] == [wrong.strip()]


def test_an_example_that_ends_like_another_one_is_not_taken_for_it():
    rows = [{"text": "very " * i + "good film", "label": i % 2} for i in range(24)]
    objective = objective_of(MODELS["causal"], rows=rows)
    ids = objective.training[np.argsort([len(s) for s in objective.demonstrations(range(2, 12))])]
    shown = read_shown(objective, "\n".join(objective.demonstrations(ids[::-1])))
    assert set(shown.examples) == set(ids.tolist()) and len(shown.answers) == len(ids)


def test_examples_that_are_scored_on_are_not_looked_for():
    objective = objective_of(MODELS["causal"])
    shown = read_shown(objective, "\n".join(objective.demonstrations([0, 1])))
    assert not shown.answers and not shown.inputs and not shown.examples


def test_a_token_that_reaches_out_of_an_answer_belongs_to_it(monkeypatch):
    objective = objective_of(MODELS["causal"])
    (solved,) = objective.demonstrations([3])
    cut = {}  # as a tokenizer that joins an answer with the line's end

    def encode(self, text):
        merged = "good\n" if "good\n" in text else "bad\n" if "bad\n" in text else None
        head, _, tail = text.partition(merged) if merged else (text, "", "")
        pieces = [*head, *([merged] if merged else []), *tail]
        return [cut.setdefault(piece, len(cut)) for piece in pieces]

    monkeypatch.setattr(Objective, "encode", encode)
    shown = read_shown(objective, solved + "\nIs it?")
    (answer,) = shown.answers
    names = {number: piece for piece, number in cut.items()}
    assert [names[shown.ids[place]] for place in answer][-1] in ("good\n", "bad\n")


def test_the_last_tokens_keep_what_they_are():
    shown = Shown((5, 6, 7, 8, 9, 4), frozenset({0, 3}), (range(1, 3), range(4, 5)), (2, 8))
    assert shown.last(6) == shown == shown.last(9)
    cut = Shown((7, 8, 9, 4), frozenset({1}), (range(1), range(2, 3)), (2, 8))
    assert shown.last(4) == cut
    assert shown.last(3).answers == (range(1, 2),)
    assert shown.last(3).examples == (8,), "the example whose answer was cut away is not shown"
