"""What a record says about training.

A finding for each way in which it fails silently, and none where all is well.
"""

import json

import pytest
import torch

from promptsearch.search.diagnosis import FIRST_STEPS, Training, diagnose

GOOD = [1.0, 0.8, 0.6, 0.5, 0.45, 0.42, 0.41, 0.405, 0.404]


def training(**changes):
    facts = {"rate": 0.03, "steps": 64, "gradients": [0.5, 0.4], "reached": [0, 1, 2], "moved": 0.6}
    return Training(length=3, **{**facts, **changes})


def findings(scores=GOOD, winner=0.4, empty=0.7, **changes):
    return diagnose(training(**changes), scores, winner, empty)["findings"]


def test_a_good_training_has_no_findings():
    assert findings() == []


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"steps": 0}, "it was not trained: the run ended before the first step"),
        ({"diverged": "a loss is nan"}, "it diverged: a loss is nan"),
        ({"reached": [0]}, "no gradient reached 2 of the prompt's 3 tokens"),
        ({"unit": "tensors", "reached": [0]}, "no gradient reached 2 of the prompt's 3 tensors"),
        ({"scores": [0.5, 0.51, 0.52, 0.5]}, "training did not lower the loss"),
        (
            {"scores": [1.0, 1.7, 0.9, 0.5, 0.4, 0.4]},
            "the rate looks too high: the loss jumped from 1.000 at the start to 1.700",
        ),
        ({"moved": 0.004}, "the rate looks too low: the prompt moved by 0.4 % of its norm only"),
        (
            {"scores": [1 - 0.05 * i for i in range(12)]},
            "the rate or the budget looks too low: the loss was still falling at the end",
        ),
        (
            {"winner": 0.8},
            (
                "the result is worse than the empty prompt: 0.800 against 0.700 nats on the "
                "select split"
            ),
        ),
    ],
)
def test_each_way_to_fail_has_its_finding_and_no_other(changes, finding):
    assert findings(**changes) == [finding]


def test_clipping_is_a_fault_where_nothing_was_learnt_only():
    """AdamW undoes a constant scale of its gradients."""
    clipped = (
        "the rate looks too high, or 'clip' too low: the gradient was clipped at nearly all steps"
    )
    assert diagnose(training(clipped=63), GOOD, 0.4, 0.7)["findings"] == []
    assert clipped in diagnose(training(clipped=63), [1.0, 1.01, 1.02], 0.4, 0.7)["findings"]
    assert clipped not in diagnose(training(clipped=40), [1.0, 1.01, 1.02], 0.4, 0.7)["findings"]


def test_of_changed_weights_no_move_is_expected():
    assert findings(moved=None) == []
    assert findings(moved=None, scores=[1 - 0.05 * i for i in range(12)]) == [
        "the rate or the budget looks too low: the loss was still falling at the end"
    ]


def test_a_jump_that_was_made_good_is_no_fault():
    """A single early scoring may be bad, and the run good all the same."""
    assert findings(scores=[1.0, 1.3, 0.9, 0.5, 0.4, 0.4]) == []


def test_an_empty_prompt_that_cannot_be_scored_says_nothing():
    assert findings(empty=None) == []


def test_prompts_that_could_not_be_scored_are_no_jump():
    assert findings(scores=[1.0, float("inf"), *GOOD[1:]]) == []
    assert diagnose(training(), [float("inf"), *GOOD], 0.4, None)["before"] is None


def test_a_diagnosis_is_json_and_shares_are_shares():
    found = json.loads(
        json.dumps(diagnose(training(reached=[0, 2], clipped=16), GOOD, 0.4, 0.7), allow_nan=False)
    )
    assert (found["before"], found["after"], found["reached"], found["clipped"]) == (
        1.0,
        0.404,
        pytest.approx(2 / 3),
        0.25,
    )


def test_notes_are_of_the_first_steps_only_and_rows_are_counted_once():
    notes = Training(length=4)
    for step in range(FIRST_STEPS + 5):
        norms = torch.zeros(4)
        norms[step % 2 if step < FIRST_STEPS else 3] = 2.0
        notes.enter(norms, clipped=step == 0)
    assert notes.steps == FIRST_STEPS + 5 and notes.clipped == 1 and notes.reached == [0, 1]
    assert notes.gradients == [2.0] * FIRST_STEPS
