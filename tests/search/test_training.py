"""The training loop of all trained strategies.

What it refuses, parts of a step, a training that diverges, what it notes.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from promptsearch.errors import NothingUsable, StrategyError
from promptsearch.models.optimizers import adafactor
from promptsearch.records.ledger import Ledger
from promptsearch.search.books import books_of
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.search.plugins import find_strategy, make_strategy
from promptsearch.strategies.lora import Lora
from promptsearch.strategies.p_tuning import PTuning
from promptsearch.strategies.prompt_tuning import PromptTuning
from promptsearch.study.arena import Arena
from promptsearch.testing.planted import PlantedScorer, planted_objective


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("p_tuning", {"batch": 0}, "'batch' must be at least 1, got 0"),
        ("p_tuning", {"interval": 0}, "'interval' must be at least 1, got 0"),
        ("p_tuning", {"patience": -1}, "'patience' must be at least 0, got -1"),
        ("p_tuning", {"hidden": 1}, "'hidden' must be at least 2, got 1"),
        ("p_tuning", {"accumulate": 0}, "'accumulate' must be at least 1, got 0"),
        (
            "p_tuning",
            {"batch": 4, "accumulate": 5},
            "'accumulate' splits a batch of 4 examples: .* got 5",
        ),
        ("prompt_tuning", {"rate": 0.0}, "'rate' must be above 0, got 0.0"),
        ("prompt_tuning", {"rate": float("inf")}, "'rate' must be a finite number, got inf"),
        ("prompt_tuning", {"rate": "fast"}, "strategy 'prompt_tuning', option 'rate"),
        ("prompt_tuning", {"text": ""}, "'text' is empty"),
        ("prefix_tuning", {"text": ""}, "'text' is empty"),
        ("prefix_tuning", {"hidden": 0}, "'hidden' must be at least 1, got 0"),
        ("prefix_tuning", {"rate": 0.0}, "'rate' must be above 0, got 0.0"),
        ("llama_adapter", {"layers": 0}, "'layers' must be at least 1, got 0"),
        (
            "llama_adapter",
            {"layers": 3},
            "'layers' must be from 1 to 2, the layers of this model, got 3",
        ),
    ],
)
def test_wrong_options_are_named(name, options, complaint):
    with pytest.raises(StrategyError, match=f"^(strategy '{name}': )?{complaint}"):
        make_strategy(name, find_strategy(name), planted_objective(), 0, options)


def test_training_is_a_plain_loop_of_torch():
    """AdamW with clipping and a schedule.

    A linear rise over the first tenth of the steps, and a linear fall to zero.
    """
    made, given = (
        PromptTuning(planted_objective(), seed=0, rate=0.05, batch=8, interval=4) for _ in range(2)
    )
    vectors, rng, total = given.module.rows, np.random.default_rng(0), given.planned
    plain = torch.optim.AdamW([vectors], lr=0.05, weight_decay=0.0)
    warmup = total // 10
    shares = torch.optim.lr_scheduler.LambdaLR(
        plain,
        lambda step: (
            (step + 1) / warmup if step < warmup else min(1, (total - step) / (total - warmup))
        ),
    )
    assert warmup > 2
    for _ in range(2 * warmup):
        made.train()
        plain.zero_grad()
        given.objective.loss(vectors, given.objective.minibatch(rng, 8)).backward()
        torch.nn.utils.clip_grad_norm_([vectors], 1.0)
        plain.step()
        shares.step()
        assert torch.allclose(made.module.rows, vectors, atol=1e-6)
    made, given = (
        PromptTuning(planted_objective(), seed=0, rate=0.05, batch=8, optimizer="adafactor")
        for _ in range(2)
    )
    vectors, rng = given.module.rows, np.random.default_rng(0)
    plain = adafactor([{"params": [vectors]}])
    for group in plain.param_groups:
        group["lr"] = 0.05
    for _ in range(8):
        made.train()
        plain.zero_grad()
        given.objective.loss(vectors, given.objective.minibatch(rng, 8)).backward()
        plain.step()
        assert torch.allclose(made.module.rows, vectors, atol=1e-6)


def test_patience_counts_from_the_last_improvement():
    made = PromptTuning(planted_objective(), seed=0, patience=2)
    told = []
    for value in (1.0, 1.1, 0.9, 1.0, 0.8, 0.9, 0.85):
        (prompt,) = made.ask()
        told.append(value)
        scores = SimpleNamespace(values=np.array([value]), losses=np.array([[value]]), price=1)
        made.tell([prompt], scores)
    with pytest.raises(NothingUsable, match="no lower loss in 2 scorings in a row"):
        made.ask()
    assert len(told) == 7


@pytest.mark.parametrize("strategy", [PromptTuning, PTuning])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_step_in_parts_is_the_same_step(strategy, parts):
    """Uneven parts included: 7 examples in 2 and 3 parts."""

    def after(accumulate):
        made = strategy(planted_objective(), seed=0, rate=0.05, batch=7, accumulate=accumulate)
        for _ in range(5):
            made.train()
        return made.prompt().vectors, made.objective.ledger.spent, made.training

    whole, paid, notes = after(1)
    rows, price, same = after(parts)
    assert torch.allclose(rows, whole, atol=1e-6) and price == paid
    assert same.gradients == pytest.approx(notes.gradients, rel=1e-4)


def test_a_step_in_parts_is_the_same_step_of_changed_weights(tiny, films):
    arena = Arena.build(films, tiny, torch.float32, 2, tiny.words, score_on=8, kind="weights")
    found, notes = [], []
    for accumulate in (1, 3):
        objective = Objective(
            arena.searching,
            arena.space,
            Ledger(None),
            scored=arena.scored,
            training=np.arange(8, 40),
        )
        made = Lora(objective, seed=0, rate=0.01, batch=8, accumulate=accumulate, rank=2)
        for _ in range(3):
            made.train()
        found.append(made.prompt().tensors)
        notes.append(made.training)
    for name, tensor in found[0].items():
        assert torch.allclose(tensor, found[1][name], atol=1e-5), name
    assert notes[0].gradients == pytest.approx(notes[1].gradients, rel=1e-3)
    assert (
        notes[0].unit == "tensors"
        and notes[0].reached == list(range(len(found[0])))
        and notes[0].moved is None
    )


def test_a_step_in_parts_is_the_same_step_on_a_language_model(tiny, films):
    arena = Arena.build(films, tiny, torch.float32, 2, tiny.words, score_on=8)
    rows = []
    for accumulate in (1, 3):
        training = np.arange(8, 40)
        objective = Objective(
            arena.searching, arena.space, Ledger(20_000), scored=arena.scored, training=training
        )
        made = PromptTuning(objective, seed=0, rate=0.05, batch=8, accumulate=accumulate)
        for _ in range(3):
            made.train()
        rows.append(made.prompt().vectors)
    assert torch.allclose(*rows, atol=1e-5)


def breaks_at(strategy, step, how):
    """Its loss is spoilt from this step on."""
    loss, calls = books_of(strategy.objective).scorer.loss, []

    def spoilt(rows, ids, visit):
        calls.append(ids)
        return loss(rows, ids, visit) if len(calls) < step else how(rows)

    books_of(strategy.objective).scorer.loss = spoilt


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(lambda rows: rows.sum() * float("nan"), id="a loss that is not finite"),
        pytest.param(lambda rows: (rows.sum() * 0).sqrt(), id="a gradient that is not finite"),
    ],
)
def test_a_training_that_diverges_ends_in_good_order_with_the_best_prompt_before(how):
    strategy = PromptTuning(planted_objective(), seed=0, interval=2, batch=4, rate=0.05)
    breaks_at(strategy, 6, how)
    reason = search(strategy)
    assert reason == "loss or gradient of a training step is not finite: lower the rate"
    assert strategy.training.diverged == reason and strategy.training.steps == 5
    objective = strategy.objective
    values = [np.mean(line["losses"][0]) for line in objective.log.lines]
    assert len(values) == 3 and objective.finalists()[0].value == pytest.approx(min(values))
    assert torch.isfinite(strategy.prompt().vectors).all(), (
        "the encoder is as it was before the step"
    )


def test_the_notes_tell_which_rows_a_gradient_reached_and_how_far_they_moved():
    strategy = PromptTuning(planted_objective(), seed=0, interval=3, batch=4, rate=0.05)
    books_of(strategy.objective).scorer.loss = lambda rows, ids, visit: 100 * rows[1].square().sum()
    (first,) = strategy.ask()
    strategy.tell([first], strategy.objective.evaluate([first]))
    (second,) = strategy.ask()
    notes = strategy.training
    assert notes.reached == [1] and notes.steps == 3
    assert notes.gradients[0] == pytest.approx(200 * float(first.vectors[1].norm()), rel=1e-4), (
        "before it is clipped"
    )
    assert notes.clipped == 3
    assert notes.moved == pytest.approx(
        float((second.vectors - first.vectors).norm() / first.vectors.norm())
    )


def test_a_loss_that_does_not_depend_on_the_prompt_reaches_no_row():
    strategy = PromptTuning(planted_objective(), seed=0, interval=2, batch=4)
    books_of(strategy.objective).scorer.loss = lambda rows, ids, visit: torch.tensor(1.0)
    strategy.train()
    assert strategy.training.reached == [] and strategy.training.gradients == [0.0]


def test_the_range_test_is_charged_and_leaves_nothing_but_a_rate():
    objective = planted_objective()
    strategy = PromptTuning(objective, seed=0, interval=2, batch=4, rate="auto")
    (first,) = strategy.ask()
    strategy.tell([first], objective.evaluate([first]))
    before, planned = objective.ledger.backward, strategy.planned
    assert strategy.training.rate is None
    strategy.find_rate()
    assert torch.equal(strategy.prompt().vectors, first.vectors)
    assert not any(name.startswith("optimizer.") for name in strategy.state().tensors)
    assert objective.ledger.backward > before and strategy.planned < planned
    assert 0.003 < strategy.training.rate < 0.1, "words of the planted objective lie 0.14 apart"
    assert strategy.training.steps == 0 and len(strategy.training.tried) >= 8


def test_a_range_test_that_the_budget_cuts_short_ends_the_run():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(2))
    strategy = PromptTuning(objective, seed=0, batch=4, rate="auto")
    assert "left" in search(strategy) and objective.ranking
    assert strategy.training.rate is None


class LongLead(PlantedScorer):
    """Examples most of whose tokens stand before the prompt."""

    def lead(self, examples):
        return 20 * super().lead(examples)


@pytest.mark.parametrize("scorer", [PlantedScorer, LongLead])
@pytest.mark.parametrize("interval", [2, 8, 12])
def test_the_schedule_ends_with_the_budget_and_its_last_step_is_scored(scorer, interval):
    """What stands before the prompt is paid once an example.

    Counted in every step, it would end the schedule far too early.
    """
    source = scorer("separable", examples=64)
    objective = source.objective(40_000, reserve=lambda lengths: 40 * min(len(lengths), 10))
    strategy = PromptTuning(objective, seed=0, batch=8, interval=interval)
    assert search(strategy) == f"all {strategy.planned} steps that the budget pays were made"
    assert strategy.training.steps == strategy.planned
    assert strategy.prompt().key == objective.log.lines[-1]["prompts"][0]["key"], (
        "the last line is about the last step"
    )
    assert objective.ledger.spent / 40_000 > 0.95 and objective.ledger.left >= 400


@pytest.mark.parametrize("interval", [2, 8])
def test_what_a_race_leaves_pays_further_steps(interval):
    """A rate at which most prompts are clearly worse than the first, and are scored in part."""
    source = PlantedScorer("separable", examples=256)
    budget = source.budget(60)
    objective = source.objective(budget, race=True)
    search(PromptTuning(objective, seed=0, batch=8, interval=interval, rate=3.0))
    parts = [None in row for line in objective.log.lines for row in line["losses"]]
    assert sum(parts) > 3, "some prompts were dropped"
    assert objective.ledger.spent / budget > 0.95


@pytest.mark.parametrize(("steps", "told"), [(21, "all 21 steps were made"), (9_999, "pays")])
def test_steps_end_a_run_where_the_budget_has_not(steps, told):
    objective = PlantedScorer("separable", examples=64).objective(40_000)
    strategy = PromptTuning(objective, seed=0, batch=8, interval=8, steps=steps)
    assert strategy.schedule(strategy.planned) == 0 and told in search(strategy)
    assert strategy.training.steps == min(steps, strategy.planned) <= 400


def test_only_what_was_scored_is_set_aside_for():
    """Two scorings leave two prompts to select among: the selection of ten is not waited for."""
    spent = []
    for most in (2, 10):
        source = PlantedScorer("separable", examples=64)
        objective = source.objective(
            6_000, reserve=lambda lengths, most=most: 200 * min(len(lengths), most)
        )
        search(PromptTuning(objective, seed=0, batch=8, interval=1_000))
        assert len(objective.log.lines) == 2
        spent.append(objective.ledger.spent)
    assert spent[0] == spent[1]
