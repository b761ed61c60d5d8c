import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from promptsearch import TextPrompt
from promptsearch.errors import BudgetExhausted, StrategyError
from promptsearch.models.endpoint import Completion
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.llm_proposed import LLMProposed, scores
from promptsearch.study.config import parse_config
from promptsearch.study.ending import price_of_selection
from promptsearch.study.prepare import prepare
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective
from promptsearch.testing.proposing import PlantedProposing
from promptsearch.testing.searched import objective_on


class TestAPE(StrategyConformance):
    strategy = LLMProposed
    planted = "separable"


class TestOPRO(StrategyConformance):
    strategy = LLMProposed
    options = {"method": "opro"}
    planted = "pairwise"
    seeds = 5


class Saying:
    """A proposer that says what it is told to, and remembers what it was asked."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def most(self, request):
        return len(request.split())

    def complete(self, requests, *, max_tokens, temperature, seeds, stop):
        self.asked.append(list(requests))
        return [Completion(self.answers(len(self.asked), i), 1, 1) for i in range(len(requests))]


def run(proposing=None, evaluations=60, scorer=None, **options):
    scorer = scorer or PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(evaluations), proposing=proposing)
    return search(LLMProposed(objective, seed=0, **options)), objective


def scored(objective):
    return [prompt["texts"][0] for line in objective.log.lines for prompt in line["prompts"]]


@pytest.mark.parametrize("method", ["ape", "opro"])
@pytest.mark.parametrize("answer", ["", "...", "same old words"])
def test_unbounded_retry_a_proposer_with_nothing_usable_ends_the_run_with_a_reason(method, answer):
    saying = Saying(lambda call, i: answer)
    reason, objective = run(saying, 1000, method=method, retries=3, prompts=["same old words"])
    assert "the proposer gave nothing usable in 4 tries" in reason
    assert repr(answer) in reason
    assert len(saying.asked) == 4
    assert scored(objective) == ["same old words"]


def test_a_try_after_a_vain_one_asks_anew():
    saying = Saying(lambda call, i: "" if call < 3 else f"w{i}")
    reason, objective = run(saying, retries=2, batch=2)
    assert scored(objective)[:2] == ["w0", "w1"]
    assert saying.asked[0] != saying.asked[1], "with other examples"


@pytest.mark.parametrize("method", ["ape", "opro"])
def test_never_sampled_prompts_do_not_win(method):
    # APE's bandits gave 0 to prompts that were never scored, which beats every mean
    # log-probability.
    class Failing(PlantedScorer):
        def _fails(self, prompt):
            return "w3" in prompt.texts[0].split()

    saying = Saying(lambda call, i: f"w3 w{call}{i}" if i % 2 else f"w5 w{call}{i}")
    _, objective = run(saying, scorer=Failing("separable"), method=method)
    assert any("w3" in text.split() for text in scored(objective))
    assert all("w3" not in item.prompt.texts[0].split() for item in objective.ranking)
    assert all("w3 " not in request for asked in saying.asked for request in asked), (
        "nor are they shown or varied"
    )
    assert {item.prompt.texts[0] for item in objective.ranking} <= set(scored(objective))


@pytest.mark.parametrize("method", ["ape", "opro"])
def test_unpaired_comparisons_all_are_scored_on_the_same_examples(method):
    _, objective = run(method=method)
    assert {str(line["examples"]) for line in objective.log.lines} == {"score_on"}


@pytest.mark.parametrize("method", ["ape", "opro"])
def test_selection_on_the_training_accuracy_no_example_that_is_shown_is_scored_on(method):
    saying = Saying(lambda call, i: f"w{call} w{i}")
    _, objective = run(saying, 200, method=method)
    shown = {
        line.removeprefix("Input: ")
        for asked in saying.asked
        for r in asked
        for line in r.splitlines()
        if "example num" in line
    }
    fields = {
        part: {e.fields["text"] for e in objective.examples(ids)}
        for part, ids in (("training", objective.training), ("scored", objective.scored))
    }
    assert shown and shown <= fields["training"]
    assert not shown & fields["scored"]


def test_opro_shows_the_best_instructions_the_worst_first_with_their_scores():
    saying = Saying(lambda call, i: f"w{call} w{i}")
    _, objective = run(saying, 100, method="opro", batch=4, keep=3)
    values = {
        p["texts"][0]: np.mean(row)
        for line in objective.log.lines
        for p, row in zip(line["prompts"], line["losses"], strict=True)
    }
    seen = scored(objective)[:8]
    best = sorted(seen, key=values.__getitem__)[:3]
    request = saying.asked[2][0]
    places = [
        request.index(f"Instruction: {text}\nScore: {round(100 * math.exp(-values[text]))}\n")
        for text in reversed(best)
    ]
    assert places == sorted(places)
    assert not any(f"Instruction: {text}\n" in request for text in set(seen) - set(best))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1e-9, math.log(2), 3.0, 50.0, 1e6], ["100", "50", "5", "0", "0"]),
        ([80.0], ["0"]),
        ([80.0, 80.0], ["0", "0"]),
        ([80.0, 83.0, 90.0], ["100", "70", "0"]),  # long answers
        ([4.0, 83.0, 90.0], ["2", "0", "0"]),
        ([-0.875, -0.5, -0.0], ["87.5", "50", "0"]),  # a metric
        ([-0.0, -0.0], ["0", "0"]),
        ([-1.0], ["100"]),
        ([-0.25, 0.125], ["25", "-12.5"]),
        ([-42.34, -0.5], ["42.3", "0.5"]),  # on its own scale
        ([0.25, 0.5], ["78", "61"]),  # whose lower scores are better
    ],
)
def test_scores_are_percentages_unless_they_would_say_nothing(values, told):
    assert scores(values) == told


class Followed(PlantedScorer):
    """Losses as where a search follows a metric: minus the probability of the right answer."""

    def score(self, prompts, examples):
        found = super().score(prompts, examples)
        return replace(found, losses=-np.exp(-found.losses))


class Long(PlantedScorer):
    """Losses of long answers."""

    def score(self, prompts, examples):
        found = super().score(prompts, examples)
        return replace(found, losses=found.losses + 80)


@pytest.mark.parametrize("kind", [Followed, Long])
def test_opro_is_shown_which_instructions_are_better_whatever_the_losses(kind):
    saying = Saying(lambda call, i: f"w{call} w{i}")
    run(saying, 100, scorer=kind("separable"), method="opro", batch=4, keep=3)
    for asked in saying.asked[1:]:
        lines = asked[0].splitlines()
        told = [float(line[7:]) for line in lines if line.startswith("Score: ")]
        assert told == sorted(told) and len(set(told)) == len(told) == 3


def test_ape_varies_the_best_and_goes_back_to_the_examples():
    saying = Saying(lambda call, i: f"w{call} w{i}")
    _, objective = run(saying, 200, batch=8, keep=2, fresh=0.25)
    assert all("Input: the example number" in request for request in saying.asked[0])
    later = [request for asked in saying.asked[1:] for request in asked]
    assert np.mean(["the example number" in request for request in later]) == pytest.approx(
        0.25, abs=0.12
    )


def test_given_instructions_are_scored_first_and_not_proposed_again():
    saying = Saying(lambda call, i: "w1 w2" if i else f"w9 w{call}")
    _, objective = run(saying, prompts=["w1 w2", "w3 w4"])
    assert scored(objective)[:3] == ["w1 w2", "w3 w4", "w9 w1"]
    assert len(scored(objective)) == len(set(scored(objective)))


def test_an_instruction_longer_than_the_context_is_a_visible_failure_that_costs_nothing(
    tiny, films
):
    given = {
        "name": "s",
        "model": "m",
        "task": "capitals",
        "budget": 50_000,
        "seeds": 1,
        "score_on": 8,
        "strategies": ["random"],
    }
    prepared = prepare(parse_config(given), tiny, films)
    arena = prepared.arena(films)
    reserve = partial(price_of_selection, arena)
    objective = objective_on(arena, 50_000, reserve=reserve, proposing=prepared.proposing)
    long, short = "good " * 600, "Answer the question."
    strategy = LLMProposed(objective, seed=0, prompts=[long, short], batch=2, longest=16)
    for _ in range(2):
        prompts = strategy.ask()
        strategy.tell(prompts, objective.evaluate(prompts))
    first, second = objective.log.lines
    assert (
        list(first["failures"]) == ["0"]
        and "but the model reads at most 512" in first["failures"]["0"]
    )
    assert first["price"] == objective.price([TextPrompt(short)]) + int(
        arena.searching.lead(arena.scored).sum()
    )
    assert second["prompts"], "and the run goes on"
    assert [item.prompt.texts[0] for item in objective.ranking].count(long) == 0


def test_prompts_that_are_too_long_end_a_run_in_the_end(tiny, films, monkeypatch):
    monkeypatch.setattr("promptsearch.search.books.FREE_PROPOSALS", 100)
    given = {
        "name": "s",
        "model": "m",
        "task": "capitals",
        "budget": 50_000,
        "seeds": 1,
        "score_on": 8,
        "strategies": ["random"],
    }
    arena = prepare(parse_config(given), tiny, films).arena(films)
    objective = objective_on(arena, 50_000)
    with pytest.raises(
        BudgetExhausted,
        match="100 proposals in a row had all been scored before, or are too long to be scored",
    ):
        for i in range(20):
            objective.evaluate([TextPrompt("good " * (600 + 5 * i + j)) for j in range(5)])


def test_it_goes_on_where_most_answers_cannot_be_used():
    scorer = PlantedScorer("separable")
    reason, objective = run(PlantedProposing(scorer.space, failing=0.8), 60, scorer)
    assert "tokens are wanted" in reason or "could be paid" in reason
    assert len(scored(objective)) > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "'batch' must be at least 1, got 0"),
        ({"fresh": 1.5}, "'fresh' must be at most 1, got 1.5"),
        ({"retries": -1}, "'retries' must be at least 0, got -1"),
        ({"examples": 99}, "99 examples were asked for, but only 16 examples are not scored on"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", LLMProposed, planted_objective(), 0, options)
