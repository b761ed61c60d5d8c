"""Searches that follow a metric: its value, its price, and what they find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from promptsearch.errors import TaskError
from promptsearch.prompts.hard import HardPrompt
from promptsearch.records.ledger import Ledger
from promptsearch.records.log import RunLog
from promptsearch.search.loop import search
from promptsearch.search.metric_scorer import MetricScorer
from promptsearch.search.objective import Objective, books_of
from promptsearch.strategies.coordinate import Coordinate
from promptsearch.strategies.random import Random
from promptsearch.tasks.answered import generated
from promptsearch.tasks.decoding import Decoding
from promptsearch.tasks.metrics.exact_match import ExactMatch
from promptsearch.tasks.metrics.measured import measured, measured_over
from promptsearch.tasks.metrics.metric import Metric
from promptsearch.tasks.task import Task
from promptsearch.tasks.template import Template
from promptsearch.testing.planted import PlantedScorer

TEXT = Task("planted", Template.parse("{prompt} {text}{answer}"), None, {}, "exact_match")


class Both(Metric):
    """The geometric mean of the shares of right answers on rows of even and of odd places."""

    name = "both"

    def statistics(self, rows):
        even = np.array([row.references == ("yes",) for row in rows])
        right = np.array([row.output in row.references for row in rows])
        return np.stack([even & right, even, ~even & right, ~even], axis=1).astype(float)

    def score(self, sums, rows):
        return float(np.sqrt(sums[0] / max(1, sums[1]) * sums[2] / max(1, sums[3])))


class Errors(ExactMatch):
    """The share of wrong answers, which should be low."""

    name = "errors"
    higher_is_better = False

    def statistics(self, rows):
        return 1 - super().statistics(rows)


class Sometimes(ExactMatch):
    """Fails where all answers are right."""

    def statistics(self, rows):
        found = super().statistics(rows)
        if found.all():
            raise TaskError("all are right")
        return found


def prompts_of(planted, count=12):
    return [planted.optimum, *planted.space.sample(np.random.default_rng(5), count)]


def objective_of(planted, metric, budget=None, **more):
    scorer = MetricScorer(planted, metric, TEXT)
    return Objective(
        scorer,
        planted.space,
        Ledger(budget),
        scored=planted.scored,
        training=planted.training,
        most=scorer.most,
        **more,
    )


def outputs(planted, prompts):
    found = planted.generate(prompts, planted.scored, Decoding())
    right = [example.answer for example in planted.examples(planted.scored)]
    return np.array(
        [[text == want for (text,), want in zip(row, right, strict=True)] for row in found.texts]
    )


@pytest.mark.parametrize("metric", [ExactMatch(), Errors(), Both()], ids=lambda m: m.name)
def test_the_value_is_minus_the_metric_and_the_mean_of_the_losses(metric):
    planted = PlantedScorer("separable", pool=6, length=2)
    prompts = prompts_of(planted)
    found = objective_of(planted, metric).evaluate(prompts)
    right = outputs(planted, prompts)
    even = planted.scored % 2 == 0
    wanted = {
        "exact_match": -right.mean(1),
        "errors": 1 - right.mean(1),
        "both": -np.sqrt(right[:, even].mean(1) * right[:, ~even].mean(1)),
    }[metric.name]
    assert found.values == pytest.approx(wanted, abs=1e-6)
    assert found.losses.mean(1) == pytest.approx(wanted, abs=1e-6)
    assert len(set(found.values)) > 2
    assert found.values.argmin() == 0, "the planted prompt is the best by each of them"
    assert (found.metric == right).all() and found.choices is None


class Wavering(PlantedScorer):
    """Draws a second answer, which is wrong on every fourth row."""

    def generate(self, prompts, examples, decoding):
        found = super().generate(prompts, examples, decoding)
        texts = [
            [(text, "neither" if i % 4 == 0 else text) for i, (text,) in enumerate(row)]
            for row in found.texts
        ]
        return replace(found, texts=texts)


@pytest.mark.parametrize("metric", [ExactMatch(), Both()], ids=lambda m: m.name)
def test_of_several_answers_the_search_follows_what_selection_measures(metric):
    planted = Wavering("separable", pool=6, length=2)
    prompts = prompts_of(planted, 4)
    found = objective_of(planted, metric).evaluate(prompts)
    known, apart = planted.examples(planted.scored), []
    answers = planted.generate(prompts, planted.scored, Decoding()).texts
    for value, texts in zip(found.values, answers, strict=True):
        drawn = [generated(known, some) for some in zip(*texts, strict=True)]
        assert value == pytest.approx(-measured_over(metric, drawn).score, abs=1e-6)
        apart.append(-np.mean([measured(metric, rows).score for rows in drawn]))
    another = not np.allclose(found.values, apart, atol=1e-3)
    assert another == (not metric.mean), "a mean of scores is another number, but for a mean"


def test_answers_are_paid_as_they_come_and_set_aside_as_they_might():
    planted = PlantedScorer("separable", pool=6, length=2)
    objective = objective_of(planted, ExactMatch(), budget=100_000)
    (prompt,) = planted.space.sample(np.random.default_rng(1), 1)
    read = int(planted.tail(planted.scored).sum() + planted.lead(planted.scored).sum())
    read += 2 * len(planted.scored)
    limit = TEXT.decoding.most * len(planted.scored)
    assert objective.price([prompt]) == read + limit
    found = objective.evaluate([prompt])
    # The planted scorer writes two tokens an answer.
    assert found.price == objective.ledger.spent == read + 2 * len(planted.scored)
    assert objective.affordable(2) == (100_000 - found.price) // (
        read - int(planted.lead(planted.scored).sum()) + limit
    )
    poor = objective_of(planted, ExactMatch(), budget=read + limit - 1)
    assert poor.affordable(2) == 0


def test_a_prompt_that_the_metric_cannot_measure_fails_and_the_others_stand():
    planted = PlantedScorer("separable", pool=6, length=2)
    found = objective_of(planted, Sometimes()).evaluate(prompts_of(planted))
    assert list(found.failures) == [0] and "all are right" in found.failures[0]
    assert np.isinf(found.values[0]) and np.isfinite(found.values[1:]).all()
    assert np.isnan(found.losses[0]).all()


def test_coordinate_descent_on_the_metric_finds_what_random_search_misses():
    reached = {Coordinate: [], Random: []}
    for strategy, values in reached.items():
        for seed in range(4):
            planted = PlantedScorer("separable", seed=seed, pool=40, length=3, examples=64)
            best = float(objective_of(planted, ExactMatch()).evaluate([planted.optimum]).values[0])
            objective = objective_of(planted, ExactMatch(), budget=150 * (32 * 13 + 64))
            search(strategy(objective, seed=seed))
            values.append(books_of(objective).ranking[0].value - best)
    assert np.mean(reached[Coordinate]) < np.mean(reached[Random])


def test_a_search_that_follows_a_metric_goes_on_from_its_log(tmp_path):
    planted = PlantedScorer("separable", pool=6, length=2)

    def run(folder):
        objective = objective_of(planted, Both(), budget=8_000, log=RunLog(folder))
        search(Random(objective, seed=0, batch=4))
        return books_of(objective)

    whole = run(tmp_path)
    assert {line["followed"] for line in whole.log.lines} == {"both"}
    again = run(tmp_path)  # every line is handed back
    assert again.ledger == whole.ledger and again.log.lines == whole.log.lines
    assert [item.value for item in again.ranking] == [item.value for item in whole.ranking]


@pytest.mark.parametrize("metric", [ExactMatch(), Errors()], ids=lambda m: m.name)
def test_a_race_on_a_mean_drops_the_worse_and_pays_for_what_came(metric):
    planted = PlantedScorer("separable", pool=30, length=3, examples=128)
    objective = objective_of(planted, metric, race=True)
    prompts = prompts_of(planted, 30)
    found = objective.evaluate(prompts)
    assert np.isnan(found.losses).any(), "some were dropped"
    assert found.values.argmin() == 0
    (line,) = books_of(objective).log.lines
    seen = np.isfinite(found.losses).sum()
    assert line["generated"] == 2 * seen and objective.ledger.spent == line["price"]


def test_the_prompt_of_highest_metric_leads_the_ranking():
    planted = PlantedScorer("separable", pool=6, length=2)
    objective = objective_of(planted, ExactMatch())
    objective.evaluate(prompts_of(planted))
    assert objective.ranking[0].prompt == planted.optimum
    assert isinstance(objective.ranking[0].prompt, HardPrompt)
