"""Changed weights in the engine.

Against models that have them (law 3), against PEFT, and their gradient against plain torch.
"""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch

from promptsearch.errors import PromptError, PromptSearchError
from promptsearch.prompts.hard import HardPrompt
from promptsearch.prompts.soft import SoftPrompt
from promptsearch.prompts.text import TextPrompt
from promptsearch.prompts.weights import Weights
from promptsearch.scoring import Engine
from promptsearch.scoring import sharing as plan
from promptsearch.tasks.task import Task
from promptsearch.testing.tiny_task import ROWS, SPLITS, tiny_engine, tiny_task

FRONT, BEHIND = "{prompt} {text} It was {answer}", "{text} {prompt} It was {answer}"
EVERYTHING = np.arange(12)
FORMS = ("low rank", "scales", "norms", "biases")
make_engine = partial(tiny_engine, answers=("bad", "very good indeed"), kind="weights")


def changed(lm, count=3, scale=0.05):
    """Models with all weights changed."""
    generator = torch.Generator().manual_seed(0)

    def near(tensor):
        return tensor + scale * torch.randn(tensor.shape, generator=generator)

    return [
        Weights({name: near(tensor) for name, tensor in lm.weights.tensors.items()})
        for _ in range(count)
    ]


def with_weights(lm, weights):
    """A model of its own that has them."""
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights.tensors:
                parameter.copy_(weights.tensors[name])
    return model


def question(lm, example, template=FRONT):
    """The token ids of an example up to its answer."""
    bound = tiny_task(template).template.bind(3).taking("weights")
    return [*lm.lead, *lm.encode(bound.render(example.fields, [""], ""))]


def plain(lm, engine, model, example, template=FRONT):
    """Summed log-probability of each answer by the model's own forward, one row at a time."""
    layout = engine.layout(example.id)
    found = []
    for answer in layout.answers:
        ids = question(lm, example, template)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*ids, *answer]])).logits[0].double()
        steps = logits[-len(answer) - 1 : -1].log_softmax(-1)
        found.append(sum(float(step[token]) for step, token in zip(steps, answer, strict=True)))
    return found, max(map(len, layout.answers))


@pytest.mark.parametrize("template", [FRONT, BEHIND])
def test_losses_are_those_of_models_that_have_the_weights(
    lm, template, draw_weights, weights_in_peft
):
    engine = make_engine(lm, template)
    forms = [form for form in FORMS if form != "biases" or lm.name != "gpt2"]
    prompts = [*changed(lm, 2), Weights({}), *(draw_weights(lm, form) for form in forms)]
    models = [with_weights(lm, p) for p in prompts[:3]]
    models += [weights_in_peft(lm, p)[0] for p in prompts[3:]]
    known = lm.hash
    scores = engine.score(prompts, EVERYTHING)
    assert not scores.failures
    for p, model in enumerate(models):
        for example in engine.examples(EVERYTHING):
            found, tokens = plain(lm, engine, model, example, template)
            expected = torch.tensor(found).log_softmax(-1)
            assert (
                abs(scores.losses[p, example.id] + float(expected[example.choice])) < 1e-5 * tokens
            )
            assert np.abs(scores.choices[p, example.id] - expected.numpy()).max() < 1e-5 * tokens
    assert lm.integrity.digest() == known
    distances = np.abs(scores.losses[:, None] - scores.losses[None]).max(-1) + np.eye(len(prompts))
    assert distances.min() > 1e-3, "all of them differ"


def test_text_answers_too(lm):
    engine, prompt = make_engine(lm, answers=None), changed(lm, 1)[0]
    losses, model = engine.score([prompt], EVERYTHING).losses[0], with_weights(lm, prompt)
    for example in engine.examples(EVERYTHING):
        found, tokens = plain(lm, engine, model, example)
        assert abs(losses[example.id] + found[0]) < 1e-5 * tokens


def test_a_loss_does_not_depend_on_what_else_is_scored(lm, monkeypatch):
    prompts = changed(lm)
    engine = make_engine(lm, keep=True)
    together = engine.score(prompts, EVERYTHING).losses
    order = np.random.default_rng(1).permutation(12)
    assert np.abs(engine.score(prompts[::-1], order).losses[::-1] - together[:, order]).max() < 1e-5
    assert engine.kept == (0, 0), "keys and values of other weights must not come back"
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 1)
    assert (
        np.abs(make_engine(lm, memory=0).score(prompts, EVERYTHING).losses - together).max() < 1e-5
    )


def test_one_step_is_that_of_plain_torch(lm):
    """The loss, the gradient of every weight, and the weights after a step of AdamW."""
    engine, examples = make_engine(lm, answers=("bad", "good")), np.array([3, 0, 5])
    ours = {name: tensor.clone().requires_grad_() for name, tensor in lm.weights.tensors.items()}
    loss = engine.loss(ours, examples)
    loss.backward()
    model = copy.deepcopy(lm.model).requires_grad_(True)
    choices = [lm.encode(f" {answer}")[0] for answer in ("bad", "good")]
    theirs = torch.tensor(0.0)
    for example in engine.examples(examples):
        ids = question(lm, example)
        steps = model(input_ids=torch.tensor([ids])).logits[0, -1, choices].log_softmax(-1)
        theirs = theirs - steps[example.choice] / len(examples)
    theirs.backward()
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert (ours[name].grad - parameter.grad).abs().max() < 1e-5, name
    assert loss.item() == pytest.approx(
        engine.score([Weights(ours)], examples).losses.mean(), abs=1e-5
    )
    before = {name: tensor.detach().clone() for name, tensor in ours.items()}
    for parameters in (list(ours.values()), list(model.parameters())):
        torch.optim.SGD(parameters, lr=0.1).step()
    for name, parameter in model.named_parameters():
        assert (ours[name] - parameter).abs().max() < 1e-5
    assert any(not torch.equal(ours[name], before[name]) for name in ours)
    lm.check_unchanged()


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_of_added_weights_is_that_of_peft(lm, form, draw_weights, weights_in_peft):
    if form == "biases" and lm.name == "gpt2":
        return  # PEFT adds biases to no Conv1D
    engine, examples, prompt = (
        make_engine(lm, answers=None),
        np.array([3, 0, 5]),
        draw_weights(lm, form),
    )
    ours = {name: tensor.clone().requires_grad_() for name, tensor in prompt.tensors.items()}
    engine.loss(ours, examples).backward()
    model, named = weights_in_peft(lm, prompt)
    theirs = torch.tensor(0.0)
    for example in engine.examples(examples):
        answer = engine.layout(example.id).answers[0]
        ids = [*question(lm, example), *answer]
        steps = (
            model(input_ids=torch.tensor([ids])).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        )
        theirs = theirs - steps.gather(-1, torch.tensor(answer)[:, None]).sum() / len(examples)
    theirs.backward()
    for name, parameter in named.items():
        assert (ours[name].grad - parameter.grad.reshape(ours[name].shape)).abs().max() < 1e-5, name


def test_below_the_lowest_changed_layer_nothing_is_recorded(llama):
    """What is not charged is not computed, either."""
    engine = make_engine(llama)
    weights = llama.weights
    names = weights.below([weights.layers[-1], weights.norm])
    seen = []
    handle = llama.model.get_submodule(weights.layers[-1]).register_forward_pre_hook(
        lambda module, args: seen.append(args[0].requires_grad)
    )
    try:
        engine.loss(
            {name: weights.tensors[name].clone().requires_grad_() for name in names}, EVERYTHING
        ).backward()
    finally:
        handle.remove()
    assert seen and not any(seen)


def test_the_row_is_the_text_of_an_empty_prompt_and_is_paid_whole(lm):
    for template in (FRONT, BEHIND):
        engine = make_engine(lm, template)
        example = engine.examples(np.array([5]))[0]
        text = lm.encode((" " if template == FRONT else "") + f"{example.fields['text']} It was")
        answers = sum(len(lm.encode(f" {answer}")) for answer in ("bad", "very good indeed"))
        assert engine.lead(np.array([5]))[0] == 0
        assert engine.context(np.array([5]))[0] == len(lm.lead) + len(text) + answers
        assert engine.length(Weights({})) == 0


def test_weights_that_change_nothing_score_like_the_empty_prompt(lm):
    task = Task.from_rows(
        ROWS, template=FRONT, label="label", answers={0: "bad", 1: "good"}, splits=SPLITS
    )
    slots = Engine(lm, task.template.bind(3), task.splits["search"], task.choices)
    empty = slots.score([TextPrompt("")], EVERYTHING).losses
    same = Weights({name: tensor for name, tensor in lm.weights.tensors.items()})
    losses = make_engine(lm, answers=("bad", "good")).score([Weights({}), same], EVERYTHING).losses
    assert np.abs(losses - empty).max() < 1e-5


def test_the_plan_knows_what_is_computed(llama):
    engine, prompts = make_engine(llama), changed(llama)
    said, computed = engine.predict(prompts, EVERYTHING), engine.score(prompts, EVERYTHING).computed
    assert said.tokens == pytest.approx(computed, rel=0.1)


def test_bfloat16_is_near(llama, draw_weights):
    prompts = [*changed(llama), *(draw_weights(llama, form) for form in FORMS)]
    exact, fast = (
        make_engine(model).score(prompts, EVERYTHING).losses
        for model in (llama, llama.to(torch.bfloat16))
    )
    assert 0 < np.abs(exact - fast).max() < 0.3
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in prompts[0].tensors.items()}
    make_engine(llama.to(torch.bfloat16)).loss(leaves, EVERYTHING).backward()
    assert all(
        leaf.grad.dtype == torch.float32 for leaf in leaves.values() if leaf.grad is not None
    )
    llama.to(torch.bfloat16).check_unchanged()


def test_each_kind_of_prompt_under_its_own_template_only(llama):
    engine = make_engine(llama)
    for prompt in (HardPrompt(llama.words[:3]), SoftPrompt(llama.vocabulary[:3])):
        with pytest.raises(
            PromptError,
            match=f"under this template changed weights are scored, got a {type(prompt).__name__}",
        ):
            engine.score([Weights({}), prompt], EVERYTHING)
    assert (
        "changed weights are scored, got a TextPrompt"
        in engine.score([TextPrompt("good"), Weights({})], EVERYTHING).failures[0]
    )
    with pytest.raises(
        PromptError, match="under this template changed weights are trained, got a Tensor"
    ):
        engine.loss(torch.zeros(3, 32), EVERYTHING)
    task = Task.from_rows(
        ROWS, template=FRONT, label="label", answers={0: "bad", 1: "good"}, splits=SPLITS
    )
    slots = Engine(llama, task.template.bind(3), task.splits["search"], task.choices)
    with pytest.raises(
        PromptError, match="under this template prompts that fill slots are scored, got a Weights"
    ):
        slots.score([Weights({})], EVERYTHING)
    with pytest.raises(
        PromptError, match="under this template prompts that fill slots are trained, got a dict"
    ):
        slots.loss({}, EVERYTHING)
    with pytest.raises(PromptError, match="belong to nothing in this model"):
        engine.score([Weights({"x.y": torch.zeros(1)})], EVERYTHING)


def test_not_finite_weights_are_failures_and_are_undone(llama):
    bad = Weights({"model.norm.weight": torch.full((32,), float("nan"))})
    scores = make_engine(llama).score([bad, Weights({})], EVERYTHING)
    assert list(scores.failures) == [0] and np.isfinite(scores.losses[1]).all()
    with pytest.raises(PromptSearchError, match="is not finite: lower the rate"):
        make_engine(llama).loss(bad.tensors, EVERYTHING)
    llama.check_unchanged()
