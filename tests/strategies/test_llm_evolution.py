import numpy as np
import pytest

from promptsearch import TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.models.endpoint import Completion
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.llm_evolution import LLMEvolution, rank_shares
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestGA(StrategyConformance):
    strategy = LLMEvolution
    planted = "separable"


class TestDE(StrategyConformance):
    strategy = LLMEvolution
    options = {"algorithm": "de"}
    planted = "pairwise"
    seeds = 5


class Counting:
    """A proposer that never says the same twice, but for every third answer.

    It remembers what it was asked.
    """

    def __init__(self):
        self.asked, self.said = [], 0

    def most(self, request):
        return len(request.split())

    def complete(self, requests, *, max_tokens, temperature, seeds, stop):
        self.asked.append(list(requests))
        found = []
        for _ in requests:
            self.said += 1
            found.append(
                Completion(
                    "w1 w1" if self.said % 3 == 0 else f"w{self.said} w{self.said + 1}", 1, 1
                )
            )
        return found


def run(proposing=None, evaluations=80, scorer=None, **options):
    scorer = scorer or PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(evaluations), proposing=proposing)
    strategy = LLMEvolution(objective, seed=0, **options)
    return search(strategy), objective, strategy


def scored(objective):
    return [prompt["texts"][0] for line in objective.log.lines for prompt in line["prompts"]]


@pytest.mark.parametrize("algorithm", ["ga", "de"])
def test_duplicate_children_are_not_scored_again(algorithm):
    _, objective, _ = run(Counting(), algorithm=algorithm)
    assert len(scored(objective)) == len(set(scored(objective))) > 20


def test_negative_fitness_parents_are_drawn_by_rank():
    # A roulette wheel fails where fitness is zero or below; ranks know nothing of it.
    shares = rank_shares(4)
    assert shares.tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert rank_shares(1).tolist() == [1.0]


@pytest.mark.parametrize("algorithm", ["ga", "de"])
@pytest.mark.parametrize("shift", [-1000.0, 0.0, 1000.0])
def test_negative_fitness_only_the_order_of_losses_matters(algorithm, shift):
    class Shifted(PlantedScorer):
        def score(self, prompts, examples):
            found = super().score(prompts, examples)
            found.losses[:] += shift
            return found

    plain = run(algorithm=algorithm, evaluations=40)[1]
    assert scored(
        run(algorithm=algorithm, evaluations=40, scorer=Shifted("separable"))[1]
    ) == scored(plain)


def test_the_population_is_given_instructions_and_proposed_ones_beside_them():
    model = Counting()
    _, objective, _ = run(model, prompts=["w7 w7", "w8 w8"], population=5)
    assert scored(objective)[:2] == ["w7 w7", "w8 w8"]
    assert len(model.asked[0]) == 3
    assert all("Input: the example number" in request for request in model.asked[0])


def test_never_sampled_and_failed_instructions_are_no_parents():
    class Failing(PlantedScorer):
        def _fails(self, prompt):
            return prompt.texts[0] in ("w7 w7", "w1 w1")

    model = Counting()
    _, objective, strategy = run(
        model, prompts=["w7 w7", "w8 w8"], population=4, scorer=Failing("separable")
    )
    assert all("w7 w7" not in request for asked in model.asked for request in asked)
    assert {text for _, text in strategy.living} <= set(scored(objective))


def test_ga_keeps_the_best_of_parents_and_children():
    _, objective, strategy = run(evaluations=60, population=6)
    values = sorted((row.value, row.prompt.texts[0]) for row in objective.ranking)
    assert strategy.living[:1] == values[:1]
    assert [value for value, _ in strategy.living] == sorted(value for value, _ in strategy.living)


def test_de_puts_a_child_in_the_place_of_its_own_target_where_it_is_better():
    model = Counting()
    objective = PlantedScorer("separable").objective(None, proposing=model)
    strategy = LLMEvolution(
        objective, seed=0, algorithm="de", prompts=["w10", "w20", "w30", "w40"], population=4
    )

    class Told:
        def __init__(self, values):
            self.values = np.array(values, dtype=float)

    prompts = strategy.ask()
    strategy.tell(prompts, Told([1.0, 2.0, 3.0, 4.0]))
    children = strategy.ask()  # the third answer is the first "w1 w1"
    assert len(children) == 4
    assert [request.splitlines()[-3].removeprefix("Present: ") for request in model.asked[0]] == [
        "w10",
        "w20",
        "w30",
        "w40",
    ]
    assert {request.splitlines()[-2] for request in model.asked[0]} == {"Best: w10"}
    for target, request in zip(["w10", "w20", "w30", "w40"], model.asked[0], strict=True):
        others = {line.split()[1] for line in request.splitlines()[-5:-3]}
        assert target not in others
    strategy.tell(children, Told([1.5, 1.9, 3.5, 0.1]))
    texts = [prompt.texts[0] for prompt in children]
    assert strategy.living == [(0.1, texts[3]), (1.0, "w10"), (1.9, texts[1]), (3.0, "w30")]


def test_de_lets_what_comes_from_other_examples_take_no_targets_place():
    class Stuck(Counting):
        """Says something new where a request shows solved examples alone."""

        def complete(self, requests, **settings):
            found = super().complete(requests, **settings)
            return [
                Completion("w10", 1, 1) if request.endswith("New:") else each
                for request, each in zip(requests, found, strict=True)
            ]

    class Told:
        def __init__(self, *values):
            self.values = np.array(values)

    objective = PlantedScorer("separable").objective(None, proposing=Stuck())
    strategy = LLMEvolution(
        objective, seed=0, algorithm="de", prompts=["w10", "w20", "w30"], population=3
    )
    strategy.tell(strategy.ask(), Told(1.0, 2.0, 3.0))
    children = strategy.ask()
    strategy.tell(children, Told(*[0.5, 9.0, 9.0][: len(children)]))
    assert strategy.living == [(0.5, children[0].texts[0]), (1.0, "w10"), (2.0, "w20")]


def test_de_takes_the_difference_of_two_instructions_where_there_are_two():
    model = Counting()
    run(model, 150, algorithm="de", prompts=["w10", "w20", "w30"], population=3)
    requests = [request.splitlines() for asked in model.asked[1:] for request in asked]
    pairs = [lines[-5:-3] for lines in requests if lines[-5].startswith("First: ")]
    assert len(pairs) > 20
    assert all(a.removeprefix("First: ") != b.removeprefix("Second: ") for a, b in pairs)


@pytest.mark.parametrize("algorithm", ["ga", "de"])
def test_unbounded_retry_a_proposer_that_only_repeats_ends_the_run_with_a_reason(algorithm):
    class Repeating(Counting):
        def complete(self, requests, **settings):
            self.asked.append(list(requests))
            return [Completion("w1 w1", 1, 1) for _ in requests]

    model = Repeating()
    reason, objective, _ = run(
        model, 500, algorithm=algorithm, prompts=["w2 w2"], population=2, retries=2
    )
    assert "the proposer gave nothing usable in 3 tries" in reason
    assert len(model.asked) == 1 + 3
    assert scored(objective) == ["w2 w2", "w1 w1"]
    assert objective.ranking[0].prompt in (TextPrompt("w2 w2"), TextPrompt("w1 w1"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 1}, "'population' must be at least 2, got 1"),
        ({"temperature": -1.0}, "'temperature' must be at least 0, got -1.0"),
        ({"examples": 99}, "99 examples were asked for, but only 16 examples are not scored on"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", LLMEvolution, planted_objective(), 0, options)
