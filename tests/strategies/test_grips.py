import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch import Evaluation, TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.models.endpoint import Completion
from promptsearch.search.loop import search
from promptsearch.search.plugins import make_strategy
from promptsearch.strategies.grips import Grips, phrases_of, split
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.planted import PlantedScorer, planted_objective


class TestGrips(StrategyConformance):
    strategy = Grips
    planted = "separable"


class TestGripsWithAnInstructionAndAProposer(StrategyConformance):
    strategy = Grips
    options = {"prompts": ["w1 w2, w3 w4"], "substitute": "proposer", "annealing": 0.1}
    planted = None  # the planted proposer answers a phrase with a whole instruction


def told(prompts, values, choices=None):
    """An evaluation of text prompts with these values."""
    values = np.asarray(values, dtype=float)
    losses = np.repeat(values[:, None], 4, axis=1)
    return Evaluation(values, losses, losses < 0.7, choices, np.arange(4), {}, 0, 0)


def scored(objective):
    return [prompt["texts"][0] for line in objective.log.lines for prompt in line["prompts"]]


def candidates(base, count=200, **options):
    """Many edits of an instruction."""
    strategy = Grips(planted_objective(budget=None), seed=0, prompts=[base], batch=count, **options)
    (first,) = strategy.ask()
    assert first == TextPrompt(base)
    strategy.tell([first], told([first], [1.0]))
    return [prompt.texts[0] for prompt in strategy.ask()]


def test_an_edit_touches_one_occurrence_of_a_phrase_only():
    # String replacement edits every occurrence: "the" would vanish from the whole text.
    base = "the cat and the dog and the cow"
    words = base.split()
    for text in candidates(base, 400, phrase=1):
        new = text.split()
        if len(new) == 7:
            assert any(new == words[:i] + words[i + 1 :] for i in range(8)), text
        elif not any(word.startswith("w") for word in new):
            assert any(
                new == [words[j if k == i else i if k == j else k] for k in range(8)]
                for i, j in itertools.combinations(range(8), 2)
            ), text
        else:
            assert sum(a != b for a, b in zip(words, new, strict=True)) == 1, text


def test_duplicates_are_not_proposed_again():
    strategy = Grips(planted_objective(pool=3, length=2, budget=40_000), seed=0, phrase=2)
    asked = []
    while len(asked) < 100 and (prompts := strategy.ask()):
        asked += [prompt.texts[0] for prompt in prompts]
        strategy.tell(prompts, strategy.objective.evaluate(prompts))
    assert len(asked) == len(set(asked)) > 9


@given(st.text(alphabet="ab ,.?\n", min_size=1, max_size=30).filter(str.strip))
def test_a_text_is_split_without_loss(text):
    pieces = split(text)
    assert "".join(pieces).strip() == text.strip()
    assert [piece.strip() for piece in pieces] == text.split()


def test_phrases_are_spans_of_words_between_punctuation_marks():
    found = {
        " ".join(["Read", "this,", "then", "answer."][a:b])
        for a, b in phrases_of(split("Read this, then answer."), 3)
    }
    assert found == {"Read", "Read this,", "this,", "then", "then answer.", "answer."}
    assert {b - a for a, b in phrases_of(split("a b c d e"), 2)} == {1, 2}


def test_blanks_and_punctuation_marks_stay_where_words_are_replaced():
    texts = candidates("first line,\nsecond  line.", 300, phrase=1)
    assert all(
        "\n" in text and "  " in text and "," in text and text.endswith(".")
        for text in texts
        if re.search(r"w\d", text)
    )


@pytest.mark.parametrize("substitute", ["pool", "proposer"])
def test_blanks_around_the_text_stay(substitute):
    # Behind solved examples stands a separator, which parts them from the input.
    texts = candidates("\tIt was good. Yes\nIt was bad. No\n", phrase=1, substitute=substitute)
    assert len(texts) > 5 and all(re.fullmatch(r"\t\S.*\S\n", text, re.DOTALL) for text in texts)


def test_what_was_deleted_can_be_added_again():
    strategy = Grips(
        planted_objective(budget=None), seed=1, prompts=["w1 w2 w3 zzz"], batch=300, phrase=1
    )
    first = strategy.ask()
    strategy.tell(first, told(first, [1.0]))
    prompts = strategy.ask()
    without = prompts.index(TextPrompt("w1 w2 w3"))
    values = np.full(len(prompts), 2.0)
    values[without] = 0.5
    strategy.tell(prompts, told(prompts, values))
    texts = {prompt.texts[0] for prompt in strategy.ask()}
    assert {"zzz w1 w2 w3", "w1 zzz w2 w3"} <= texts, "added at any place that has not been scored"


class Saying:
    """A proposer that writes the same word for each phrase."""

    def most(self, request):
        return 1

    def complete(self, requests, **how):
        return [Completion("zzz", 1, 1) for _ in requests]


def saying(text, edits):
    """A search from a text whose phrases a proposer writes anew, with its first prompt scored."""
    strategy = Grips(
        PlantedScorer("separable").objective(proposing=Saying()),
        seed=0,
        prompts=[text],
        batch=100,
        edits=edits,
        phrase=1,
        substitute="proposer",
    )
    first = strategy.ask()
    strategy.tell(first, told(first, [1.0]))
    return strategy


def test_what_was_deleted_before_a_phrase_was_written_can_be_added_again():
    strategy = saying("a b c d", edits=2)
    prompts = strategy.ask()
    words = [prompt.texts[0].split() for prompt in prompts]
    (best, *_) = [i for i, own in enumerate(words) if "zzz" in own and len(own) == 3]
    values = np.full(len(prompts), 2.0)
    values[best] = 0.5
    strategy.tell(prompts, told(prompts, values))
    gone = {"a", "b", "c", "d"}.difference(
        words[best]
    )  # one was deleted, and in place of one stands zzz
    assert any(gone & set(prompt.texts[0].split()) for prompt in strategy.ask())


def test_a_candidate_has_as_many_edits_where_the_proposer_writes_phrases_of_it():
    strategy = saying("a b c d e f g h", edits=4)
    words = [prompt.texts[0].split() for prompt in strategy.ask()]
    assert max(own.count("zzz") for own in words) > 2
    once = [own for own in words if sum(map(str.__ne__, own, "abcdefgh")) == 1 and len(own) == 8]
    assert len(once) < len(words) / 10


def test_the_best_candidate_is_taken_only_where_it_is_better():
    strategy = Grips(planted_objective(budget=None), seed=0, prompts=["w1 w2 w3"], patience=9)
    first = strategy.ask()
    strategy.tell(first, told(first, [1.0]))
    second = strategy.ask()
    strategy.tell(second, told(second, [1.5] * len(second)))
    assert strategy.base == "w1 w2 w3"
    third = strategy.ask()
    strategy.tell(third, told(third, [0.9, 0.8, *[float("inf")] * (len(third) - 2)]))
    assert strategy.base == third[1].texts[0]


def test_after_some_vain_steps_a_walk_begins_anew_with_the_next_instruction():
    strategy = Grips(
        planted_objective(budget=None), seed=0, prompts=["w1 w2 w3", "w4 w5 w6"], patience=2
    )
    begun = []
    for _ in range(10):
        prompts = strategy.ask()
        if len(prompts) == 1:
            begun.append(prompts[0].texts[0])
        strategy.tell(prompts, told(prompts, [1.0] * len(prompts)))
    assert begun == ["w1 w2 w3", "w4 w5 w6"]
    assert strategy.walks == 3 or strategy.walks == 4


def test_annealing_takes_worse_candidates_less_and_less():
    def taken(step, annealing):
        strategy = Grips(
            planted_objective(budget=None), seed=0, prompts=["w1"], annealing=annealing
        )
        strategy.value, strategy.step = 1.0, step
        return np.mean([strategy.takes(1.2) for _ in range(2000)])

    assert taken(0, 0.0) == 0
    assert taken(0, 0.2) == pytest.approx(np.exp(-1), abs=0.04)
    assert taken(5, 0.2) == pytest.approx(np.exp(-np.e), abs=0.03)
    assert taken(5_000, 0.2) == 0
    strategy = Grips(planted_objective(budget=None), seed=0, prompts=["w1"], annealing=5.0)
    strategy.value = 1.0
    assert not any(strategy.takes(float("inf")) for _ in range(100)), (
        "a failed prompt is never taken"
    )


def test_entropy_of_the_predictions_is_taken_off_the_loss():
    strategy = Grips(planted_objective(budget=None), seed=0, prompts=["w1"], entropy=0.5)
    one, both = [[-0.1, -2.4]] * 4, [[-0.1, -2.4]] * 2 + [[-2.4, -0.1]] * 2
    evaluation = told([], [1.0, 1.0, float("inf")], np.array([one, both, np.full((4, 2), np.nan)]))
    assert strategy.criterion(evaluation) == pytest.approx(
        [1.0, 1.0 - 0.5 * np.log(2), float("inf")]
    )


def test_answers_that_differ_by_row_are_told_apart_by_their_texts_and_not_by_their_places():
    class ByRow(PlantedScorer):
        def examples(self, ids):
            orders = ((" yes", " no"), (" no", " yes", " maybe"))
            return [replace(each, options=orders[each.id % 2]) for each in super().examples(ids)]

    strategy = Grips(ByRow("separable").objective(), seed=0, prompts=["w1"], entropy=0.5)
    first, second = [-0.1, -2.4, np.nan], [-2.4, -0.1, -9.0]
    same_text, same_place = [first, second] * 2, [first, [-0.1, -2.4, -9.0]] * 2
    evaluation = told([], [1.0, 1.0], np.array([same_text, same_place]))
    assert strategy.criterion(evaluation) == pytest.approx([1.0, 1.0 - 0.5 * np.log(2)])


def test_phrases_may_be_written_by_the_proposer():
    scorer = PlantedScorer("separable")
    objective = scorer.objective(scorer.budget(60))
    search(Grips(objective, seed=0, prompts=["w1 w2 w3"], substitute="proposer"))
    assert objective.ledger.proposer > 0
    silent = scorer.objective(scorer.budget(60))
    search(Grips(silent, seed=0, prompts=["w1 w2 w3"]))
    assert silent.ledger.proposer == 0


def test_a_start_that_fails_is_left_for_another():
    class Failing(PlantedScorer):
        def _fails(self, prompt):
            return prompt.texts[0] == "w1 w2"

    scorer = Failing("separable")
    objective = scorer.objective(scorer.budget(30))
    search(Grips(objective, seed=0, prompts=["w1 w2", "w3 w4"]))
    assert scored(objective)[:2] == ["w1 w2", "w3 w4"]
    assert len(scored(objective)) > 10
    alone = scorer.objective(scorer.budget(30))
    assert search(Grips(alone, seed=0, prompts=["w1 w2"])) == "nothing left to propose"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "'batch' must be at least 1, got 0"),
        ({"entropy": -1.0}, "'entropy' must be at least 0, got -1.0"),
        ({"annealing": float("nan")}, "'annealing' must be a finite number, got nan"),
        ({"prompts": ["a", " "]}, "one of the 'prompts' is empty"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(StrategyError, match=message):
        make_strategy("it", Grips, planted_objective(), 0, options)
