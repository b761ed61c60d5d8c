"""Losses from lists of the most probable tokens, within the bounds that are stated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch import Task, compare
from promptsearch.models.endpoint import Endpoint, Place
from promptsearch.models.remote import ServedModel
from promptsearch.models.tokens import Tokens
from promptsearch.prompts.text import TextPrompt
from promptsearch.report import load_results
from promptsearch.report.markdown import to_markdown
from promptsearch.scoring import Engine
from promptsearch.scoring.chat_template import render
from promptsearch.scoring.layout import prompt_texts
from promptsearch.scoring.listed import Range, loss_range, range_of
from promptsearch.scoring.questions import Question, score_questions
from promptsearch.scoring.remote import ServedScorer
from promptsearch.testing.server import Server
from promptsearch.testing.serving import with_model
from promptsearch.testing.tiny import WORDS

PIECES = ["a", "b", "ab", " a", "ba", "c"]


def films(template, answers):
    rows = [{"text": f"the story {i}", "label": i % len(answers)} for i in range(30)]
    return Task.from_rows(
        rows,
        template=template,
        label="label",
        answers=dict(enumerate(answers)),
        splits={"search": 12, "select": 6, "test": 6},
        name="films",
    )


def toy(seed, length, most):
    """What a toy model writes, with its lists, and the probabilities behind them."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.full(len(PIECES), 0.5), size=length)
    places = []
    for row in truth:
        best = np.argsort(-row)[:most]
        likely = {PIECES[i]: math.log(row[i] + 1e-300) for i in best}
        places.append(Place(PIECES[best[0]], likely))
    return np.log(truth + 1e-300), places


@given(
    seed=st.integers(0, 2**31),
    most=st.integers(1, len(PIECES)),
    answer=st.lists(st.sampled_from(range(len(PIECES))), min_size=1, max_size=4),
    length=st.integers(1, 4),
)
def test_an_answer_lies_within_its_range(seed, most, answer, length):
    """Places are independent in the toy model, so that the truth is known beyond what is written.

    Of a place that is not shown, nothing is known: there each log-probability may be anything.
    """
    truth, places = toy(seed, 4, most)
    tokens = [PIECES[i] for i in answer]
    found = range_of("".join(tokens), places[:length], lambda text: tokens, anew=False)
    exact = sum(truth[place, i] for place, i in enumerate(answer))
    assert found.lowest <= exact + 1e-9 and exact <= found.highest + 1e-9
    wrote = [place.token for place in places[: len(tokens)]]
    assert found.written == (length >= len(tokens) and wrote == tokens)
    shown = len(tokens) <= length and all(
        t in p.likely for t, p in zip(tokens, places, strict=False)
    )
    followed = wrote[: len(tokens) - 1] == tokens[:-1]
    assert (found.lowest == found.highest) == (shown and followed)


@given(
    highest=st.lists(st.floats(-9, 0), min_size=2, max_size=4),
    gaps=st.lists(st.one_of(st.just(math.inf), st.floats(0, 5)), min_size=4, max_size=4),
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_a_loss_lies_within_its_range(highest, gaps, shares):
    ranges = [Range(h, h - gap, False) for h, gap in zip(highest, gaps, strict=False)]
    inside = np.array(
        [r.highest - min(gap, 50) * s for r, gap, s in zip(ranges, gaps, shares, strict=False)]
    )
    loss = np.logaddexp.reduce(inside) - inside[0]
    low, high = loss_range(ranges, 0)
    assert low <= loss + 1e-9 and loss <= high + 1e-9


def test_without_a_tokenizer_the_longest_listed_token_is_the_next_one():
    place = Place("x", {"x": -0.1, "g": -4.0, "go": -3.0, " good": -5.0, "\n\ngood": -6.0})
    assert range_of("good", [place], None, anew=False) == Range(-3.0, -math.inf, False)
    assert range_of("bad", [place], None, anew=True) == Range(-6.0, -math.inf, False)
    blank = Place("x", {"x": -0.1, "\n\ngood": -6.0, " good": -5.0})
    assert range_of(" good", [blank], None, anew=True) == Range(-5.0, -5.0, False)
    assert range_of("good", [blank], None, anew=False) == Range(-6.0, -math.inf, False)


@pytest.mark.parametrize(
    ("most", "answers", "exact"),
    [
        (1000, ("y", "n"), True),
        (1000, ("good", "n", "very good"), False),
        (20, ("y", "n"), False),
    ],
    ids=["all tokens are listed", "answers of several tokens", "20 tokens are listed"],
)
def test_a_chat_gives_the_losses_of_the_engine_within_the_bounds(tiny, most, answers, exact):
    here = films([{"user": "{prompt} {text}?"}, {"assistant": "{answer}"}], answers)
    there = replace(here, template=films("{prompt} {text}?{answer}", answers).template)
    prompts, ids = [TextPrompt(text) for text in ("Is it good?", "x", "the film")], np.arange(12)
    messages = render(here.template.bind(2), tiny)
    ours = Engine(tiny, messages, here.splits["search"], here.choices).score(prompts, ids)
    with Server(with_model(tiny, limit=most)) as server:
        served = ServedModel(
            Endpoint(server.url, "tiny", seconds=5, retries=0, chat=True),
            tokens=Tokens(tiny.tokenizer),
            listed=True,
        )
        assert served.way.scores == "first" and served.way.most == most
        assert most == 1000 or served.way.unseen > 0.5
        template, split = there.template.bind(2), there.splits["search"]
        theirs = ServedScorer(served, template, split, there.choices).score(prompts, ids)
        examples = split.examples[:12]
        found = score_questions(
            served,
            [
                Question(
                    template.render(e.fields, prompt_texts(template, served, p), ""),
                    answers,
                    e.choice,
                )
                for p in prompts
                for e in examples
            ],
        )
    bounds = np.array([each.bounds for each in found]).reshape(len(prompts), 12, 2)
    assert not theirs.failures and theirs.choices is not None
    low, high = bounds[..., 0], bounds[..., 1]
    assert (low <= ours.losses + 1e-4).all() and (ours.losses <= high + 1e-4).all()
    assert (low <= theirs.losses + 1e-5).all() and (theirs.losses <= high + 1e-5).all()
    assert not exact or np.allclose(low, high) and np.allclose(theirs.losses, ours.losses)


def test_no_thread_of_a_client_shares_the_tokenizer_that_reads_chats(tiny, monkeypatch):
    """A tokenizer of transformers has one switch for special tokens, and its users two settings.

    Where they shared it, now and then a chat was read with its special tokens as plain text.
    """
    answer = with_model(tiny)
    asked = {"messages": [{"role": "user", "content": "Is it good?"}], "max_tokens": 1}
    before = answer("/chat/completions", asked).body
    monkeypatch.setattr(tiny, "tokenizer", None)
    assert answer("/chat/completions", asked).body == before


def test_a_study_on_a_chat_has_smooth_losses_and_says_what_they_are(tiny, tmp_path):
    told = []
    task = films("{prompt} {text}?{answer}", ("good", "bad"))
    with Server(with_model(tiny, limit=20)) as server:
        config = {
            "name": "s",
            "model": {"endpoint": server.url, "model": "tiny", "retries": 0, "chat": True},
            "task": "films",
            "pool": [word.strip() for word in WORDS],
            "budget": 3_000,
            "seeds": 1,
            "length": 2,
            "score_on": 4,
            "strategies": ["random"],
        }
        results = compare(config, out=tmp_path, task=task, progress=told.append)
    (run,) = results.runs
    assert run.test.loss not in (0.0, 1.0) and run.test.loss != 1 - run.test.metric
    (note,) = [each.message for each in told if each.stage == "note"]
    assert "from the 20 most probable tokens of what it writes" in note
    assert "% of the probability (a chat tells no log-probabilities of a text)" in note
    assert "20 most probable tokens" in to_markdown(load_results(tmp_path))
