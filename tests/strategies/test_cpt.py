"""CPT: the conformance suite, its prompt, its balls, its loss, and PEFT's CPT beside it."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch import SoftPrompt, TextPrompt
from promptsearch.errors import OptionError, StrategyError
from promptsearch.models import LanguageModel
from promptsearch.prompts.space import PromptSpace
from promptsearch.records.ledger import Ledger
from promptsearch.scoring.layout import slots_of
from promptsearch.search import loop
from promptsearch.search.books import books_of
from promptsearch.search.objective import Objective
from promptsearch.search.options import check_options
from promptsearch.strategies.cpt import CPT
from promptsearch.study.arena import Arena
from promptsearch.testing.conformance import StrategyConformance
from promptsearch.testing.families import FAMILIES
from promptsearch.testing.planted import PlantedScorer
from promptsearch.testing.searched import objective_on, random_search
from promptsearch.testing.tiny_task import tiny_engine, tiny_task

MODELS = {name: LanguageModel(*made(), name=name) for name, made in FAMILIES.items()}
WIDE = {"eps_input": 2.0, "eps_format": 2.0}


class TestCPT(StrategyConformance):
    strategy = CPT
    options = {"interval": 2, "batch": 4, "rate": 0.05, **WIDE}
    planted = "separable"
    few = 20
    # Over prompts long enough that a label, which stays, is a small part: see below.
    test_beats_random_on_its_planted_objective = None


def test_it_beats_random_where_the_balls_reach_the_planted_prompt():
    better = 0
    for seed in range(20):
        scorer = PlantedScorer("separable", seed=seed, length=10)
        objective = scorer.objective(scorer.budget(40))
        loop.search(CPT(objective, seed=seed, interval=4, batch=4, rate=0.1, **WIDE))
        better += objective.ranking[0].value < random_search(scorer, 40, seed)
    assert better >= 19, f"{better} better of 20"


def objective_of(lm, length=40, answers=None, budget=None, start=None):
    engine = tiny_engine(lm, "{prompt} {text} It was {answer}", answers, length=length)
    space = PromptSpace(lm.words, length, lm.decode, embeddings=lambda: lm.vocabulary)
    halves = np.split(np.arange(12), [3])
    objective = Objective(engine, space, Ledger(budget), scored=halves[0], training=halves[1])
    objective.start = start
    return objective


def planted(length=14, **options):
    scorer = PlantedScorer("separable", length=length)
    return CPT(scorer.objective(scorer.budget(40)), seed=0, batch=4, **options)


def labels_of(strategy):
    return [place for answer in strategy.shown.answers for place in answer]


# The prompt.


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_as_the_solved_examples_of_another_run(family):
    lm = MODELS[family]
    words = "good film"
    objective = objective_of(lm)
    text = "".join(solved + "\n" for solved in objective.demonstrations([4, 5, 6]))
    start = TextPrompt(f"{words}\n{text}")
    length = len(lm.encode(start.texts[0]))
    objective = objective_of(lm, length, start=start)
    strategy = CPT(objective, seed=0, decay=0)
    (prompt,) = strategy.ask()
    values = [objective.evaluate([each]).values[0] for each in (prompt, start)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert set(strategy.shown.examples) == {4, 5, 6} and len(strategy.shown.answers) == 3
    assert not {4, 5, 6} & set(strategy.inputs.tolist()), "what is shown is not trained on"


def test_the_tokens_of_another_run_are_those_that_it_has_in_the_slots():
    lm = MODELS["causal"]
    task = tiny_task("{prompt:12} {prompt:12} {text} It was {answer}")
    arena = Arena.build(task, lm, torch.float32, 1, lm.words, 6)
    objective = objective_on(arena)
    objective.start = start = TextPrompt(objective.demonstrations([8, 9]))
    strategy = CPT(objective, seed=0, decay=0)
    ids = [i for slot in slots_of(arena.template, lm, start) for i in slot]
    assert strategy.shown.ids == tuple(ids[-24:]) and strategy.shown.examples == (8, 9)
    found = [strategy.shown.ids[place] for place in labels_of(strategy)]
    assert lm.decode(found) == "".join(each.answer for each in objective.examples([8, 9]))


def test_drawn_examples_fill_the_length_and_the_first_is_cut():
    strategy = planted(length=12)  # a solved example has five tokens there
    (prompt,) = strategy.ask()
    encode = strategy.objective.encode
    solved = {i: encode(s) for i, s in enumerate(strategy.objective.demonstrations(range(32)))}
    ids = list(strategy.shown.ids)
    assert ids[2:7] in solved.values() and ids[7:] in solved.values()
    assert ids[:2] in [own[3:] for own in solved.values()]
    assert torch.equal(prompt.vectors, strategy.objective.embeddings[ids])
    assert labels_of(strategy) == [1, 6, 11] and strategy.shown.inputs == {
        0,
        2,
        3,
        4,
        5,
        7,
        8,
        9,
        10,
    }
    assert set(strategy.targets) == {1, 6, 11}
    assert 0 not in planted(length=11).targets, "nothing stands before an answer that comes first"


def test_a_prompt_without_answers_or_examples_enough_is_refused():
    with pytest.raises(StrategyError, match="hold no answer of a solved example of this task"):
        scorer = PlantedScorer("separable")
        objective = scorer.objective()
        objective.start = TextPrompt("w1 w2 w3 w4 w5")
        CPT(objective, seed=0)
    with pytest.raises(StrategyError, match="has 999 tokens, and all solved examples together"):
        planted(length=999)


def test_a_model_that_reads_both_ways_has_no_loss_on_labels():
    objective = objective_of(MODELS["masked"])
    with pytest.raises(StrategyError, match="'decay: 0'"):
        CPT(objective, seed=0)
    assert not CPT(objective, seed=0, decay=0).targets


# The balls.


@settings(max_examples=25, deadline=None)
@given(
    eps=st.tuples(*[st.sampled_from([0.0, 1e-3, 0.05, 1.0])] * 2),
    rate=st.sampled_from([1e-3, 0.1, 100.0]),
    seed=st.integers(0, 99),
)
def test_every_vector_stays_in_its_ball_and_labels_stay_as_they_are(eps, rate, seed):
    scorer = PlantedScorer("separable", seed=seed, length=7)
    objective = scorer.objective(scorer.budget(8))
    start = TextPrompt("w1 w2 the example number 20 yes w3 the example number 21 no w4")
    objective.start = start
    options = {"eps_input": eps[0], "eps_format": eps[1], "rate": rate, "interval": 1, "batch": 2}
    strategy = CPT(objective, seed=seed, **options)
    told, tell = [], strategy.tell

    def listen(prompts, evaluation):
        told.extend(prompts)
        tell(prompts, evaluation)

    strategy.tell = listen
    loop.search(strategy)
    assert strategy.training.steps and len(told) > 1
    first = scorer.embeddings[list(strategy.shown.ids)]
    inputs = sorted(strategy.shown.inputs)
    format_ = sorted(set(range(7)) - set(inputs) - set(labels_of(strategy)))
    assert inputs and format_ and labels_of(strategy)
    assert strategy.trainable == 8 * (len(inputs) * (eps[0] > 0) + len(format_) * (eps[1] > 0))
    for prompt in [*told, objective.ranking[0].prompt]:
        assert isinstance(prompt, SoftPrompt)
        assert torch.equal(prompt.vectors[labels_of(strategy)], first[labels_of(strategy)])
        distances = (prompt.vectors.double() - first.double()).norm(dim=1)
        near = 1e-6  # what adding in float32 leaves
        assert (distances[inputs] <= eps[0] + near).all()
        assert (distances[format_] <= eps[1] + near).all()
    if rate == 100.0:  # a radius is the one that is given, whatever the width
        moved = (told[1].vectors.double() - first.double()).norm(dim=1)
        assert moved[inputs].max() == pytest.approx(eps[0], abs=near)
        assert moved[format_].max() == pytest.approx(eps[1], abs=near)


# The loss.


def peft_of(lm, strategy, decay, eps):
    """PEFT's CPT of the same examples, with the same radii, on a copy of the model."""
    shown, scale = strategy.shown, math.sqrt(16 / 2048)  # what PEFT makes of radii at this width
    kinds = [1] * len(shown.ids)
    for number, answer in enumerate(shown.answers, start=1):
        for place in answer:
            kinds[place] = 4 * number  # each answer has a number of its own
    for place in shown.inputs:
        kinds[place] = 2
    config = peft.CPTConfig(
        task_type="CAUSAL_LM",
        cpt_token_ids=list(shown.ids),
        cpt_mask=[1] * len(shown.ids),
        cpt_tokens_type_mask=kinds,
        opt_weighted_loss_type="decay",
        opt_loss_decay_factor=decay,
        opt_projection_epsilon=eps[0] / scale,
        opt_projection_format_epsilon=eps[1] / scale,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks the model by names that are to go
        return peft.get_peft_model(copy.deepcopy(lm.model), config)


def both_losses(decay, example, eps=(0.2, 0.1)):
    """Our loss and PEFT's, their gradients by vector, and the number of tokens in answers."""
    lm = MODELS["causal"]
    strategy = CPT(objective_of(lm), seed=0, decay=decay, eps_input=eps[0], eps_format=eps[1])
    theirs = peft_of(lm, strategy, decay, eps)
    with torch.no_grad():  # away from the start, and beyond the balls
        delta = theirs.prompt_encoder["default"].delta_embedding.weight
        step = 0.05 * torch.randn(delta.shape, generator=torch.Generator().manual_seed(1))
        step[labels_of(strategy)] = 0
        delta.copy_(step)
        strategy.module.moved.copy_(step[strategy.module.places])
    assert torch.allclose(theirs.get_prompt(1)[0], strategy.module(), atol=1e-6)
    numbers = strategy.module().detach().requires_grad_()
    ours = strategy.loss(numbers, np.array([example]), 0)
    (gradient,) = torch.autograd.grad(ours, numbers)
    layout = books_of(strategy.objective).scorer.layout(example)
    text, (answer,) = layout.segments[1], layout.answers
    ids = torch.tensor([[*text, *answer]])
    kinds = torch.tensor([[1] * len(text) + [4] * len(answer)])
    loss = theirs(input_ids=ids, labels=ids.clone(), input_type_mask=kinds).loss
    loss.backward()
    tokens = len(labels_of(strategy)) + len(answer)
    return strategy, (float(ours.detach()), gradient), (float(loss.detach()), delta.grad), tokens


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_loss_gradient_and_projection_are_those_of_peft_but_for_what_they_are_divided_by(decay):
    for example in (0, 1):  # one of them with an answer of two tokens
        strategy, ours, theirs, tokens = both_losses(decay, example)
        count = len(strategy.shown.answers)
        assert count > 1
        weights = sum(decay**distance for distance in range(count + 1))
        assert ours[0] * weights == pytest.approx(theirs[0] * tokens, rel=1e-5)
        free = strategy.module.places
        expected = theirs[1][free] * tokens / weights
        assert torch.allclose(ours[1][free], expected, atol=1e-6) and expected.norm() > 1e-4


def test_the_loss_is_a_mean_whatever_the_decay():
    """With next to no weight on the labels it is the example's own; PEFT's is a share of that."""
    strategy, ours, theirs, tokens = both_losses(1e-6, 0)
    alone = float(strategy.objective.loss(strategy.module().detach(), np.array([0]), 0))
    assert ours[0] == pytest.approx(alone, rel=1e-4)
    assert theirs[0] == pytest.approx(alone / tokens, rel=1e-4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_all_steps_that_are_planned_are_paid(accumulate):
    scorer = PlantedScorer("separable", length=14)
    objective = scorer.objective(scorer.budget(60))
    strategy = CPT(objective, seed=0, batch=4, interval=4, accumulate=accumulate)
    free = CPT(scorer.objective(scorer.budget(60)), seed=0, batch=4, interval=4, decay=0)
    assert strategy.planned < free.planned
    assert loop.search(strategy).startswith(f"all {strategy.planned} steps")
    assert strategy.training.steps == strategy.planned
    assert objective.ledger.left < scorer.budget(3), "and hardly more could be"


def test_balls_of_no_size_are_refused():
    with pytest.raises(OptionError, match="nothing is trained where 'eps_input' and 'eps_format'"):
        check_options("cpt", CPT, {"eps_input": 0.0, "eps_format": 0.0})
