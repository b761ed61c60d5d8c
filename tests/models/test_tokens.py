"""Tokenizers as they come: inside a text a token looks, and a text is cut, as there.

What is scored is the whole text's ids.
"""

from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch import LanguageModel, Task
from promptsearch.errors import StudyError
from promptsearch.export import SavedPrompt
from promptsearch.export.prompted import PromptedModel
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.space import PromptSpace
from promptsearch.prompts.text import TextPrompt
from promptsearch.scoring import Engine
from promptsearch.scoring.layout import encode, lay_out, prompt_texts, slots_of
from promptsearch.search.pool import make_pool
from promptsearch.study.config import parse_config
from promptsearch.study.prepare import prepare
from promptsearch.tasks.template import Template
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_tokenizers import Tokenization, tokenizer_of

KINDS = [*get_args(Tokenization), "bytes"]
WORDY = [kind for kind in KINDS if kind != "characters"]
FRONT, BEHIND = "{prompt} {text} It was{answer}", "{text} {prompt} It was{answer}"
BETWEEN = "Say:{prompt:1} {text}{prompt:2} is{answer}"
TEXTS = ["good film", "I hate the story", "the capital of France", "a very bad, funny movie"]


@cache
def model(kind):
    made, tokenizer = tiny_model("llama")
    return LanguageModel(made, tokenizer if kind == "bytes" else tokenizer_of(kind), name=kind)


@cache
def films(template):
    rows = [{"text": f"{TEXTS[i % 4]} {'very ' * (i % 3)}{i}", "label": i % 2} for i in range(40)]
    answers = {0: " bad", 1: " very good"}
    sizes = {"search": 16, "select": 8, "test": 8}
    return Task.from_rows(
        rows, template=template, label="label", answers=answers, splits=sizes, name="films"
    )


@cache
def engine(kind, template):
    task = films(template)
    return Engine(model(kind), task.template.bind(2), task.splits["search"], task.choices)


def whole_ids(lm, text):
    """What the tokenizer itself makes of a text, with what it puts first."""
    return [
        *lm.lead,
        *lm.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids,
    ]


def plain_loss(lm, template, task, example, texts):
    """The loss of transformers' own forward on the whole text, cut by the tokenizer at once."""
    sums = []
    for choice in task.choices:
        before = whole_ids(lm, template.render(example.fields, texts, ""))
        ids = whole_ids(lm, template.render(example.fields, texts, choice))
        assert ids[: len(before)] == before, (
            "the answer does not change how the text before it is cut"
        )
        with torch.no_grad():
            rows = lm.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(rows[i - 1, ids[i]] for i in range(len(before), len(ids))))
    return -float(torch.stack(sums).log_softmax(0)[example.choice])


@pytest.mark.parametrize("kind", WORDY)
def test_the_pool_holds_words_as_they_stand_inside_a_text(kind):
    lm = model(kind)
    assert len(lm.words) > 10
    assert {lm.decode([i]) for i in lm.words} >= {" good", " bad", " movie"}
    for i in lm.words:
        word = lm.decode([i])
        assert word[0] == " " and word[1:].isalpha() and lm.encode(word) == [i]
        row = whole_ids(lm, f"It was{word}{word}")
        assert row[-2:] == [i, i], "so the tokenizer cuts it in a text"
    assert not set(lm.words) & lm.added


@pytest.mark.parametrize("template", [FRONT, BEHIND, BETWEEN])
@pytest.mark.parametrize("kind", WORDY)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_what_is_scored_is_the_whole_text(kind, template, data):
    lm, task, scorer = model(kind), films(template), engine(kind, template)
    bound = task.template.bind(2)
    words = data.draw(
        st.lists(st.sampled_from(lm.words), min_size=bound.length, max_size=bound.length)
    )
    some = st.sampled_from(["", "the good movie", "Answer with one word.", "It was"])
    drawn = data.draw(st.lists(some, min_size=len(bound.slots), max_size=len(bound.slots)))
    spaced = [
        text if slot.space or not text else f" {text}"
        for text, slot in zip(drawn, bound.slots, strict=True)
    ]
    e = data.draw(st.integers(0, 15))
    example = task.splits["search"].examples[e]
    for prompt in (HardPrompt(words), TextPrompt(spaced)):
        texts = prompt_texts(bound, lm, prompt)
        slots = slots_of(bound, lm, prompt)
        layout = lay_out(bound, lm, example, task.choices, slots)
        for ids, choice in zip(layout.answers, task.choices, strict=True):
            assert [*layout.join(slots), *ids] == whole_ids(
                lm, bound.render(example.fields, texts, choice)
            )
        found = scorer.score([prompt], np.array([e]))
        assert not found.failures
        assert found.losses[0, 0] == pytest.approx(
            plain_loss(lm, bound, task, example, texts), abs=2e-4
        )


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_that_leave_slots_empty_are_scored_beside_others(kind):
    lm, task = model(kind), films(FRONT)
    scorer, ids = engine(kind, FRONT), np.arange(16)
    prompts = [
        TextPrompt("good movie"),
        TextPrompt(""),
        HardPrompt(lm.encode(" good")[:1] * 2),
        TextPrompt("It was"),
    ]
    if kind == "characters":
        prompts[2] = TextPrompt("is")
    together = scorer.score(prompts, ids)
    assert not together.failures
    for i, prompt in enumerate(prompts):
        np.testing.assert_allclose(
            together.losses[i], scorer.score([prompt], ids).losses[0], atol=1e-5
        )
    bound = task.template.bind(2)
    for e in range(4):
        expected = plain_loss(lm, bound, task, task.splits["search"].examples[e], [""])
        assert together.losses[1, e] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("kind", WORDY)
def test_a_listed_pool_holds_the_tokens_of_its_words(kind, tmp_path):
    lm = model(kind)
    pool = make_pool(
        ("movie", " is" if kind != "unigram" else "I", "good"), tmp_path, films(FRONT), lm, ()
    )
    assert [lm.decode([i]).strip().lower() for i in pool.ids] == [
        "movie",
        "is" if kind != "unigram" else "i",
    ]
    assert "1 answer tokens ( good)" in pool.made


def test_a_tokenizer_without_words_says_so_and_serves_what_needs_none(tmp_path):
    lm, task = model("characters"), films(FRONT)
    given = {
        "model": "given",
        "task": "films",
        "budget": 90_000,
        "seeds": 1,
        "score_on": 8,
        "length": 2,
    }
    with pytest.raises(
        StudyError,
        match=(
            "'films' is empty: none of the tokenizer's 96 tokens is a space and ASCII letters, a "
            "word in a"
        ),
    ):
        prepare(parse_config({**given, "strategies": ["random"]}), lm, task)
    listed = prepare(
        parse_config({**given, "pool": ["x", "z"], "strategies": ["random"]}), lm, task
    ).arena(task)
    assert [lm.decode([i]) for i in listed.pool.ids] == ["x", "z"]
    none = [{"manual": {"label": "empty"}}, "prompt_tuning", "prefix_tuning"]
    prepared = prepare(parse_config({**given, "strategies": none}), lm, task)
    assert prepared.arena(task).pool.made == "no strategy takes words from it"


@pytest.mark.parametrize("kind", WORDY)
def test_the_beginning_of_a_hard_prompt_is_its_first_tokens(kind):
    lm, task = model(kind), films(FRONT)
    config = {
        "model": "given",
        "task": "films",
        "budget": 90_000,
        "seeds": 1,
        "score_on": 8,
        "length": 2,
        "strategies": ["random"],
    }
    arena = prepare(parse_config(config), lm, task).arena(task)
    assert isinstance(arena.space, PromptSpace)
    for token in lm.words[:20]:
        assert slots_of(arena.template, lm, arena.space.beginning([token])) == ((token,),)


@pytest.mark.parametrize("kind", WORDY)
def test_in_use_a_prompt_is_what_was_scored(kind):
    lm, task = model(kind), films(FRONT)
    example = task.splits["search"].examples[0]
    vectors = lm.vocabulary[list(lm.words[:2])]
    for prompt in (HardPrompt(lm.words[:2]), TextPrompt(""), SoftPrompt(vectors)):
        scored = engine(kind, FRONT).score([prompt], np.array([0]))
        saved = SavedPrompt(prompt=prompt, template=task.template.bind(2), choices=task.choices)
        row = {**example.fields, "answer": example.answer}
        (loss,) = PromptedModel(lm, saved).score([row])
        assert loss == pytest.approx(float(scored.losses[0, 0]), abs=1e-5)


def chat(kind):
    """A tokenizer with marks of messages that are special tokens.

    Mistral's and TinyLlama's chat models have them like this.
    """
    made, _ = tiny_model("llama")
    tokenizer = tokenizer_of(kind)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
    tokenizer.chat_template = (
        "<s>{% for m in messages %}{{ '<|user|>' if m['role'] == 'user' else '<|bot|>' }}"
        "{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|bot|>{% endif %}"
    )
    return LanguageModel(made, tokenizer, name=kind)


@pytest.mark.parametrize("content", ["{prompt} {text}", "Task:{prompt} {text}", "{text}{prompt}"])
@pytest.mark.parametrize("kind", WORDY[:-1])
def test_behind_a_special_token_a_text_is_cut_as_the_tokenizer_does(kind, content):
    from promptsearch.scoring.chat_template import render

    lm = chat(kind)
    bound = render(Template.parse([{"user": content}, {"assistant": "It was{answer}"}]), lm).bind(2)
    example = films(FRONT).splits["search"].examples[1]
    for prompt in (
        HardPrompt(lm.words[:2]),
        TextPrompt(""),
        TextPrompt(" good movie"),
        TextPrompt(" It was"),
    ):
        slots, texts = slots_of(bound, lm, prompt), prompt_texts(bound, lm, prompt)
        layout = lay_out(bound, lm, example, (" bad",), slots)
        row = bound.row(example.fields, texts, " bad")
        ours = [*layout.join(slots), *layout.answers[0]]
        assert ours == encode(lm, row)
        assert (
            ours == lm.tokenizer("".join(p.text for p in row), add_special_tokens=False).input_ids
        )


@pytest.mark.parametrize("kind", ["bytes", "never", "characters"])
def test_tokenizers_that_treat_all_places_alike_are_left_alone(kind):
    lm = model(kind)
    assert not lm.tokens.marks_beginnings
    for text in (" good", "good", "\n\n a", "It was", ".", "<s>"):
        assert (
            lm.encode(text) == lm.encode(text, begins=True) == whole_ids(lm, text)[len(lm.lead) :]
        )
        assert lm.decode(lm.encode(text)) == lm.decode(lm.encode(text), begins=True)
