"""The verbalizer: the conformance suite, planted answer words, and the order of its asks."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch import LanguageModel, TextPrompt, VerbalizedPrompt
from promptsearch.errors import OptionError, StrategyError
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.scoring import Engine
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.search.options import check_options
from promptsearch.strategies.verbalizer import Verbalizer, assignments
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.tiny import tiny_model
from promptsearch.testing.tiny_task import tiny_task

TEXT = TextPrompt("The movie")


class TestVerbalizer(StrategyConformance):
    strategy = Verbalizer
    options = {"words": 1, "keep": 2}
    evaluations, few = 100, 20


def loss_of(logits, classes, words):
    """The mean loss in nats by the definition: probabilities, their sums, and their shares."""
    shares = np.exp(logits - logits.max(1, keepdims=True))
    sums = np.stack([shares[:, list(some)].sum(1) for some in words], 1)
    return float(-np.log(sums[np.arange(len(sums)), classes] / sums.sum(1)).mean())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 2), st.integers(2, 3))
def test_assignments_are_those_of_least_loss(seed, words, count):
    """Against all assignments of a small vocabulary, and with losses by the definition."""
    rng = np.random.default_rng(seed)
    classes = np.arange(12) % count
    logits = rng.normal(size=(12, 7)) * 2
    found = assignments(logits, classes, words, 7, count=3)
    every = [
        some for some in product(range(7), repeat=count * words) if len(set(some)) == len(some)
    ]
    least = min(
        loss_of(logits, classes, np.reshape(some, (count, words)).tolist()) for some in every
    )
    losses = [loss_of(logits, classes, some) for some in found]
    assert losses == sorted(losses) and len(set(found)) == 3
    assert losses[0] == pytest.approx(least, abs=0.02)
    assert all(len({i for own in some for i in own}) == count * words for some in found)


def test_classes_with_the_same_candidates_find_words_behind_them():
    rng = np.random.default_rng(0)
    classes = np.arange(12) % 3
    for _ in range(50):
        logits = rng.normal(size=(12, 40))
        found = assignments(logits, classes, 4, 4, count=3)
        assert found and all(len({i for own in some for i in own}) == 12 for some in found)
        losses = [loss_of(logits, classes, some) for some in found]
        assert losses == sorted(losses)
    assert assignments(logits[:, :11], classes, 4, 4, count=3) == [], "there are too few words"


def planted(budget=20_000):
    """An objective whose classes two words tell under a prompt, by a model that is sure of them.

    Returns:
        The objective, and the two words.
    """
    model, tokenizer = tiny_model("llama")
    lm, task = LanguageModel(model, tokenizer), tiny_task()
    template, split = task.template.bind(2), task.splits["search"]
    first = Engine(lm, template, split, task.choices)
    told, looked = first.word_logits(TEXT, np.arange(len(split)))
    logits = looked.double().numpy()
    apart = {
        (i, j): logits[:, j] - logits[:, i] for i, j in combinations(range(logits.shape[1]), 2)
    }
    both = {
        pair: np.abs(some).min()
        for pair, some in apart.items()
        if all(2 <= (half > 0).sum() <= 4 for half in np.split(some, 2))
    }
    pair = max(both, key=both.get)
    words = [told[i] for i in pair]
    with torch.no_grad():
        model.lm_head.weight[[lm.encode(word)[0] for word in words]] *= 40
    labels = (apart[pair] > 0).astype(int).tolist()
    examples = tuple(
        replace(each, choice=label, answer=task.choices[label])
        for each, label in zip(split.examples, labels, strict=True)
    )
    sure = LanguageModel(model, tokenizer)
    objective = Objective(
        Engine(sure, template, replace(split, examples=examples), task.choices),
        PromptSpace(lm.words, 2, lm.decode, embeddings=lambda: lm.vocabulary),
        Ledger(budget),
        scored=np.arange(6),
        training=np.arange(6, 12),
    )
    return objective, words


def test_it_finds_the_planted_words():
    objective, words = planted()
    strategy = Verbalizer(objective, seed=0, prompts=["The movie"], words=1, tries=0)
    asked = []
    ask = strategy.ask
    strategy.ask = lambda: asked.append(ask()) or asked[-1]
    assert search(strategy) == "nothing left to propose"
    asked = asked[1]
    own, best = objective.log.lines[0], objective.ranking[0]
    assert isinstance(best.prompt, VerbalizedPrompt) and best.prompt.words == TEXT
    # Of all pairs, it is the best one on the training examples, as good as the planted one.
    told, looked = objective.word_logits(TEXT, strategy.examples)
    logits = looked.double().numpy()
    losses = {
        pair: loss_of(logits, strategy.classes, [[place] for place in pair])
        for pair in permutations(range(len(told)), 2)
    }
    least = min(losses, key=losses.get)
    found = tuple(told.index(word) for (word,) in asked[0].answers)
    assert losses[found] == pytest.approx(losses[least], abs=1e-3)
    assert losses[found] <= losses[tuple(map(told.index, words))] + 1e-3 < 0.1
    assert best.value < 0.5 * np.mean(own["losses"])


def test_it_pays_for_what_it_looks_at():
    objective, _ = planted()
    strategy = Verbalizer(objective, seed=0, prompts=["The movie"], words=1, tries=0)
    assert strategy.ask() == [TEXT]
    strategy.tell([TEXT], objective.evaluate([TEXT]))
    before, price = objective.ledger.forward, objective.price([TEXT], strategy.examples)
    asked = strategy.ask()
    assert all(prompt.words == TEXT for prompt in asked)
    assert objective.ledger.forward == before + price
    assert set(strategy.examples) <= set(objective.training)


def test_prompts_take_turns_best_first_and_then_change():
    objective, _ = planted(60_000)
    strategy = Verbalizer(objective, seed=1, prompts=["The movie", "It was"], words=1, tries=3)
    first = strategy.ask()
    evaluation = objective.evaluate(first)
    strategy.tell(first, evaluation)
    order = [first[i] for i in np.argsort(evaluation.values)]
    for prompt in order:
        asked = strategy.ask()
        assert {each.words for each in asked} == {prompt} and len(asked) == 4
        strategy.tell(asked, objective.evaluate(asked))
    asked = strategy.ask()
    assert len(asked) == 3
    best = strategy.best
    before = best.words.texts[0].split()
    for each in asked:
        assert each.answers == best.answers
        after = each.words.texts[0].split()
        assert abs(len(after) - len(before)) <= 1 and after != before


def test_a_change_of_solved_examples_leaves_their_lines_as_they_are():
    objective, _ = planted(60_000)
    text = "the film one: bad\n\nthe film two: good\n"
    strategy = Verbalizer(objective, seed=0, prompts=[text], words=1, keep=1, tries=24)
    for _ in range(2):  # as it is, and with answer words
        strategy.tell([], objective.evaluate(strategy.ask()))
    found = [prompt.words.texts[0] for prompt in strategy.ask()]
    lines = [line.split() for line in text.split("\n")]
    sizes = set()
    for each in found:
        assert each == each.replace("  ", " ") and each.count("\n") == 3, repr(each)
        new = [line.split() for line in each.split("\n")]
        ((before, after),) = [pair for pair in zip(lines, new, strict=True) if pair[0] != pair[1]]
        assert " ".join(after) in each.split("\n")
        sizes.add(len(after) - len(before))
    assert len(found) == 24 and sizes == {-1, 0, 1}


def test_tasks_without_classes_are_refused(tiny):
    task = tiny_task(answers=None)
    engine = Engine(tiny, task.template.bind(2), task.splits["search"], None)
    space = PromptSpace(tiny.words, 2, tiny.decode, embeddings=lambda: tiny.vocabulary)
    objective = Objective(
        engine, space, Ledger(1_000), scored=np.arange(6), training=np.arange(6, 12)
    )
    with pytest.raises(StrategyError, match="this task's rows have none in common"):
        Verbalizer(objective, seed=0)


def test_words_are_not_looked_for_under_a_prompt_that_failed():
    objective, _ = planted()
    long = "movie " * 700  # more than the model's context
    strategy = Verbalizer(objective, seed=0, prompts=[long], words=1, tries=2)
    assert strategy.ask() == [TextPrompt(long)]
    strategy.tell([], objective.evaluate([TextPrompt(long)]))
    assert all(prompt.answers is None for prompt in strategy.ask()), "it goes on to changes"


def test_fewer_candidates_than_words_are_refused():
    with pytest.raises(OptionError, match="3 'candidates' are fewer than the 16 'words'"):
        check_options("verbalizer", Verbalizer, {"candidates": 3})
