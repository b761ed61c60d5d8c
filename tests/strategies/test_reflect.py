import re
from dataclasses import replace

import numpy as np
import pytest

from promptsearch import TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.models.endpoint import Completion
from promptsearch.records.scores import Scores
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.reflect import Reflect
from promptsearch.tasks.answered import Reader
from promptsearch.tasks.metrics.accuracy import Accuracy
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestReflect(StrategyConformance):
    strategy = Reflect
    planted = "separable"
    evaluations, seeds = 150, 6


RULES = 4


class Revealing(Accuracy):
    """Says of a wrong answer which rule it breaks."""

    def feedback(self, row):
        rule = int(row.fields["text"].split()[-1]) % RULES
        return f"mention w{rule}" if super().feedback(row) else ""


class Rules(PlantedScorer):
    """Each example is answered where the instruction names its rule, and only there."""

    def __init__(self, seed=0):
        super().__init__("separable", seed=seed, examples=48, length=RULES)

    def objective(self, budget=None, **more):
        return super().objective(budget, reader=Reader((" yes", " no"), Revealing()), **more)

    def score(self, prompts, examples):
        named = [set(prompt.texts[0].split()) for prompt in prompts]
        right = np.array([[f"w{i % RULES}" in words for i in examples] for words in named])
        return Scores(np.where(right, 0.1, 2.0), right.astype(float), None, computed=0)


class Scripted:
    """Adds a word to the instruction of a request, and joins two; it remembers what it was asked.

    Args:
        reads: Whether the word is one of those that the last block says to mention; else any of a
            thousand.
    """

    def __init__(self, reads=True):
        self.reads, self.asked = reads, []

    def most(self, request):
        return 1

    def complete(self, requests, *, max_tokens, temperature, seeds, stop):
        self.asked.append(list(requests))
        return [Completion(self.write(*each), 1, 1) for each in zip(requests, seeds, strict=True)]

    def write(self, request, seed):
        block, rng = request.split("\n\n")[-1], np.random.default_rng(seed)
        if pair := pair_of(request):
            return " ".join(dict.fromkeys(" ".join(pair).split()))
        told = re.findall(r"mention (w\d+)", block) if self.reads else []
        word = rng.choice(told) if told else f"w{rng.integers(1_000)}"
        before = re.match(r"Instruction: (.+)\n", block)
        return f"{before[1]} {word}" if before else str(word)


def pair_of(request):
    """The two instructions that a request wants to have merged; None where it wants none."""
    found = re.search(r"First: (.+)\nSecond: (.+)\nBoth:$", request)
    return found and found.groups()


def run(scorer, proposing=None, evaluations=30, seed=0, **options):
    objective = scorer.objective(scorer.budget(evaluations), proposing=proposing)
    return search(Reflect(objective, seed=seed, **options)), objective


def scored(objective):
    return [prompt["texts"][0] for line in objective.log.lines for prompt in line["prompts"]]


def best(objective):
    return objective.ranking[0].value


@pytest.mark.no_cover  # over 20 seeds
def test_where_each_failure_tells_a_rule_it_finds_all_of_them_and_rewording_does_not():
    found = [
        [best(run(Rules(seed), Scripted(reads), seed=seed)[1]) for reads in (True, False)]
        for seed in range(20)
    ]
    all_rules = np.isclose(found, 0.1)
    assert all_rules[:, 0].sum() >= 19 and all_rules[:, 1].sum() <= 1


def test_a_request_shows_the_worst_rows_with_answers_and_feedback():
    proposing = Scripted()
    _, objective = run(Rules(), proposing, prompts=["w0 w1"], minibatch=12, examples=2, merges=0)
    (line,) = [line for line in objective.log.lines if len(line["examples"]) == 12][:1]
    wrong = [i for i in line["examples"] if i % RULES > 1][:2]
    shown = "".join(
        f"Input: the example number {i}\nWanted: {'no' if i % 2 else 'yes'}\n"
        f"Feedback: mention w{i % RULES}\n"
        for i in wrong
    )
    assert proposing.asked[0][0].endswith(f"Instruction: w0 w1\n{shown}New instruction:")


def test_nothing_that_the_proposer_reads_is_scored_on():
    proposing, scorer = Scripted(), Rules()
    _, objective = run(scorer, proposing)
    text = "\n".join(request for asked in proposing.asked for request in asked)
    read = {int(i) for i in re.findall(r"the example number (\d+)", text)}
    assert read and read <= set(scorer.training.tolist())
    for line in objective.log.lines:
        assert line["examples"] == "score_on" or set(line["examples"]) <= set(scorer.training)


def test_where_each_minibatch_is_all_examples_no_prompt_is_paid_on_them_twice():
    _, objective = run(Rules(), Scripted(), minibatch=99)
    lines = [line for line in objective.log.lines if line["examples"] != "score_on"]
    texts = [prompt["texts"][0] for line in lines for prompt in line["prompts"]]
    assert len(lines) > 3 and len(texts) == len(set(texts))


def test_only_children_that_beat_their_parent_on_the_minibatch_are_scored_in_full():
    _, objective = run(Rules(), Scripted(), prompts=["w0"], merges=0)
    first, *lines = objective.log.lines
    parents, passed, full = {}, [], []
    for line in lines:
        texts = [prompt["texts"][0] for prompt in line["prompts"]]
        means = dict(zip(texts, map(np.mean, line["losses"]), strict=True))
        if line["examples"] == "score_on":
            full += texts
        elif parents.get("examples") != line["examples"]:  # a new step begins
            parents = {**means, "examples": line["examples"]}
        else:
            passed += [text for text in texts if means[text] < parents[text.rpartition(" ")[0]]]
    assert full == passed[: len(full)] and len(passed) - len(full) <= 4
    assert 3 < len(full) < len(scored(objective)) / 2


class Fixed(PlantedScorer):
    """Three instructions are best on 8, 4 and 4 of 16 examples; all others are bad."""

    def score(self, prompts, examples):
        losses = np.full((len(prompts), len(examples)), 9.0)
        for row, prompt in zip(losses, prompts, strict=True):
            if prompt.texts[0] in ("w0", "w1", "w2"):
                row[:] = 1 + (np.array([0, 1, 0, 2])[examples % 4] != int(prompt.texts[0][1]))
        return Scores(losses, (losses < 1.5).astype(float), None, computed=0)


class Unheard(Scripted):
    """Never says the same twice."""

    def write(self, request, seed):
        return f"w{seed} w{seed % 97}"


def test_parents_are_drawn_in_proportion_to_the_examples_on_which_they_are_best():
    proposing = Unheard()
    options = {"parents": 8, "proposals": 1, "prompts": ["w0", "w1", "w2", "w3"]}
    run(Fixed("separable"), proposing, evaluations=250, **options)
    drawn = [
        found[1]
        for asked in proposing.asked
        for request in asked
        if (found := re.match(r"Instruction: (w\d)\n", request.split("\n\n")[-1]))
    ]
    assert len(drawn) > 300
    for word, share in {"w0": 0.5, "w1": 0.25, "w2": 0.25, "w3": 0}.items():
        assert drawn.count(word) / len(drawn) == pytest.approx(share, abs=0.11 * (share > 0))


def test_two_of_one_origin_are_merged_once_and_as_many_as_may_be():
    proposing = Scripted()
    _, objective = run(Rules(), proposing, 60, prompts=["w90", "w91"], merges=3)
    pairs = [pair for asked in proposing.asked for each in asked if (pair := pair_of(each))]
    assert 0 < len(pairs) == len(set(pairs)) <= 3
    for one, other in pairs:
        assert one.split()[0] == other.split()[0], "they have an ancestor in common"
        assert not one.startswith(f"{other} ") and not other.startswith(f"{one} ")
    assert " ".join(dict.fromkeys(" ".join(pairs[0]).split())) in scored(objective)
    run(Rules(), proposing := Scripted(), merges=0)
    assert not any(pair_of(each) for asked in proposing.asked for each in asked)


def test_what_comes_from_other_examples_after_a_vain_try_has_no_parents():
    class Stuck(Scripted):
        """Says something new where a request shows solved examples alone."""

        def write(self, request, seed):
            held = re.match(r"Instruction: ", request.split("\n\n")[-1]) or pair_of(request)
            return "w90" if held else f"w{seed % RULES} w{seed}"

    _, objective = run(Rules(), proposing := Stuck(), 60, prompts=["w90"], merges=3)
    assert len(objective.ranking) > 3 and best(objective) < 1.6, "they are in the front"
    merged = [pair for asked in proposing.asked for each in asked if (pair := pair_of(each))]
    assert not merged, "and have no ancestor in common"


@pytest.mark.parametrize("answer", ["", "...", "w1", "word " * 20_000, "{} {0} {x}", "\x00\n\n"])
@pytest.mark.parametrize("prompts", [[], ["w1"]])
def test_a_hostile_proposer_ends_the_run_with_a_reason(answer, prompts):
    class Saying(Scripted):
        def write(self, request, seed):
            return answer

    reason, objective = run(Rules(), Saying(), 1000, prompts=prompts, retries=2)
    assert "the proposer gave nothing usable in 3 tries" in reason
    assert set(scored(objective)) <= {*prompts, answer}


def test_parents_that_fail_on_the_minibatch_are_not_read():
    class Failing(Rules):
        def score(self, prompts, examples):
            found = super().score(prompts, examples)
            if set(examples) <= set(self.training):
                lost = [i for i, prompt in enumerate(prompts) if prompt == TextPrompt("w1")]
                found.losses[lost] = found.metric[lost] = np.nan
                return replace(found, failures=dict.fromkeys(lost, "it cannot be read"))
            return found

    proposing = Scripted()
    _, objective = run(Failing(), proposing, prompts=["w1"])
    assert "Feedback: mention" not in "".join(proposing.asked[0]), "solved examples take its place"
    assert len(objective.log.lines) > 5, "and the run goes on"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parents": 0}, "'parents' must be at least 1, got 0"),
        ({"merges": -1}, "'merges' must be at least 0, got -1"),
        ({"examples": 9}, "a 'minibatch' of 8 has no 9 'examples' to show"),
        ({"examples": 99, "minibatch": 99}, "99 examples were asked for, but only 16 examples are"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", Reflect, planted_objective(), 0, options)
