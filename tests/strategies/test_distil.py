"""Distil: the conformance suite, what teaches, what is learned, and what is paid for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptsearch import TextPrompt
from promptsearch.errors import StrategyError
from promptsearch.models import LanguageModel
from promptsearch.scoring.layout import slots_of
from promptsearch.scoring.protocol import price_of
from promptsearch.search.books import books_of
from promptsearch.strategies.distil import Distil, DistilPrefix
from promptsearch.study.arena import Arena
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.families import FAMILIES, TEMPLATE
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import objective_on
from promptsearch.testing.tiny_task import tiny_engine, tiny_task

TEACHER = TextPrompt("good film: good\nI hate: bad\n")
SOME = np.array([0, 5, 3, 0])  # an example that is asked for twice counts twice
MODELS = {name: LanguageModel(*made(), name=name) for name, made in FAMILIES.items()}


class Taught(StrategyConformance):
    """The planted prompt teaches, with other words around it."""

    evaluations, few, seeds = 60, 20, 5

    def start(self, objective, seed):
        ids = PlantedScorer("separable", seed=seed).optimum.ids
        return TextPrompt(" ".join(f"w{i}" for i in (*ids, *range(8))))


class TestVectors(Taught):
    strategy = Distil
    options = {"interval": 4, "batch": 4, "rate": 0.05}


class TestPrefix(Taught):
    strategy = DistilPrefix
    options = {"interval": 4, "batch": 4}


@pytest.fixture(params=MODELS)
def lm(request):
    return MODELS[request.param]


def engine_of(lm, answers, kind):
    length = len(lm.encode(TEACHER.texts[0]))
    return tiny_engine(lm, TEMPLATE, answers, length=length, kind=kind)


def as_numbers(engine, kind):
    """The teacher as what is trained: the embeddings of its tokens, or their keys and values."""
    ids = engine.encode(TEACHER.texts[0])
    found = engine.keys_values(ids) if kind == "prefix" else engine.embeddings[ids].float()
    return found.clone().requires_grad_()


def taught(engine):
    """What the teacher predicts of `SOME`."""
    found = engine.teaching.predictions(TEACHER, np.unique(SOME))
    known = dict(zip(np.unique(SOME).tolist(), found, strict=True))
    return [known[int(i)] for i in SOME]


# What is learned.


@pytest.mark.parametrize("answers", [("bad", "good"), ("bad movie", "good"), None])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(lm, answers):
    engine = engine_of(lm, answers, "slots")
    numbers = as_numbers(engine, "slots")
    loss = engine.teaching.divergence(numbers, SOME, taught(engine))
    assert abs(float(loss.detach())) < 1e-6
    (gradient,) = torch.autograd.grad(loss, numbers)
    assert gradient.norm() < 1e-3, "the divergence is least here"


@pytest.mark.parametrize("answers", [("bad", "good"), ("bad movie", "good"), None])
def test_what_is_predicted_is_what_is_scored(lm, answers):
    engine = engine_of(lm, answers, "slots")
    scores = engine.score([TEACHER], SOME)
    for place, found in enumerate(taught(engine)):
        if answers is not None:
            assert np.allclose(found, scores.choices[0, place], atol=1e-5)
            continue
        (answer,) = engine.layout(int(SOME[place])).answers
        nats = lm.passes.logits(found).log_softmax(-1)[range(len(answer)), answer]
        assert -float(nats.sum()) == pytest.approx(scores.losses[0, place], abs=1e-4)


@pytest.mark.parametrize("answers", [("bad", "good"), None])
def test_a_prefix_of_the_teachers_keys_and_values_has_nothing_to_learn(answers):
    engine = engine_of(MODELS["causal"], answers, "prefix")
    loss = engine.teaching.divergence(as_numbers(engine, "prefix"), SOME, taught(engine))
    assert abs(float(loss.detach())) < 1e-6


def by_hand(lm, engine, example, choices, rows):
    """Log-probabilities below embedded rows, by the model itself: `(outcomes,)` or each token's."""
    layout = engine.layout(example)
    behind = [*layout.segments[1]]
    answer = layout.answers[0] if choices is None else ()
    ids = torch.tensor([*behind, *answer[:-1]])
    inputs = torch.cat([rows, lm.model.get_input_embeddings()(ids)])
    logits = lm.model(inputs_embeds=inputs[None]).logits[0, len(rows) + len(behind) - 1 :]
    return (logits if choices is None else logits[:1, choices]).log_softmax(-1)


@pytest.mark.parametrize("answers", [("bad", "good"), None])
def test_divergence_and_gradient_are_those_of_the_formula(answers):
    lm = MODELS["causal"]
    engine = tiny_engine(lm, TEMPLATE, answers, length=3)
    choices = None if answers is None else [a[0] for a in engine.layout(0).answers]
    teacher = engine.embeddings[engine.encode(TEACHER.texts[0])].float()
    numbers = torch.randn(3, teacher.shape[1], generator=torch.Generator().manual_seed(0))
    numbers = (0.1 * numbers).requires_grad_()
    each = []
    for example in SOME.tolist():
        p = by_hand(lm, engine, example, choices, teacher).detach()
        q = by_hand(lm, engine, example, choices, numbers)
        each.append(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum"))
    expected = torch.stack(each).mean()
    found = engine.teaching.divergence(numbers, SOME, taught(engine))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    gradients = [torch.autograd.grad(loss, numbers)[0] for loss in (expected, found)]
    assert torch.allclose(*gradients, atol=1e-6, rtol=1e-3) and gradients[0].norm() > 1e-5


def test_an_example_with_several_right_answers_teaches_by_one_of_them():
    lm = MODELS["causal"]
    several = tiny_engine(lm, tiny_task(TEMPLATE, None, also=["very good film", "bad"]), length=3)
    ids = np.arange(6)
    found = several.teaching.predictions(TEACHER, ids)
    lengths = [{len(answer) for answer in several.layout(int(i)).answers} for i in ids]
    assert all(len(own) in some for own, some in zip(found, lengths, strict=True))
    again = several.teaching.predictions(TEACHER, ids[::-1])[::-1]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, again, strict=True))
    vectors = torch.zeros(3, several.embeddings.shape[1])
    assert several.teaching.divergence(vectors, ids, found) > 0


# What teaches, and what it costs.


def test_predictions_cost_what_the_prompts_losses_cost_wherever_the_student_stands(lm):
    slots, prefix = (engine_of(lm, ("bad movie", "good"), kind) for kind in ("slots", "prefix"))
    ids = np.arange(6)
    price = price_of(slots, slots.length(TEACHER), ids)
    assert slots.teaching.price(TEACHER, ids) == price
    lead = int(slots.lead(ids).sum() - prefix.lead(ids).sum())
    assert prefix.teaching.price(TEACHER, ids) == price + lead


def planted(**options):
    scorer = PlantedScorer("separable")
    return Distil(scorer.objective(scorer.budget(40)), seed=0, batch=4, **options)


def test_what_the_teacher_predicts_is_paid_once():
    strategy = planted(shots=2)
    objective = strategy.objective
    ids = strategy.minibatch()
    spent = []
    for _ in range(2):
        before = objective.ledger.spent
        strategy.loss(strategy.module(), ids, 0)
        spent.append(objective.ledger.spent - before)
    scorer = books_of(objective).scorer
    lead = int(scorer.lead(ids).sum())
    assert spent[0] == spent[1] + objective.teaching.price(strategy.teacher, ids) + lead
    left = strategy.meeting_price()
    rest = [i for i in strategy.inputs if i not in ids]
    assert left == objective.teaching.price(strategy.teacher, rest)


def test_solved_examples_teach_and_are_no_inputs():
    strategy = planted(shots=3)
    solved = strategy.teacher.texts[0].splitlines()
    objective = strategy.objective
    known = dict(zip(objective.training, objective.demonstrations(objective.training), strict=True))
    assert len(solved) == 3 and set(solved) <= set(known.values())
    inputs = {i for i, text in known.items() if text not in solved}
    assert set(strategy.inputs.tolist()) == inputs and len(inputs) < len(known)


def test_examples_that_stand_there_with_wrong_answers_are_no_inputs_either():
    objective = PlantedScorer("separable").objective()
    shown = objective.training[2:5]
    answers = [{" yes": " no", " no": " yes"}[each.answer] for each in objective.examples(shown)]
    objective.start = TextPrompt("\n".join(objective.demonstrations(shown, answers)))
    strategy = Distil(objective, seed=0)
    assert set(strategy.inputs) == set(objective.training) - set(shown)


def test_vectors_start_from_tokens_of_the_teacher_in_their_order():
    strategy = planted(text="w3 w5 w8 w9 w4 w6")
    (prompt,) = strategy.ask()
    rows = strategy.objective.embeddings[[3, 5, 8, 9, 4, 6]]
    places = [int((rows == vector).all(-1).nonzero()[0]) for vector in prompt.vectors]
    assert places == sorted(set(places)) and len(places) == 4


@pytest.mark.parametrize("kind", ["slots", "prefix"])
def test_the_teachers_tokens_are_those_that_it_has_in_the_slots(kind):
    lm = MODELS["causal"]
    task = tiny_task("{prompt} movie: {text} {prompt} {answer}")
    arena = Arena.build(task, lm, torch.float32, 2, lm.words, 8, kind=kind)
    objective = objective_on(arena)
    objective.start = teacher = TextPrompt(["good film", "the story"])
    strategy = (DistilPrefix if kind == "prefix" else Distil)(objective, seed=0)
    slots = slots_of(task.template.bind(2), lm, teacher)
    assert strategy.tokens == [i for slot in slots for i in slot]
    assert strategy.tokens != objective.encode("".join(teacher.texts))


def test_the_first_token_of_a_prefix_stays_as_it_is():
    scorer = PlantedScorer("separable")
    strategy = DistilPrefix(
        scorer.objective(scorer.budget(40)), seed=0, batch=4, text="w3 w5 w8 w9 w4"
    )
    strategy.objective.evaluate(first := strategy.ask())
    assert torch.equal(first[0].keys_values, scorer.keys_values([3, 5, 8, 9]))
    fair = torch.tensor([0.5, 0.5]).double().log()  # not what the start predicts
    strategy.taught = dict.fromkeys(range(32), fair)
    strategy.train()
    moved = (strategy.prompt().keys_values != first[0].keys_values).flatten(1).any(1)
    assert moved.tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"text": ""}, "the prompt that teaches has 0 tokens, and is to be put into 4"),
        ({"text": "w1 w2 w3"}, "has 3 tokens.* give a shorter 'length', or a longer prompt"),
        ({"shots": 99}, "99 shots were asked for, but only 16 examples are not scored on"),
    ],
)
def test_a_prompt_that_cannot_teach_is_refused(options, reason):
    with pytest.raises(StrategyError, match=reason):
        planted(**options)


def test_two_teachers_are_one_too_many():
    objective = PlantedScorer("separable").objective()
    objective.start = TEACHER
    with pytest.raises(StrategyError, match="give one of them"):
        Distil(objective, seed=0, text="w1 w2 w3 w4 w5")


def test_a_teacher_that_the_model_cannot_read_is_refused():
    engine = tiny_engine(MODELS["causal"], TEMPLATE)
    with pytest.raises(
        StrategyError, match="the prompt that teaches cannot be read: .* at most 512"
    ):
        engine.teaching.price(TextPrompt("good " * 5_000), np.arange(2))
