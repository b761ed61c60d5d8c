"""Training on several right answers: one is drawn a visit, and paid; a resumed run draws it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from promptsearch import Task, compare
from promptsearch.prompts.numbers import length_of
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.scoring import Engine
from promptsearch.search.loop import search
from promptsearch.search.objective import Objective
from promptsearch.strategies.prompt_tuning import PromptTuning
from promptsearch.study.arena import Arena
from promptsearch.tasks.task import Split
from promptsearch.testing.tiny_task import tiny_task

MORE = (" great", " very bad movie", " the capital of France")
BATCH = np.array([3, 7, 5, 11])


def split_of(task, many=True):
    """The search split, whose examples have one to four right answers."""
    split = task.splits["search"]
    if not many:
        return split
    return Split("search", tuple(replace(e, also=MORE[: e.id % 4]) for e in split.examples))


def engine_of(lm, before="{prompt} {text} It was", many=True, **given):
    task = tiny_task(before + " {answer}", None)
    return Engine(lm, task.template.bind(2), split_of(task, many), None, **given)


def alone(lm, split, template, example, place):
    """An engine on one example with one of its right answers."""
    one = replace(split.examples[example], id=0, also=())
    one = replace(one, answer=split.examples[example].references[place])
    return Engine(lm, template, Split("search", (one,)), None)


@pytest.mark.parametrize("before", ["{prompt} {text} It was", "{text} {prompt} It was"])
def test_a_visits_loss_is_that_of_one_right_answer_each_and_all_are_drawn(llama, before):
    task = tiny_task(before + " {answer}", None)
    split, template = split_of(task), task.template.bind(2)
    engine = Engine(llama, template, split, None)
    vectors = llama.vocabulary[:2].clone().float()
    seen = set()
    for visit in range(40):
        (loss,) = (float(engine.loss(vectors, np.array([7]), visit)) for _ in range(1))
        context = float(engine.step_context(np.array([7]), visit)[0])
        near = []
        for place in range(4):
            one = alone(llama, split, template, 7, place)
            own = float(one.loss(vectors, np.array([0])))
            if abs(own - loss) < 1e-5 and one.context(np.array([0]))[0] == context:
                near.append(place)
        assert len(near) == 1
        seen.update(near)
        if len(seen) == 4:
            return
    raise AssertionError(f"only {seen} of 4 were drawn in 40 visits")


def test_visits_draw_evenly_and_examples_apart_from_each_other():
    from promptsearch.scoring.references import References

    examples = tuple(
        replace(
            tiny_task("{prompt}{text}{answer}", None).splits["search"].examples[0], id=i, also=MORE
        )
        for i in range(50)
    )
    references = References(Split("search", examples))
    drawn = np.stack([references.places(np.arange(50), visit) for visit in range(100)])
    counts = Counter(drawn.ravel().tolist())
    assert stats.chisquare([counts[i] for i in range(4)]).pvalue > 1e-3
    pairs = Counter(zip(drawn[:, 0].tolist(), drawn[:, 1].tolist(), strict=True))
    assert stats.chisquare([pairs[i, j] for i in range(4) for j in range(4)]).pvalue > 1e-3
    later = Counter(zip(drawn[:-1, 0].tolist(), drawn[1:, 0].tolist(), strict=True))
    assert stats.chisquare([later[i, j] for i in range(4) for j in range(4)]).pvalue > 1e-3
    again = References(Split("search", examples)).places(np.arange(50), 3)
    assert (again == drawn[3]).all()


def test_with_one_right_answer_each_a_visit_changes_nothing(lm):
    engine = engine_of(lm, many=False)
    vectors = lm.vocabulary[:2].clone().float()
    plain = engine.loss(vectors, BATCH)
    assert all(torch.equal(plain, engine.loss(vectors, BATCH, visit)) for visit in (1, 99))
    for visit in (None, 0, 5):
        assert (engine.step_context(BATCH, visit) == engine.context(BATCH)).all()


def test_the_mean_over_visits_is_the_scored_loss(llama):
    """In expectation a step sees the loss that prompts are scored by."""
    engine = engine_of(llama)
    vectors = llama.vocabulary[:2].clone().float()
    from promptsearch.prompts.soft import SoftPrompt

    scored = engine.score([SoftPrompt(vectors)], np.array([7])).losses[0, 0]
    losses = [float(engine.loss(vectors, np.array([7]), visit)) for visit in range(300)]
    assert np.mean(losses) == pytest.approx(scored, abs=4 * np.std(losses) / 300**0.5)
    mean = engine.step_context(np.array([7]))[0]
    drawn = [engine.step_context(np.array([7]), visit)[0] for visit in range(300)]
    assert np.mean(drawn) == pytest.approx(mean, abs=4 * np.std(drawn) / 300**0.5)


@pytest.mark.parametrize("before", ["{prompt} {text} It was", "{text} {prompt} It was"])
def test_a_step_pays_for_what_it_draws(llama, before):
    engine = engine_of(llama, before)
    space = PromptSpace(llama.words, 2, llama.decode)
    objective = Objective(
        engine, space, Ledger(None), scored=np.arange(3), training=np.arange(3, 12)
    )
    vectors = llama.vocabulary[:2].clone().float().requires_grad_()
    prices = []
    for _ in range(6):
        spent = objective.ledger
        drawn = engine.step_context(BATCH, spent.forward)
        lead = 0 if prices else int(engine.lead(BATCH).sum())
        objective.loss(vectors, BATCH).backward()
        now = objective.ledger
        tokens = int(drawn.sum()) + len(BATCH) * length_of(vectors)
        assert now.forward - spent.forward == tokens + lead
        assert now.backward - spent.backward == tokens
        prices.append(tokens)
    assert len(set(prices)) > 1, "other answers are drawn each time"
    before_loss = float(objective.loss(vectors, BATCH, visit=4).detach())
    assert float(objective.loss(vectors, BATCH, visit=4).detach()) == before_loss


def references_task():
    rows = [
        {"text": f"the story {i}", "label": ("good", "bad movie", "Paris")[i % 3]}
        for i in range(30)
    ]
    task = Task.from_rows(
        rows,
        template="{prompt} {text} It was {answer}",
        label="label",
        splits={"search": 16, "select": 6, "test": 6},
        name="stories",
    )
    splits = {
        name: Split(name, tuple(replace(e, also=MORE[: e.id % 3]) for e in split.examples))
        for name, split in task.splits.items()
    }
    return replace(task, splits=splits)


def test_a_killed_run_draws_the_same_again(tiny, tmp_path, killed_at):
    """Whatever its first process came to, the run ends with the same numbers."""
    config = {
        "name": "s",
        "budget": 9_000,
        "length": 2,
        "score_on": 6,
        "seeds": 1,
        "strategies": [{"prompt_tuning": {"interval": 3, "batch": 4, "rate": 0.05}}],
    }
    whole = compare(config, out=tmp_path / "whole", model=tiny, task=references_task())
    assert not whole.failed and whole.runs[0].ledger.backward > 0
    died = killed_at(
        14,
        lambda: compare(config, out=tmp_path / "cut", model=tiny, task=references_task()),
    )
    assert died
    again = compare(config, out=tmp_path / "cut", model=tiny, task=references_task())
    (one,), (other,) = whole.runs, again.runs
    assert (one.test, one.winner, one.ledger) == (other.test, other.winner, other.ledger)


def test_a_step_in_parts_draws_what_the_whole_step_draws(tiny):
    arena = Arena.build(references_task(), tiny, torch.float32, 2, tiny.words, score_on=6)
    rows = []
    for accumulate in (1, 3):
        training = np.arange(6, 16)
        objective = Objective(
            arena.searching, arena.space, Ledger(20_000), scored=arena.scored, training=training
        )
        made = PromptTuning(objective, seed=0, rate=0.05, batch=6, accumulate=accumulate)
        for _ in range(3):
            made.train()
        rows.append((made.prompt().vectors, objective.ledger.forward))
    assert torch.allclose(rows[0][0], rows[1][0], atol=1e-5) and rows[0][1] == rows[1][1]


def test_the_range_test_sees_the_same_answers_at_every_rate(tiny):
    arena = Arena.build(references_task(), tiny, torch.float32, 2, tiny.words, score_on=6)
    objective = Objective(
        arena.searching, arena.space, Ledger(None), scored=arena.scored, training=np.arange(6, 16)
    )
    visits, loss = [], arena.searching.loss
    arena.searching.loss = lambda rows, ids, visit: visits.append(visit) or loss(rows, ids, visit)
    made = PromptTuning(objective, seed=0, rate="auto", batch=4)
    made.find_rate()
    assert set(visits) == {0} and len(visits) > 3
    before = objective.ledger.forward
    made.train()
    assert visits[-1] == before


def test_the_steps_that_a_budget_pays_are_those_of_one_right_answer_each(tiny):
    arena = Arena.build(references_task(), tiny, torch.float32, 2, tiny.words, score_on=2)
    objective = Objective(
        arena.searching, arena.space, Ledger(30_000), scored=arena.scored, training=np.arange(2, 16)
    )
    made = PromptTuning(objective, seed=0, rate=0.01, batch=4, interval=20)
    assert "steps that the budget pays" in search(made)
    assert made.training.steps == made.planned
    assert 0.95 * 30_000 < objective.ledger.spent <= 30_000
