"""Answers to choose from that differ by row, and scores by length: against sums of plain passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptsearch.errors import TemplateError
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.records.log_line import check_evaluation
from promptsearch.records.scores import rows_of, scores_from_json, scores_to_json
from promptsearch.scoring import Engine
from promptsearch.tasks.task import Split
from promptsearch.testing.tiny_task import tiny_task

OPTIONS = (
    (" bad", " very good indeed", " Paris"),
    (" Paris", " the capital of France"),
    (" good", " bad", " great", " funny ëé"),
)
EVERYTHING = np.arange(12)
TEXTS = [TextPrompt("Is the movie good or bad?"), TextPrompt("The capital")]


def by_row(split):
    """The split's examples, each with two, three or four answers of its own."""
    examples = []
    for example in split.examples:
        options = OPTIONS[example.id % 3]
        choice = example.id // 3 % len(options)
        examples.append(replace(example, answer=options[choice], choice=choice, options=options))
    return Split("search", tuple(examples))


def sums(lm, template, example, prompt, options):
    """The log-probability of each answer, by the model's own forward on the whole text."""
    before = template.render(example.fields, template.slot_texts(prompt.texts), "")
    found = []
    for option in options:
        ids = [*lm.lead, *lm.encode(before, begins=True), *(own := lm.encode(option))]
        with torch.inference_mode():
            logits = lm.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        steps = logits[len(ids) - len(own) - 1 : -1]
        found.append(float(steps.gather(-1, torch.tensor(own)[:, None]).sum()))
    return np.array(found)


#: The formulas of lm-evaluation-harness (`process_results` of multiple choice): log-probabilities
#: over `len(choice)` for `acc_norm`, over `len(choice.encode("utf-8"))` for `acc_bytes`, the choice
#: without the space in front of it.
LENGTHS = {
    "none": lambda lm, options: np.ones(len(options)),
    "tokens": lambda lm, options: np.array([len(lm.encode(o)) for o in options]),
    "bytes": lambda lm, options: np.array([len(o[1:].encode("utf-8")) for o in options]),
    "characters": lambda lm, options: np.array([len(o[1:]) for o in options]),
}


@pytest.mark.parametrize("normalise", LENGTHS)
@pytest.mark.parametrize("before", ["{prompt} {text} It was", "{text} {prompt} It was"])
def test_options_of_rows_equal_sums_of_plain_passes(lm, normalise, before):
    task = tiny_task(before + " {answer}", None)
    split, bound = by_row(task.splits["search"]), task.template.bind(2)
    scores = Engine(lm, bound, split, None, normalise=normalise).score(TEXTS, EVERYTHING)
    assert scores.choices is not None and scores.choices.shape == (2, 12, 4)
    for p, prompt in enumerate(TEXTS):
        for e in split.examples:
            found = sums(lm, bound, e, prompt, e.options)
            expected = torch.tensor(found / LENGTHS[normalise](lm, e.options)).log_softmax(-1)
            own = scores.choices[p, e.id]
            assert np.abs(own[: len(e.options)] - expected.numpy()).max() < 1e-4
            assert np.isnan(own[len(e.options) :]).all()
            assert abs(scores.losses[p, e.id] + float(expected[e.choice])) < 1e-4
            assert scores.metric[p, e.id] == (int(expected.argmax()) == e.choice)


@pytest.mark.parametrize("normalise", LENGTHS)
@pytest.mark.parametrize("answers", [("bad", "good"), ("bad", "very good indeed")])
def test_choices_of_a_task_may_be_weighed_by_length(llama, normalise, answers):
    task = tiny_task("{prompt} {text} It was {answer}", answers)
    split, bound = task.splits["search"], task.template.bind(2)
    scores = Engine(llama, bound, split, task.choices, normalise=normalise).score(TEXTS, EVERYTHING)
    for p, prompt in enumerate(TEXTS):
        for e in split.examples:
            found = sums(llama, bound, e, prompt, task.choices)
            expected = torch.tensor(found / LENGTHS[normalise](llama, task.choices)).log_softmax(-1)
            assert np.abs(scores.choices[p, e.id] - expected.numpy()).max() < 1e-4


def test_a_trained_prompt_sees_the_same_loss_and_a_gradient(lm):
    task = tiny_task("{prompt} {text} It was {answer}", None)
    engine = Engine(
        lm, task.template.bind(2), by_row(task.splits["search"]), None, normalise="bytes"
    )
    vectors = lm.vocabulary[:2].clone().requires_grad_()
    loss = engine.loss(vectors, np.array([0, 1, 2, 4]))
    scored = engine.score([SoftPrompt(vectors.detach())], np.array([0, 1, 2, 4])).losses.mean()
    assert float(loss.detach()) == pytest.approx(scored, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, vectors)
    assert torch.isfinite(gradient).all() and (gradient.abs().sum(-1) > 0).all()


def test_options_that_the_tokenizer_cannot_tell_apart_are_named(llama):
    task = tiny_task("{prompt} {text} It was {answer}", None)
    split = by_row(task.splits["search"])

    def engine(options, normalise="none"):
        first = replace(split.examples[0], answer=options[0], choice=0, options=options)
        changed = Split("search", (first, *split.examples[1:]))
        return Engine(llama, task.template.bind(2), changed, None, normalise=normalise)

    with pytest.raises(TemplateError, match="of search example 0 to the same tokens"):
        engine((" good", " good"))
    with pytest.raises(TemplateError, match="beginning of ' good movie' of search example 0"):
        engine((" good", " good movie"))
    assert np.isfinite(
        engine((" good", " good movie"), "bytes").score(TEXTS, EVERYTHING).losses
    ).all()
    with pytest.raises(TemplateError, match="the answer '' of search example 0 is empty"):
        engine(("", " good"))


def line_of(scores):
    """A log line of a search."""
    return {
        "stage": "search",
        "examples": list(range(12)),
        "prompts": [{"key": f"a{i}", "kind": "text"} for i in range(len(scores.losses))],
        **scores_to_json(scores),
        "price": 0,
        "seconds": 1.0,
        "ledger": {
            **dict.fromkeys(("forward", "backward", "proposer", "pool", "brought"), 0),
            **dict.fromkeys(("cached", "computed"), 0),
            "budget": None,
        },
    }


def test_a_log_line_holds_them_and_is_checked(llama):
    """What a row does not have is null, and comes back as NaN; a number there is damage."""
    task = tiny_task("{prompt} {text} It was {answer}", None)
    engine = Engine(llama, task.template.bind(2), by_row(task.splits["search"]), None)
    scores = engine.score(TEXTS, EVERYTHING)
    line = line_of(scores)
    assert line["choices"][0][1][2:] == [None, None]
    check_evaluation(line, None)
    back = scores_from_json(line)
    np.testing.assert_array_equal(np.isnan(back.choices), np.isnan(scores.choices))
    for row, choices in zip(rows_of(line, 12), scores.choices, strict=True):
        np.testing.assert_allclose(row.choices, choices, atol=1e-6)
    for place, value in ((1, 0.0), (2, -1.0)):
        broken = line_of(scores)
        broken["choices"][0][1] = [None] + broken["choices"][0][1][:place] + [value]
        broken["choices"][0][1] = (broken["choices"][0][1] + [None] * 4)[:4]
        with pytest.raises(ValueError, match="of other examples"):
            check_evaluation(broken, None)
    hole = line_of(scores)
    hole["choices"][0][2][2] = None  # of four
    with pytest.raises(ValueError, match="of other examples"):
        check_evaluation(hole, None)
