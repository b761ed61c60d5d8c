from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from promptsearch import HardPrompt, Strategy, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.prune import Prune
from promptsearch.study.config import parse_config
from promptsearch.study.prepare import prepare
from promptsearch.tasks.template import Template
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective
from promptsearch.testing.searched import objective_on

METHODS = ["evolution", "greedy"]


class Holding(StrategyConformance):
    """Begins with a text in which the words of the planted prompt stand among others."""

    strategy = Prune
    planted = "separable"
    evaluations = 60
    few = 20
    seeds = 6

    def start(self, objective, seed):
        space = objective.space
        planted = PlantedScorer("separable", seed=seed, pool=len(space.pool), length=space.length)
        others = space.sample(np.random.default_rng([seed, 3]), 1)[0]
        pairs = zip(others.ids, planted.optimum.ids, strict=True)
        return TextPrompt(space.decode([word for pair in pairs for word in pair]))


class TestEvolution(Holding):
    pass


class TestGreedy(Holding):
    options = {"method": "greedy", "batch": 2}


class Parts(PlantedScorer):
    """The tokens of one text: what each is worth, and each two that are kept, and the best part.

    Args:
        seed: Draws all of it.
        tokens: Tokens in the text.
        shift: Nats that are added to all losses.
    """

    def __init__(self, seed=0, tokens=14, shift=0.0):
        rng = np.random.default_rng([seed, 5])
        self._own = rng.normal(0, 1, tokens)
        self._both = np.triu(rng.normal(0, 0.3, (tokens, tokens)), 1)
        every = np.arange(1, 2**tokens)[:, None] >> np.arange(tokens) & 1
        self.every = self._worth(every)  # of all parts that are not empty
        self.text: list[int] = []
        super().__init__("separable", seed=seed, pool=tokens, length=tokens)
        self.text = rng.permutation(self.space.pool).tolist()
        self.landscape = lambda kept: torch.from_numpy(
            self._worth(kept.numpy()) - self.every.min() + shift
        )

    def _worth(self, kept):
        return kept @ self._own + (kept @ self._both * kept).sum(1)

    def _rows(self, prompt):
        ids = self._ids(prompt)
        places = [self.text.index(i) for i in ids] if self.text else []
        assert places == sorted(set(places)), "tokens were deleted, and nothing else"
        return torch.tensor([float(i in ids) for i in self.text])


class Deletions(Strategy):
    """Keeps a random number of random tokens: what a search for deletions has to beat."""

    proposes = frozenset({TextPrompt})

    def __init__(self, objective, *, seed, prompts):
        super().__init__(objective, seed=seed)
        self._rng = np.random.default_rng([seed, 2])
        (self._words,) = (text.split() for text in prompts)

    def ask(self):
        def kept():
            count = self._rng.integers(1, len(self._words) + 1)
            return np.sort(self._rng.choice(len(self._words), count, replace=False))

        return [TextPrompt(" ".join(self._words[i] for i in kept())) for _ in range(8)]


def run(strategy, scorer, seed=0, evaluations=60, **options):
    objective = scorer.objective(scorer.budget(evaluations))
    made = strategy(objective, seed=seed, prompts=[scorer.space.decode(scorer.text)], **options)
    return search(made), objective, made


def scored(objective):
    return [prompt["texts"][0] for line in objective.log.lines for prompt in line["prompts"]]


@cache
def by_chance(seed):
    return run(Deletions, Parts(seed), seed)[1].ranking[0].value


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.no_cover  # over 20 seeds
def test_it_finds_the_best_part_of_a_text_where_random_deletion_does_not(method):
    better = best = 0
    for seed in range(20):
        scorer = Parts(seed)
        value = run(Prune, scorer, seed, method=method)[1].ranking[0].value
        better += value < by_chance(seed)
        best += value == pytest.approx(scorer.optimum_value, abs=1e-5)
    assert better >= 19 and best >= 5, f"{better} better and {best} best of 20"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_only_the_order_of_losses_matters(method, shift):
    # [PromptQuine] Hill climbing took the ratio of two scores, which says the opposite where they
    # are negative.
    found = [run(Prune, Parts(shift=by), evaluations=40, method=method)[1] for by in (0.0, shift)]
    assert scored(found[0]) == scored(found[1])


@pytest.mark.parametrize("method", METHODS)
def test_no_prompt_is_scored_twice(method):
    # [PromptQuine] A child was compared with its parents' generation, and not with its siblings.
    reason, objective, _ = run(Prune, Parts(tokens=4), evaluations=200, method=method)
    texts = scored(objective)
    assert reason == "nothing left to propose"
    assert 8 <= len(texts) == len(set(texts)) <= 15, "parts that are not empty"


def test_the_best_prompt_stays_a_parent():
    # [PromptQuine] The next generation was drawn from the children alone.
    scorer = Parts()
    objective = scorer.objective()
    strategy = Prune(objective, seed=0, prompts=[objective.space.decode(scorer.text)], batch=16)
    for _ in range(6):
        prompts = strategy.ask()
        strategy.tell(prompts, objective.evaluate(prompts))
        best = objective.ranking[0].prompt
        assert TextPrompt(objective.space.decode(strategy.members[0])) == best


def walk(values, **options):
    """All that a walk asks, from the text `abcd` on; what has no value is worse than all."""
    scorer = PlantedScorer("separable", length=4)
    objective = scorer.objective()
    words = objective.space.pool[:4].tolist()
    strategy = Prune(
        objective, seed=0, method="greedy", prompts=[objective.space.decode(words)], **options
    )
    asked = []
    while prompts := strategy.ask():
        ids = [objective.encode(prompt.texts[0]) for prompt in prompts]
        names = ["".join("abcd"[words.index(i)] for i in each) for each in ids]
        asked.append(names)
        if strategy.walks > 1:
            break
        told = np.array([values.get(name, 9.0) for name in names])
        strategy.tell(prompts, SimpleNamespace(values=told))
    return asked


def test_one_deletion_at_a_time_takes_the_first_that_is_no_worse():
    asked = walk({"abcd": 1.0, "acd": 1.0, "abd": 0.5, "ac": 0.9}, batch=1)
    assert asked[0] == ["abcd"]
    places = ["abcd".index(next(c for c in "abcd" if c not in each)) for (each,) in asked[1:3]]
    assert len(asked[1]) == 1 and (places[0] - places[1]) % 4 == 1 or asked[1] in (["acd"], ["abd"])


def test_all_deletions_at_a_time_takes_the_best():
    # [PromptQuine] What it calls steepest-ascent takes the first.
    asked = walk({"abcd": 1.0, "acd": 0.9, "abd": 0.5, "ad": 0.4}, batch=4)
    assert [sorted(each) for each in asked[:3]] == [
        ["abcd"],
        ["abc", "abd", "acd", "bcd"],
        ["ab", "ad", "bd"],
    ]
    assert sorted(asked[3]) == ["a", "d"]


@pytest.mark.parametrize(("threshold", "goes_on"), [(0.0, False), (0.2, True)])
def test_a_threshold_lets_a_walk_rise_above_its_lowest_loss(threshold, goes_on):
    values = {"abcd": 1.0, "acd": 1.1, "ac": 1.15, "a": 1.25, "c": 1.25}
    asked = walk(values, batch=4, threshold=threshold)
    assert (["a", "c"] in [sorted(each) for each in asked]) == goes_on


def films_objective(tiny, films, budget=None, template=None):
    if template:
        films = replace(films, template=Template.parse(template))
    config = parse_config(
        {
            "name": "s",
            "model": "m",
            "task": "capitals",
            "budget": 50_000,
            "seeds": 1,
            "score_on": 8,
            "length": 2,
            "strategies": ["random"],
        }
    )
    arena = prepare(config, tiny, films).arena(films)
    return objective_on(arena, budget)


@pytest.mark.parametrize("method", METHODS)
def test_a_child_is_what_the_model_reads_of_a_text_with_fewer_tokens(method, tiny, films):
    # [PromptQuine] The decoder took out spaces before marks, so that a deletion changed more than
    # it said, and tokens were counted that the model did not read.
    objective = films_objective(tiny, films)
    text = "naïve film? it was \U0001f642 , very good.\nthe story  bad\n"
    strategy = Prune(objective, seed=0, method=method, prompts=[text], batch=4)
    first = strategy.ask()
    assert first == [TextPrompt(text)], "the text itself, to the letter"
    strategy.tell(first, objective.evaluate(first))
    whole = objective.encode(text)
    for _ in range(12):
        prompts = strategy.ask()
        for (read,) in (prompt.texts for prompt in prompts):
            ids = objective.encode(read)
            assert 0 < len(ids) < len(whole) and objective.space.decode(ids) == read
            assert "\ufffd" not in read, "no character is cut in two"
            assert objective.length(TextPrompt(read)) == len(ids)
        strategy.tell(prompts, objective.evaluate(prompts))
    assert not any(line["failures"] for line in objective.log.lines)


def test_tokens_are_those_that_the_model_reads_behind_the_space_of_the_slot(tiny, films):
    objective = films_objective(tiny, films, template="{text} {prompt} It was{answer}")
    words = [tiny.decode([i]) for i in tiny.words]
    one, other = [word for word in words if len(objective.encode(word.strip())) > 1][:2]
    text = (one + other).strip()
    strategy = Prune(objective, seed=0, method="greedy", prompts=[text])
    (first,) = strategy.ask()
    assert first == TextPrompt(text) and objective.length(first) == len(strategy.base) == 2
    strategy.tell([first], objective.evaluate([first]))
    assert set(strategy.ask()) == {TextPrompt(one.strip()), TextPrompt(other.strip())}


def test_it_begins_with_solved_examples_that_are_not_scored_on():
    objective = planted_objective()
    strategy = Prune(objective, seed=0, shots=3, sets=5)
    starts = strategy.ask()
    known = {tuple(objective.encode(text)) for text in objective.demonstrations(objective.training)}
    assert len(starts) == 5
    for start in starts:
        ids = objective.encode(start.texts[0])
        shown = [tuple(ids[i : i + 5]) for i in range(0, len(ids), 5)]
        assert len(shown) == 3 and set(shown) <= known


def test_walks_begin_at_other_examples():
    objective = planted_objective(budget=60_000)
    strategy = Prune(objective, seed=0, method="greedy", shots=1, batch=4)
    search(strategy)
    assert strategy.walks > 3
    assert len([text for text in scored(objective) if len(text.split()) == 5]) > 3


@pytest.mark.parametrize("method", METHODS)
def test_it_goes_on_where_all_beginnings_fail(method):
    scorer = Parts()
    scorer._fails = lambda prompt: not isinstance(prompt, HardPrompt)
    assert run(Prune, scorer, method=method)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 99}, "99 shots were asked for, but only 16 examples are not scored on"),
        ({"prompts": ["w1", " "]}, "one of the 'prompts' is empty: give texts to delete tokens of"),
        ({"method": "steepest"}, "option 'method': expected 'evolution' or 'greedy', got"),
        ({"threshold": -1.0}, "'threshold' must be at least 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("prune", Prune, planted_objective(), 0, options)


def test_it_begins_at_the_winner_of_another_run():
    objective = planted_objective()
    objective.start = TextPrompt(["w1 w2 w3", ""])
    assert Prune(objective, seed=0).ask() == [TextPrompt("w1 w2 w3")]
    with pytest.raises(StrategyError, match="at 'prompts' and at the run that 'start' names"):
        Prune(objective, seed=0, prompts=["w1"])
