"""Prompts with answer words of their own, by the engine, in files and in use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from promptsearch import (
    HardPrompt,
    LanguageModel,
    PromptedModel,
    SavedPrompt,
    TextPrompt,
    VerbalizedPrompt,
)
from promptsearch.errors import ExportError, PromptError
from promptsearch.export.saved import load_prompt, write_saved
from promptsearch.scoring import Engine
from promptsearch.testing.families import FAMILIES
from promptsearch.testing.tiny_task import tiny_task

IDS = np.array([3, 0, 7, 3])
TEXT = TextPrompt("The movie")


def engine(lm, task, *, choices=None):
    given = task.choices if choices is None else choices
    return Engine(lm, task.template.bind(2), task.splits["search"], given, keep=True)


def read(scorer, prompt, words):
    """The logits of some words, shape `(examples, words)`."""
    every, logits = scorer.word_logits(prompt, IDS)
    return logits.double().numpy()[:, [every.index(word) for word in words]]


def test_its_losses_are_those_of_the_task_with_these_answers(lm):
    task, words = tiny_task(), (" was", " Paris")
    scorer, prompts = engine(lm, task), [TEXT, HardPrompt(lm.words[:2])]
    own = scorer.score(prompts, IDS)
    # Prompts of all kinds of answers, in one call and out of order.
    mixed = [VerbalizedPrompt(TEXT, words), *prompts, VerbalizedPrompt(prompts[1], words)]
    found = scorer.score(mixed, IDS)
    assert not found.failures
    examples = tuple(
        replace(each, answer=words[each.choice]) for each in task.splits["search"].examples
    )
    other = replace(task, splits={"search": replace(task.splits["search"], examples=examples)})
    wanted = engine(lm, other, choices=words).score(prompts, IDS)
    near = pytest.approx
    assert found.losses[[1, 2]] == near(own.losses, abs=1e-5)
    assert found.losses[[0, 3]] == near(wanted.losses, abs=1e-5)
    assert found.choices[[0, 3]] == near(wanted.choices, abs=1e-5)
    assert not np.allclose(own.losses, wanted.losses)


def test_the_probabilities_of_a_classs_words_are_added_up(tiny):
    scorer = engine(tiny, tiny_task())
    words = [[" was", " It"], [" Paris", " of"]]
    logits = read(scorer, TEXT, [word for some in words for word in some])
    assert logits.shape == (4, 4) and np.array_equal(logits[0], logits[3])
    shares = np.exp(logits).reshape(4, 2, 2).sum(2)
    (losses,) = scorer.score([VerbalizedPrompt(TEXT, words)], IDS).losses
    right = [e.choice for e in scorer.examples(IDS)]
    wanted = -np.log(shares[range(4), right] / shares.sum(1))
    assert losses == pytest.approx(wanted, abs=1e-6)


def test_answers_of_several_tokens_may_be_replaced_by_words(tiny):
    long, short = tiny_task(answers=("bad movie", "good movie")), tiny_task()
    prompt = VerbalizedPrompt(TEXT, (" was", " Paris"))
    losses = [engine(tiny, task).score([prompt], IDS).losses for task in (long, short)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_of_models_reads_them(name):
    lm = LanguageModel(*FAMILIES[name](), name=name)
    scorer = engine(lm, tiny_task())
    words = scorer.word_logits(TEXT, IDS)[0][2:4]
    prompt = VerbalizedPrompt(HardPrompt(lm.words[:2]), words)
    found = scorer.score([prompt], IDS)
    assert not found.failures, found.failures
    logits = read(scorer, prompt.words, words)
    right = np.array([e.choice for e in scorer.examples(IDS)])
    wanted = np.logaddexp(*logits.T) - logits[range(4), right]
    assert found.losses[0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([" good", " bad", " was"], "stand for 3 classes of a task, and this one has 2 classes"),
        ([" good", " goodness gracious"], "answer words of one token of .* each"),
    ],
)
def test_what_stands_for_no_class_fails(tiny, answers, message):
    found = engine(tiny, tiny_task()).score([VerbalizedPrompt(TEXT, answers)], IDS)
    assert np.isnan(found.losses).all()
    with pytest.raises(PromptError, match=message):
        raise PromptError(found.failures[0])


def test_texts_have_no_classes(tiny):
    prompt = VerbalizedPrompt(TEXT, (" was", " Paris"))
    found = engine(tiny, tiny_task(answers=None)).score([prompt], IDS)
    assert "and this one has no classes" in found.failures[0]


def test_in_use_it_gives_the_class_as_it_was_measured(tiny, tmp_path):
    task = tiny_task()
    split = task.splits["search"]
    prompt = VerbalizedPrompt(TEXT, [[" was", " It"], [" Paris", " of"]])
    scorer, ids = engine(tiny, task), np.arange(len(split))
    scores = scorer.score([prompt], ids)
    saved = SavedPrompt(
        prompt=prompt,
        template=task.template.bind(2),
        choices=task.choices,
        about={"model": tiny.facts},
        probe=split.examples[:4],
        losses=tuple(scores.losses[0, :4]),
    )
    write_saved(saved, tiny, tmp_path)
    loaded = load_prompt(tmp_path)
    assert loaded.prompt == prompt and loaded.verify(tiny) < 1e-5
    rows = [dict(e.fields) for e in split.examples]
    told = list(loaded.apply(rows, tiny))
    classes = ["bad", "good"]
    for row, nats in zip(told, scores.choices[0], strict=True):
        assert row["answer"] == classes[int(nats.argmax())]
        shares = [row["probabilities"][name] for name in classes]
        assert shares == pytest.approx(np.exp(nats), abs=1e-5)
    answered = [
        {**row, "answer": classes[e.choice]} for row, e in zip(rows, split.examples, strict=True)
    ]
    assert PromptedModel(tiny, loaded).score(answered) == pytest.approx(scores.losses[0], abs=1e-5)
    wrong = replace(saved, prompt=VerbalizedPrompt(TEXT, [" was", " Paris"]))
    with pytest.raises(ExportError, match="nats per scored token away"):
        wrong.verify(tiny)
    with pytest.raises(PromptError, match="stand for 3 classes"):
        PromptedModel(
            tiny, replace(saved, prompt=VerbalizedPrompt(TEXT, [" was", " Paris", " of"]))
        )
