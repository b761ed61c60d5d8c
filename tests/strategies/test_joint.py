from itertools import product

import numpy as np
import pytest

from promptsearch import Strategy, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.models.endpoint import Completion
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.joint import Joint
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective

METHODS = ["capo", "tpe"]
#: What the scripted proposer writes, one after the other.
WRITTEN = [f"Say what it is, {name}." for name in "abcdefgh"]


class TestCAPO(StrategyConformance):
    strategy = Joint
    options = {"shots": 1}
    planted = "separable"
    few = 30


class TestTPE(StrategyConformance):
    strategy = Joint
    options = {"method": "tpe", "shots": 2, "prompts": ["w1 w2", "w3 w4 w5"]}
    planted = None  # it chooses among what it is given: see the best pair below
    few = 30

    def test_finds_the_best_of_a_hundred_prompts(self):
        pytest.skip("a hundred prompts are no hundred pairs")


class Scripted:
    """Writes what it is told to, one after the other, and remembers what it was asked."""

    def __init__(self, said=WRITTEN):
        self.said, self.asked = list(said), []

    def most(self, request):
        return len(request.split())

    def complete(self, requests, *, max_tokens, temperature, seeds, stop):
        self.asked += requests
        return [Completion(self.said.pop(0) if self.said else "...", 1, 1) for _ in requests]


class Pairs(PlantedScorer):
    """What an instruction and each example below it are worth together, whatever their order."""

    def __init__(self, seed=0):
        super().__init__("separable", seed=seed)
        rng = np.random.default_rng([seed, 6])
        self._instruction = dict(zip(WRITTEN, rng.uniform(0, 2, len(WRITTEN)), strict=True))
        shown = self.demonstrations(self.training)
        self._shown = dict(zip(shown, rng.normal(0, 1, len(shown)), strict=True))
        both = list(product(WRITTEN, shown))
        self._both = dict(zip(both, rng.normal(0, 0.3, len(both)), strict=True))

    def height(self, text):
        instruction, *shown = text.strip("\n").split("\n")
        assert len(shown) == len(set(shown)), "an example stands there once"
        return self._instruction[instruction] + sum(
            self._shown[each] + self._both[instruction, each] for each in shown
        )

    def score(self, prompts, examples):
        heights = [self.height(p.texts[0]) if isinstance(p, TextPrompt) else 9 for p in prompts]
        found = super().score([self.optimum] * len(prompts), examples)
        found.losses[:] += np.array(heights)[:, None]
        return found


class Random(Strategy):
    """Draws a pair of an instruction and a set of examples, all of them or some that are given."""

    proposes = frozenset({TextPrompt})

    def __init__(self, objective, *, seed, sets=()):
        super().__init__(objective, seed=seed)
        self._rng, self._sets = np.random.default_rng([seed, 2]), sets

    def ask(self):
        return [TextPrompt(self._text()) for _ in range(4)]

    def _text(self):
        ids = self._rng.choice(self.objective.training, self._rng.integers(5), replace=False)
        if self._sets:
            ids = self._sets[self._rng.integers(len(self._sets))]
        shown = self.objective.demonstrations(ids) if len(ids) else []
        return "\n".join([WRITTEN[self._rng.integers(len(WRITTEN))], *shown])


def run(seed=0, evaluations=120, scorer=None, proposing=None, **options):
    scorer = scorer or Pairs(seed)
    objective = scorer.objective(scorer.budget(evaluations), proposing=proposing or Scripted())
    strategy = Joint(objective, seed=seed, **{"shots": 4, "penalty": 0.0, **options})
    return search(strategy), objective, strategy


def by_chance(seed, evaluations, sets=()):
    scorer = Pairs(seed)
    objective = scorer.objective(scorer.budget(evaluations))
    search(Random(objective, seed=seed, sets=sets))
    return objective.ranking[0].value


def scored(objective):
    return [prompt["texts"][0] for line in objective.log.lines for prompt in line["prompts"]]


@pytest.mark.no_cover  # over 20 seeds
def test_capo_finds_better_pairs_than_random():
    found = [(run(seed, 360)[1].ranking[0].value, by_chance(seed, 360)) for seed in range(20)]
    assert sum(value < chance for value, chance in found) >= 19


@pytest.mark.no_cover  # over 20 seeds
def test_tpe_finds_the_best_of_all_pairs_where_random_does_not():
    best = never_worse = by_luck = 0
    for seed in range(20):
        _, objective, strategy = run(seed, 80, method="tpe", sets=10)
        scorer, sets = Pairs(seed), strategy.choice.sets
        shown = [objective.demonstrations(ids) if ids else [] for ids in sets]
        every = ["\n".join([text, *own]) for text in WRITTEN for own in shown]
        least = min(map(scorer.height, every)) + scorer.optimum_value  # by brute force
        value, chance = objective.ranking[0].value, by_chance(seed, 80, sets)
        best += value == pytest.approx(least, abs=1e-5)
        by_luck += chance == pytest.approx(least, abs=1e-5)
        never_worse += value <= chance + 1e-5
    assert never_worse >= 19 and best >= 16 > 10 >= by_luck, f"{never_worse}, {best}, {by_luck}"


@pytest.mark.parametrize("method", METHODS)
def test_no_pair_is_scored_twice(method):
    proposing = Scripted(WRITTEN[:2])
    reason, objective, _ = run(
        0, 500, method=method, shots=1, sets=4, proposals=2, retries=0, proposing=proposing
    )
    texts = scored(objective)
    assert reason == "nothing left to propose" and len(texts) == len(set(texts))
    # Each of both instructions alone, and above each of 16 examples.
    assert len(texts) == 34


def test_tpe_draws_further_sets_and_goes_on_from_what_it_knows_where_all_pairs_are_scored():
    chosen, any_one = [], []
    for seed in range(5):
        reason, objective, _ = run(seed, 80, method="tpe", sets=2)
        texts, worth = scored(objective), Pairs(seed)._instruction
        assert "could be paid" in reason and len(set(texts)) == len(texts) > 24
        chosen += [worth[text.split("\n")[0]] for text in texts[16:20]]
        any_one += worth.values()
    assert np.mean(chosen) < np.mean(any_one) - 0.2


@pytest.mark.parametrize("method", METHODS)
def test_it_works_with_given_instructions_where_none_are_written(method):
    proposing = Scripted()
    _, objective, _ = run(proposing=proposing, prompts=WRITTEN[:3], proposals=0, method=method)
    assert not proposing.asked and objective.ledger.proposer == 0
    assert {text.split("\n")[0] for text in scored(objective)} == set(WRITTEN[:3])
    with pytest.raises(StrategyError, match="it has no instructions: give 'prompts', or let some"):
        run(proposals=0, method=method)


def test_the_text_is_the_instruction_and_examples_that_are_not_scored_on():
    _, objective, _ = run(prompts=["Is it?"], proposals=0, scorer=PlantedScorer("separable"))
    known = set(objective.demonstrations(objective.training))
    texts = scored(objective)
    for text in texts:
        first, *shown = text.split("\n")
        assert first == "Is it?" and set(shown) <= known | {""} and len(shown) == len(set(shown))
        assert shown[-1:] in ([], [""])
    assert {len(text.split("\n")) for text in texts} == {1, 3, 4, 5, 6}


def test_examples_can_be_added_to_those_of_the_parents():
    # [CAPO] What was added was lost in the next branch, and the parent's examples were shuffled.
    _, objective, strategy = run(shots=8)
    for pair in (("", ()), ("", (17, 20)), ("", (20, 21, 30))):
        drawn = [strategy.inherited(pair, pair) for _ in range(200)]
        assert {len(ids) - len(pair[1]) for ids in drawn} == ({0, 1} if not pair[1] else {-1, 0, 1})
        assert all(len(ids) == len(set(ids)) for ids in drawn)
    both = [strategy.inherited(("", (17, 18)), ("", (18, 19))) for _ in range(200)]
    assert all(len(ids) == len(set(ids)) for ids in both), "one that both have stands there once"


def test_a_child_has_what_both_parents_have_and_a_full_set_exchanges_one():
    mother, father = ("", (17, 18, 19)), ("", (19, 18, 20))
    _, _, strategy = run(evaluations=8, shots=8)
    drawn = [set(strategy.inherited(mother, father)) for _ in range(100)]
    assert all(ids >= {18, 19} for ids in drawn if len(ids) > 2)
    _, _, strategy = run(evaluations=8, shots=3)
    drawn = [set(strategy.inherited(mother, father)) for _ in range(100)]
    strangers = [ids for ids in drawn if not ids <= {17, 18, 19, 20}]
    assert {len(ids) for ids in drawn} == {2, 3} and {len(ids) for ids in strangers} == {3}
    assert any(18 not in ids for ids in strangers), "any example may be the one that goes"


def test_another_order_is_scored_only_where_no_new_examples_are_found():
    _, objective, _ = run(0, 360)
    seen = [(text.split("\n")[0], frozenset(text.split("\n")[1:])) for text in scored(objective)]
    assert len(set(seen)) > 0.95 * len(seen) > 100
    # Three instructions with at most two of two examples: all of them are soon met.
    scorer = Pairs()
    scorer.training = scorer.training[:2]
    options = {"shots": 2, "examples": 1, "prompts": WRITTEN[:3], "proposals": 0}
    reason, objective, _ = run(0, 500, scorer=scorer, **options)
    assert reason == "nothing left to propose" and len(set(scored(objective))) == 3 * (1 + 2 + 2)


def test_children_have_what_the_proposer_makes_of_their_parents_instructions():
    proposing = Scripted(WRITTEN)
    _, objective, strategy = run(proposing=proposing, prompts=WRITTEN[:2], proposals=2)
    first, *later = proposing.asked
    assert "Input: the example number" in first
    crossing = next(request for request in later if request.endswith("\nNew:"))
    parents = [line.split(": ")[1] for line in crossing.splitlines()[-3:-1]]
    assert set(parents) <= set(WRITTEN)
    assert {text.split("\n")[0] for text in scored(objective)} > set(WRITTEN[:4])


def test_long_prompts_pay_a_penalty_in_the_search_and_not_in_the_ranking():
    objective = PlantedScorer("separable").objective()
    strategy = Joint(objective, seed=0, prompts=["w1 w2"], proposals=0, penalty=1000.0)
    for _ in range(8):
        prompts = strategy.ask()
        strategy.tell(prompts, objective.evaluate(prompts))
    assert len(strategy.members[0][1]) == 0, "nothing is shorter than no examples"
    assert objective.ranking[0].value < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 99}, "99 shots were asked for, but only 16 examples are not scored on"),
        ({"examples": 99}, "99 examples were asked for, but only 16 examples are not scored on"),
        ({"prompts": ["w1", " "]}, "one of the 'prompts' is empty: give instructions"),
        ({"sets": 1}, "'sets' must be at least 2, got 1"),
        ({"penalty": -1.0}, "'penalty' must be at least 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("joint", Joint, planted_objective(), 0, options)


@pytest.mark.parametrize(("proposals", "asks"), [(8, True), (0, False)])
def test_it_says_whether_it_asks_a_proposer(proposals, asks):
    assert Joint.asks_proposer({"proposals": proposals}) == asks


def test_given_instructions_are_scored_where_the_proposer_cannot_be_paid():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(4), proposing=Scripted())
    search(Joint(objective, seed=0, prompts=["w1 w2", "w3"]))
    assert objective.ranking
