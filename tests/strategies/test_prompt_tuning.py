"""Prompt tuning: the conformance suite, its starts, and the shared training loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch import SoftPrompt, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.scoring.layout import slots_of
from promptsearch.search import loop
from promptsearch.search.books import books_of
from promptsearch.strategies.prompt_tuning import PromptTuning
from promptsearch.study.arena import Arena
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import objective_on
from promptsearch.testing.tiny_task import tiny_task


class TestPromptTuning(StrategyConformance):
    strategy = PromptTuning
    options = {"interval": 2, "batch": 4, "rate": 0.05}
    planted = "separable"
    few = 30


class TestAdafactor(StrategyConformance):
    strategy = PromptTuning
    options = {"interval": 2, "batch": 4, "rate": 0.05, "optimizer": "adafactor"}
    planted = "separable"
    seeds = 5
    few = 30


class TestRangeTest(StrategyConformance):
    strategy = PromptTuning
    options = {"interval": 2, "batch": 4, "rate": "auto"}
    planted = "separable"
    seeds = 5
    few = 30


def objective(evaluations=40):
    scorer = PlantedScorer("separable")
    return scorer.objective(scorer.budget(evaluations))


def first(**options):
    return PromptTuning(objective(), seed=0, **options).ask()[0].vectors


def test_words_start_from_rows_of_the_pool():
    given = objective()
    rows = given.embeddings[torch.from_numpy(given.space.pool.copy())].float()
    start = PromptTuning(given, seed=0).ask()[0].vectors
    assert all(any(torch.equal(vector, row) for row in rows) for vector in start)


def test_frequent_words_are_the_first_ones_of_the_pool(monkeypatch):
    monkeypatch.setattr("promptsearch.strategies.prompt_tuning.FREQUENT", 3)
    given = objective()
    rows = given.embeddings[torch.from_numpy(given.space.pool[:3].copy())]
    start = PromptTuning(given, seed=0, init="frequent").ask()[0].vectors
    assert all(any(torch.equal(vector, row) for row in rows) for vector in start)


def test_labels_are_averaged_over_their_tokens_and_the_rest_are_frequent_words(monkeypatch):
    monkeypatch.setattr("promptsearch.strategies.prompt_tuning.FREQUENT", 3)
    given = objective()
    tokens = {" yes": [7], " no": [8, 9]}
    monkeypatch.setattr(books_of(given).scorer, "encode", tokens.__getitem__)
    start = PromptTuning(given, seed=0, init="labels").ask()[0].vectors
    counts = [sum(e.answer == answer for e in given.examples(given.training)) for answer in tokens]
    assert counts[0] >= counts[1], "the most frequent answer comes first"
    assert torch.equal(start[0], given.embeddings[7])
    assert torch.allclose(start[1], given.embeddings[[8, 9]].mean(0))
    rows = given.embeddings[torch.from_numpy(given.space.pool[:3].copy())]
    assert all(any(torch.equal(vector, row) for row in rows) for vector in start[2:])


def test_more_labels_than_vectors_are_cut():
    scorer = PlantedScorer("separable", length=1)
    given = scorer.objective()
    (prompt,) = PromptTuning(given, seed=0, init="labels").ask()
    answers = [e.answer for e in given.examples(given.training)]
    frequent = max(answers, key=answers.count)
    assert torch.allclose(prompt.vectors[0], given.embeddings[given.encode(frequent)].mean(0))


def test_adafactor_takes_steps_of_a_constant_rate_whatever_the_gradient():
    strategy = PromptTuning(objective(), seed=0, optimizer="adafactor", rate=0.01, batch=4)
    steps = []
    for scale in (1e-3, 1e3):
        before = strategy.module().detach().clone()
        scorer = books_of(strategy.objective).scorer
        loss = scorer.loss
        scorer.loss = lambda *given, loss=loss, scale=scale: scale * loss(*given)
        strategy.train()
        scorer.loss = loss
        steps.append(float((strategy.module().detach() - before).square().mean().sqrt()))
    assert steps[0] == pytest.approx(0.01, rel=0.2), (
        "its first step has the size of the rate in each number"
    )
    assert 0.005 < steps[1] <= 0.0101
    assert strategy.training.clipped == 0


def test_random_starts_at_the_scale_of_the_embeddings():
    scale = objective().embeddings.std()
    assert first(init="random").std() == pytest.approx(float(scale), rel=0.5)


def test_a_text_is_repeated_to_the_length(monkeypatch):
    given = objective()
    ids = given.space.pool[:2].tolist()
    monkeypatch.setattr(books_of(given).scorer, "encode", lambda text: ids)
    start = PromptTuning(given, seed=0, text="two words").ask()[0].vectors
    expected = [given.embeddings[ids[i % 2]].float() for i in range(len(start))]
    assert torch.equal(start, torch.stack(expected))


def test_training_lowers_the_loss_to_near_the_optimum():
    given = objective(400)
    strategy = PromptTuning(given, seed=0, interval=4, batch=8, rate=0.1)
    start = float(given.evaluate(strategy.ask()).values[0])
    loop.search(PromptTuning(given, seed=0, interval=4, batch=8, rate=0.1))
    assert given.ranking[0].value < start - 0.5 * (start - books_of(given).scorer.optimum_value)


def test_a_prompt_that_was_scored_does_not_change_with_further_training():
    strategy = PromptTuning(objective(), seed=0, interval=2, batch=4)
    evaluation = strategy.objective.evaluate(prompts := strategy.ask())
    strategy.tell(prompts, evaluation)
    before = prompts[0].vectors.clone()
    later = strategy.ask()[0]
    assert torch.equal(prompts[0].vectors, before) and later != prompts[0]


def test_the_best_prompt_wins_not_the_last():
    given = objective(60)
    strategy = PromptTuning(given, seed=0, interval=1, batch=2, rate=3.0)
    strategy.schedule = lambda step: 1.0  # never calms down
    loop.search(strategy)
    values = [np.mean(row) for line in given.log.lines for row in line["losses"]]
    assert given.ranking[0].value == min(values) < values[-1]
    assert isinstance(given.ranking[0].prompt, SoftPrompt)


def test_patience_ends_the_run():
    given = objective(1000)
    end = loop.search(PromptTuning(given, seed=0, interval=1, batch=2, rate=3.0, patience=3))
    assert end == "no lower loss in 3 scorings in a row" and len(given.log.lines) < 400


def test_the_rate_rises_and_falls_to_zero_at_the_end_of_the_budget():
    given = objective(300)
    strategy = PromptTuning(given, seed=0, interval=4, batch=8)
    shares = [strategy.schedule(step) for step in range(strategy.planned + 1)]
    assert max(shares) == 1 and shares[0] < 1 and shares[-1] == 0
    loop.search(strategy)
    assert abs(strategy.training.steps - strategy.planned) <= 0.1 * strategy.planned + 4


def test_backward_is_charged_beside_forward():
    given = objective()
    before = given.ledger.spent
    vectors = torch.zeros(given.space.length, given.embeddings.shape[1], requires_grad=True)
    given.loss(vectors, given.training[:3])
    tokens = given.price(
        [SoftPrompt(vectors)], given.training[:3]
    )  # the text before the slot is paid by now
    lead = int(books_of(given).scorer.lead(given.training[:3]).sum())
    assert given.ledger.backward == tokens and given.ledger.spent - before == 2 * tokens + lead


def started(start, **options):
    given = objective()
    given.start = start
    return given, PromptTuning(given, seed=0, **options)


def test_starts_at_the_words_of_another_run_and_is_worth_what_they_are():
    scorer = PlantedScorer("separable")
    given, strategy = started(scorer.optimum, init="random")
    (prompt,) = strategy.ask()
    assert torch.equal(prompt.vectors, given.embeddings[list(scorer.optimum.ids)])
    assert given.evaluate([prompt]).values[0] == pytest.approx(scorer.optimum_value, abs=1e-6)


def test_starts_at_the_vectors_of_another_run():
    vectors = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(started(SoftPrompt(vectors))[1].ask()[0].vectors, vectors)


def test_starts_at_a_text_that_another_run_found_repeated_to_the_length():
    given, strategy = started(TextPrompt(["w3 w5", " w8"]))
    assert torch.equal(strategy.ask()[0].vectors, given.embeddings[[3, 5, 8, 3]])


def test_the_empty_prompt_is_no_start_and_two_starts_are_one_too_many():
    with pytest.raises(StrategyError, match="won by the empty prompt"):
        started(TextPrompt(""))
    with pytest.raises(StrategyError, match="give one of them"):
        started(TextPrompt("w3"), text="w5")


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{text} It was {prompt:4} {answer}", ["good film"]),
        ("{prompt:2} movie: {text} {prompt:2} {answer}", ["good film", "good film"]),
    ],
)
def test_a_text_is_cut_into_tokens_as_it_stands_in_the_slots(tiny, template, texts):
    arena = Arena.build(tiny_task(template), tiny, torch.float32, 4, tiny.words, 8)
    given = objective_on(arena)
    given.start = winner = TextPrompt(texts)
    (start,) = PromptTuning(given, seed=0).ask()
    pairs = zip(slots_of(arena.template, tiny, winner), arena.template.slots, strict=True)
    ids = [i for tokens, slot in pairs for i in (tokens * 4)[: slot.length]]
    assert torch.equal(start.vectors, given.embeddings[ids].float())
