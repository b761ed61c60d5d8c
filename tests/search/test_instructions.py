import pytest

from promptsearch import TextPrompt
from promptsearch.errors import NothingUsable
from promptsearch.models.endpoint import Completion
from promptsearch.search.instructions import (
    FROM_EXAMPLES,
    VARIATION,
    Instructions,
    read_instruction,
    solved,
)
from promptsearch.testing.planted import PlantedScorer


@pytest.mark.parametrize(
    ("answer", "instruction"),
    [
        (" Say whether the film is good.", "Say whether the film is good."),
        ("\n\n  Two\nlines", "Two"),
        ("1. Name the capital.", "Name the capital."),
        ("(2) Name it", "Name it"),
        ("- Name the capital.", "Name the capital."),
        ('Instruction: "Name the capital."', "Name the capital."),
        ("The new instruction is: Name it", "Name it"),
        ("**Instruction:** Name it", "Name it"),
        ("“Name it.”", "Name it."),
        ('"Good" or "bad"?', '"Good" or "bad"?'),
        ('"Good" or "bad"', '"Good" or "bad"'),
        ("3 + 4 = ?", "3 + 4 = ?"),
        ("much   white\tspace", "much white space"),
        ("", ""),
        (" \n ", ""),
        ("...", ""),
        ("Output: yes", ""),
        ("Score: 50", ""),
        ("Input 2: cat", ""),
        ("**Output (1)**: yes", ""),
        ("In other words: Say it.", ""),
        (
            "First decide who speaks, then answer: a or b",
            "First decide who speaks, then answer: a or b",
        ),
        ("Score the review: good or bad.", "Score the review: good or bad."),
        (
            "Output yes if the guest is happy: otherwise no.",
            "Output yes if the guest is happy: otherwise no.",
        ),
    ],
)
def test_an_instruction_is_read_from_the_first_line_without_what_stands_around_it(
    answer, instruction
):
    assert read_instruction(answer) == instruction


def test_examples_are_shown_with_their_answers_in_the_form_that_requests_go_on_with():
    (example,) = PlantedScorer("separable").examples([3])
    shown = solved([example])
    assert shown == "Input: the example number 3\nOutput: no\n"
    assert FROM_EXAMPLES.format(shown).endswith("yes or no.\n\n" + shown + "Instruction:")
    assert VARIATION.format("Say it").endswith("\n\nInstruction: Say it\nIn other words:")


def propose(answers, longest=6, retries=1, known=(), asked=None, budget=None):
    class Saying:
        asked = 0

        def most(self, request):
            return 1

        def complete(self, requests, *, max_tokens, temperature, **settings):
            self.asked += 1
            if asked is not None:
                asked.append((*requests, temperature))
            return [Completion(answer, 1, 1) for answer in answers[self.asked - 1]]

    instructions = Instructions(
        PlantedScorer("separable").objective(budget, proposing=Saying()),
        seed=0,
        longest=longest,
        temperature=1.0,
        retries=retries,
    )
    instructions.know(known)
    return instructions.propose(lambda: ["a"] * len(answers[0]), lambda: "b")


def test_an_instruction_says_whether_it_comes_from_its_request_or_from_other_examples():
    assert propose([["new"]]) == ({0: "new"}, False)
    assert propose([["..."], ["new"]]) == ({0: "new"}, True)


def test_what_is_too_long_is_cut_after_a_whole_sentence_or_refused():
    found, _ = propose(
        [
            [
                "one two three four five",
                "Two words. And four more words",
                "one two three four five six",
                "A. B. C. D. E. F",
            ]
        ]
    )
    assert found == {0: "one two three four five", 1: "Two words.", 3: "A. B. C. D. E."}


def test_nothing_is_proposed_twice_and_places_are_told():
    found, _ = propose([["a b", "a  b", "known one", "c"]], known=["known one"])
    assert found == {0: "a b", 3: "c"}


def test_trying_goes_on_to_its_limit_from_other_examples_and_more_freely():
    asked = []
    assert propose([["", "..."], ["", "new"]], retries=1, asked=asked).texts == {1: "new"}
    assert asked == [("a", "a", 1.0), ("b", "b", 1.1)]
    with pytest.raises(
        NothingUsable,
        match=(
            "nothing usable in 2 tries: no new one of less than 6 tokens that the budget pays. "
            "Its last answer was '...'"
        ),
    ):
        propose([["", "..."], ["", "..."], ["", "new"]], retries=1)


def test_what_the_budget_does_not_pay_is_not_proposed():
    scorer = PlantedScorer("separable")
    each = scorer.objective().price([TextPrompt("w1 w2")])
    assert propose([["one two three", "one two"]], budget=each + 4).texts == {1: "one two"}
    with pytest.raises(NothingUsable, match="the budget pays for no further instruction"):
        propose([["one"]], budget=each // 2)
