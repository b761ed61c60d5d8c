"""Vectors with changed weights in the engine, gradients too.

Against a plain forward of a model that has the weights (law 3).
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
from promptsearch.prompts.weights import TunedPrompt, Weights
from promptsearch.scoring import sharing as plan
from promptsearch.testing.tiny_task import tiny_engine, tiny_task

FRONT, BEHIND = "{prompt} {text} It was {answer}", "The movie {text} {prompt} It was {answer}"
ANCHORS = "{prompt:2} capital {text} movie {prompt:1} It was {answer}"
EVERYTHING = np.arange(12)
make_task = partial(tiny_task, answers=("bad", "very good indeed"))
make_engine = partial(tiny_engine, kind="tuned")


def tuned(lm, count=3):
    """Vectors near words, and all weights changed."""
    generator = torch.Generator().manual_seed(0)

    def near(tensor, scale):
        return tensor + scale * torch.randn(tensor.shape, generator=generator)

    weights = lm.weights.tensors.items()
    start = lm.vocabulary[torch.tensor(lm.words[:3])]
    return [
        TunedPrompt({"vectors": near(start, 0.1), **{n: near(t, 0.05) for n, t in weights}})
        for _ in range(count)
    ]


def with_weights(lm, prompt):
    """A model of its own that has them."""
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(prompt.tensors.get(name, parameter))
    return model


def log_probabilities(lm, task, model, vectors, example):
    """Log-probability of each answer, one row at a time; and the most tokens of an answer.

    By the model's own forward of embeddings.

    The row is that of a soft prompt: each segment of the template as the user wrote it, special
    tokens first of all.
    """
    template = task.template.bind(3)
    embed = model.get_input_embeddings()
    segments = [lm.encode(text) if text else [] for text in template.fill(example.fields)]
    parts = [embed(torch.tensor([*lm.lead, *segments[0]], dtype=torch.long))]
    for slot, segment in zip(
        vectors.split([slot.length for slot in template.slots]), segments[1:], strict=True
    ):
        parts += [slot, embed(torch.tensor(segment, dtype=torch.long))]
    found = []
    choices = [lm.encode(text) for text in task.choices or ()]
    answers = choices or [[*lm.encode(example.answer), lm.end]]
    for answer in answers:
        row = torch.cat([*parts, embed(torch.tensor(answer))])[None]
        steps = model(inputs_embeds=row).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        found.append(steps[range(len(answer)), answer].sum())
    return torch.stack(found), max(map(len, answers))


@pytest.mark.parametrize("template", [FRONT, BEHIND, ANCHORS])
def test_losses_are_those_of_models_that_have_the_weights_and_read_the_vectors(lm, template):
    task, prompts, known = make_task(template), tuned(lm), lm.hash
    engine = make_engine(lm, task)
    scores = engine.score(prompts, EVERYTHING)
    assert not scores.failures
    for p, prompt in enumerate(prompts):
        model = with_weights(lm, prompt)
        for example in engine.examples(EVERYTHING):
            with torch.no_grad():
                found, tokens = log_probabilities(lm, task, model, prompt.vectors, example)
            expected = found.log_softmax(-1)
            assert (
                abs(scores.losses[p, example.id] + float(expected[example.choice])) < 1e-5 * tokens
            )
            assert np.abs(scores.choices[p, example.id] - expected.numpy()).max() < 1e-5 * tokens
    assert lm.integrity.digest() == known
    distances = np.abs(scores.losses[:, None] - scores.losses[None]).max(-1) + np.eye(3)
    assert distances.min() > 1e-3, "all of them differ"


def test_text_answers_too(lm):
    task, (prompt,) = make_task(BEHIND, answers=None), tuned(lm, 1)
    engine, model = make_engine(lm, task), with_weights(lm, prompt)
    losses = engine.score([prompt], EVERYTHING).losses[0]
    for example in engine.examples(EVERYTHING):
        with torch.no_grad():
            found, tokens = log_probabilities(lm, task, model, prompt.vectors, example)
        assert abs(losses[example.id] + float(found[0])) < 1e-5 * tokens


@pytest.mark.parametrize("template", [FRONT, BEHIND, ANCHORS])
@pytest.mark.parametrize("answers", [("bad", "good"), None], ids=["choices", "text"])
def test_loss_and_gradient_are_those_of_plain_torch(lm, template, answers):
    """Of the vectors and of every weight."""
    task, (prompt,), examples = (
        make_task(template, answers=answers),
        tuned(lm, 1),
        np.array([3, 0, 5]),
    )
    engine = make_engine(lm, task)
    ours = {name: tensor.clone().requires_grad_() for name, tensor in prompt.tensors.items()}
    loss = engine.loss(ours, examples)
    loss.backward()
    model, vectors = (
        with_weights(lm, prompt).requires_grad_(True),
        prompt.vectors.clone().requires_grad_(),
    )
    theirs = torch.tensor(0.0)
    for example in engine.examples(examples):
        found, _ = log_probabilities(lm, task, model, vectors, example)
        theirs = theirs - (
            found[0] if answers is None else found.log_softmax(-1)[example.choice]
        ) / len(examples)
    theirs.backward()
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert (
        (ours["vectors"].grad - vectors.grad).abs().max() < 1e-5 < 1e-3 < vectors.grad.abs().max()
    )
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert (ours[name].grad - parameter.grad).abs().max() < 1e-5, name
    assert loss.item() == pytest.approx(engine.score([prompt], examples).losses.mean(), abs=1e-5)
    lm.check_unchanged()


@pytest.mark.parametrize("template", [FRONT, BEHIND, ANCHORS])
def test_vectors_with_the_weights_as_they_are_score_like_a_soft_prompt(lm, template):
    task = make_task(template)
    vectors = tuned(lm, 1)[0].vectors
    expected = make_engine(lm, task, kind="slots").score([SoftPrompt(vectors)], EVERYTHING).losses
    prompts = [
        TunedPrompt({"vectors": vectors}),
        TunedPrompt({"vectors": vectors, **lm.weights.tensors}),
    ]
    assert np.abs(make_engine(lm, task).score(prompts, EVERYTHING).losses - expected).max() < 1e-5


def test_a_loss_does_not_depend_on_what_else_is_scored(lm, monkeypatch):
    task, prompts = make_task(BEHIND), tuned(lm)
    engine = make_engine(lm, task, keep=True)
    together = engine.score(prompts, EVERYTHING).losses
    order = np.random.default_rng(1).permutation(12)
    assert np.abs(engine.score(prompts[::-1], order).losses[::-1] - together[:, order]).max() < 1e-5
    assert engine.kept == (0, 0), "keys and values of other weights must not come back"
    monkeypatch.setitem(plan.PASS_TOKENS, "cpu", 1)
    assert (
        np.abs(make_engine(lm, task, memory=0).score(prompts, EVERYTHING).losses - together).max()
        < 1e-5
    )


@pytest.mark.parametrize("template", [FRONT, BEHIND, ANCHORS])
def test_the_row_is_that_of_a_soft_prompt_and_is_paid_whole(lm, template):
    task, ids = make_task(template), EVERYTHING
    engine, slots, (prompt,) = (
        make_engine(lm, task),
        make_engine(lm, task, kind="slots"),
        tuned(lm, 1),
    )
    assert not engine.lead(ids).any()
    assert (engine.context(ids) == slots.lead(ids) + slots.context(ids)).all()
    assert engine.length(prompt) == 3


def test_going_back_crosses_all_layers_and_pays_the_weights(llama):
    engine, (prompt,) = make_engine(llama, make_task()), tuned(llama, 1)
    assert engine.passes(prompt.tensors) == (1.0, 2.0)
    norm = "model.norm.weight"
    share = prompt.tensors[norm].numel() / llama.weights.total
    assert engine.passes({"vectors": prompt.vectors, norm: prompt.tensors[norm]}) == (
        1.0,
        1 + share,
    )
    assert engine.passes({"vectors": prompt.vectors}) == (1.0, 1.0)
    assert engine.passes({norm: prompt.tensors[norm]}) == (1.0, share)


@pytest.mark.parametrize("template", [FRONT, BEHIND])
def test_the_plan_knows_what_is_computed(llama, template):
    engine, prompts = make_engine(llama, make_task(template)), tuned(llama)
    said, computed = engine.predict(prompts, EVERYTHING), engine.score(prompts, EVERYTHING).computed
    assert said.tokens == pytest.approx(computed, rel=0.1)


def test_bfloat16_is_near(llama):
    task, prompts = make_task(), tuned(llama)
    fast = llama.to(torch.bfloat16)
    losses = [make_engine(model, task).score(prompts, EVERYTHING).losses for model in (llama, fast)]
    assert 0 < np.abs(losses[0] - losses[1]).max() < 0.3
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in prompts[0].tensors.items()}
    make_engine(fast, task).loss(leaves, EVERYTHING).backward()
    assert all(
        leaf.grad.dtype == torch.float32 for leaf in leaves.values() if leaf.grad is not None
    )
    assert leaves["vectors"].grad.abs().max() > 0
    fast.check_unchanged()


def test_each_kind_of_prompt_under_its_own_template_only(llama):
    task, (prompt,) = make_task(), tuned(llama, 1)
    engine = make_engine(llama, task)
    for other in (HardPrompt(llama.words[:3]), SoftPrompt(llama.vocabulary[:3]), Weights({})):
        with pytest.raises(
            PromptError,
            match=f"vectors with changed weights are scored, got a {type(other).__name__}",
        ):
            engine.score([prompt, other], EVERYTHING)
    assert (
        "changed weights are scored, got a TextPrompt"
        in engine.score([TextPrompt("good"), prompt], EVERYTHING).failures[0]
    )
    for numbers, got in ((torch.zeros(3, 32), "Tensor"), ({}, "dict")):
        with pytest.raises(
            PromptError,
            match=f"under this template vectors with changed weights are trained, got a {got}$",
        ):
            engine.loss(numbers, EVERYTHING)
    for kind in ("slots", "weights", "prefix"):
        with pytest.raises(PromptError, match=r"are scored, got a TunedPrompt$"):
            make_engine(llama, task, kind=kind).score([prompt], EVERYTHING)
        with pytest.raises(PromptError, match=r"are trained, got a dict with vectors$"):
            make_engine(llama, task, kind=kind).loss(dict(prompt.tensors), EVERYTHING)


def test_vectors_of_another_shape_and_weights_of_nothing_are_refused(llama):
    engine = make_engine(llama, make_task())
    for shape in ((2, 32), (3, 16)):
        with pytest.raises(
            PromptError,
            match=rf"shape \(3, 32\) under this template and model, got \({shape[0]}, {shape[1]}\)",
        ):
            engine.score([TunedPrompt({"vectors": torch.zeros(shape)})], EVERYTHING)
        with pytest.raises(PromptError, match=r"shape \(3, 32\) under this template and model"):
            engine.loss({"vectors": torch.zeros(shape)}, EVERYTHING)
    with pytest.raises(PromptError, match="belong to nothing in this model"):
        engine.score(
            [TunedPrompt({"vectors": torch.zeros(3, 32), "x.y": torch.zeros(1)})], EVERYTHING
        )


def test_not_finite_numbers_are_failures_and_are_undone(llama):
    engine, (good,) = make_engine(llama, make_task()), tuned(llama, 1)
    for name in ("vectors", "model.norm.weight"):
        bad = TunedPrompt({**good.tensors, name: torch.full_like(good.tensors[name], float("nan"))})
        scores = engine.score([bad, good], EVERYTHING)
        assert list(scores.failures) == [0] and np.isfinite(scores.losses[1]).all()
        with pytest.raises(PromptSearchError, match="is not finite: lower the rate"):
            engine.loss(bad.tensors, EVERYTHING)
    llama.check_unchanged()
